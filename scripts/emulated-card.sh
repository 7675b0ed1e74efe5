#!/usr/bin/env bash
# Runs a command on a machine that seems to have an NVIDIA card, with kernels translated for the processor:
#
#     cargo build --release --features cuda
#     scripts/emulated-card.sh target/release/palinode run pipelines/demo.yaml --device cuda
#     scripts/emulated-card.sh scripts/gpu-check.sh --palinode target/release/palinode --shapes none
#
# A driver and a compiler of our own stand in for libcuda and libnvrtc (emulated-card/). Everything from Burn's kernels upwards is what
# runs on a card, so that wrong results, operations that a card lacks, transfers within a loop and what happens when memory runs out
# (EMULATED_MEMORY=60000000) show without one. Speed does not. The card that it seems to be has no tensor cores; with
# EMULATED_CAPABILITY=80 it has those of an A100, with their rounding, and Burn takes them. EMULATED_CAPABILITY=90 is a card of
# 80 GiB that computes nothing: with EMULATED_REPORT=1 it tells what models of any size take of memory, kernels and transfers, and the
# time is the host's own. It needs g++ and python3. With EMULATED_NVRTC=/path/to/libnvrtc.so.12 and CUDA_PATH, and that library's folder
# in LD_LIBRARY_PATH, NVIDIA's own compiler has to accept each kernel too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2; }
for tool in g++ python3; do
    command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 1; }
done
export EMULATED_CAPABILITY=${EMULATED_CAPABILITY:-75}
case $EMULATED_CAPABILITY in 75 | 80 | 90) ;; *) echo "EMULATED_CAPABILITY: 75, 80 or 90" >&2; exit 2 ;; esac
# Kernels, and which of them are fastest, differ between cards. What older tools made is made again.
folder=$here/../target/emulated-card/$EMULATED_CAPABILITY${EMULATED_WITHOUT:+-without-$EMULATED_WITHOUT}
[ -z "$(find "$here/emulated-card" -newer "$folder/made" 2>&1)" ] || rm -rf "$folder"
mkdir -p "$folder/kernels"
folder=$(cd "$folder" && pwd)
[ -e "$folder/made" ] || touch "$folder/made"
for library in driver:cuda compiler:nvrtc; do
    from=$here/emulated-card/${library%:*}.cpp to=$folder/lib${library#*:}.so
    [ -e "$to" ] || g++ -w -O2 -std=c++17 -fPIC -shared -o "$to" "$from" -ldl
done
export EMULATED_TOOLS=$here/emulated-card EMULATED_FOLDER=$folder/kernels
export CUDA_PATH=${CUDA_PATH:-$here/emulated-card/toolkit}
# Kernels are kept apart from those of a real card.
export XDG_CACHE_HOME=$folder/cache
# The fastest way here says nothing of a card.
export CUBECL_AUTOTUNE_LEVEL=${CUBECL_AUTOTUNE_LEVEL:-minimal}
export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$@"
