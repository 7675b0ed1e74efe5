#!/usr/bin/env bash
# Runs a command on a machine that seems to have an NVIDIA GPU, with kernels translated for the CPU:
#
#     cargo build --release --features cuda
#     tools/emulated-gpu/run.sh target/release/palinode run pipelines/demo.yaml --device cuda
#     tools/emulated-gpu/run.sh scripts/gpu-check.sh --palinode target/release/palinode --shapes none
#
# README.md beside this script says what it shows and lists the settings. It needs g++ and python3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
for tool in g++ python3; do
    command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 1; }
done
export EMULATED_CAPABILITY=${EMULATED_CAPABILITY:-75}
case $EMULATED_CAPABILITY in 75 | 80 | 90) ;; *) echo "EMULATED_CAPABILITY: 75, 80 or 90" >&2; exit 2 ;; esac
# Kernels, and which of them are fastest, differ between GPUs. What older tools made is made again.
folder=$here/../../target/emulated-gpu/$EMULATED_CAPABILITY${EMULATED_WITHOUT:+-without-$EMULATED_WITHOUT}
[ -z "$(find "$here" -newer "$folder/made" 2>&1)" ] || rm -rf "$folder"
mkdir -p "$folder/kernels"
folder=$(cd "$folder" && pwd)
[ -e "$folder/made" ] || touch "$folder/made"
for library in driver:cuda compiler:nvrtc; do
    from=$here/${library%:*}.cpp to=$folder/lib${library#*:}.so
    [ -e "$to" ] || g++ -w -O2 -std=c++17 -fPIC -shared -o "$to" "$from" -ldl
done
export EMULATED_TOOLS=$here EMULATED_FOLDER=$folder/kernels
export CUDA_PATH=${CUDA_PATH:-$here/toolkit}
# Kernels are kept apart from those of a real GPU.
export XDG_CACHE_HOME=$folder/cache
# Which kernel is fastest here says nothing about a GPU.
export CUBECL_AUTOTUNE_LEVEL=${CUBECL_AUTOTUNE_LEVEL:-minimal}
export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$@"
