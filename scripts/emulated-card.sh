#!/usr/bin/env bash
# Runs a command on a machine that seems to have an NVIDIA card, with kernels translated for the processor:
#
#     cargo build --release --features cuda
#     scripts/emulated-card.sh target/release/palinode run pipelines/demo.yaml --device cuda
#     scripts/emulated-card.sh scripts/gpu-check.sh --palinode target/release/palinode --shapes none
#
# A driver and a compiler of our own stand in for libcuda and libnvrtc (emulated-card/). Everything from Burn's kernels upwards is what
# runs on a card, so that wrong results, operations that a card lacks, transfers within a loop and what happens when memory runs out
# (EMULATED_MEMORY=60000000) show without one. Speed does not, nor do tensor cores: the card that it seems to be has none. It
# needs g++ and python3. With EMULATED_NVRTC=/path/to/libnvrtc.so.12 and CUDA_PATH, NVIDIA's own compiler has to accept each kernel too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2; }
for tool in g++ python3; do
    command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 1; }
done
folder=$here/../target/emulated-card
mkdir -p "$folder/kernels"
folder=$(cd "$folder" && pwd)
for library in driver:cuda compiler:nvrtc; do
    from=$here/emulated-card/${library%:*}.cpp to=$folder/lib${library#*:}.so
    if [ ! -e "$to" ] || [ "$from" -nt "$to" ]; then
        g++ -w -O2 -std=c++17 -fPIC -shared -o "$to" "$from" -ldl
    fi
done
export EMULATED_TOOLS=$here/emulated-card EMULATED_FOLDER=$folder/kernels
export CUDA_PATH=${CUDA_PATH:-$here/emulated-card/toolkit}
# Kernels are kept apart from those of a real card.
export XDG_CACHE_HOME=$folder/cache
# The fastest way here says nothing of a card.
export CUBECL_AUTOTUNE_LEVEL=${CUBECL_AUTOTUNE_LEVEL:-minimal}
export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$@"
