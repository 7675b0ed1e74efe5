#!/usr/bin/env bash
# Everything that there is to know of a GPU, with one command on any machine that has one:
#
#     scripts/gpu-check.sh [--palinode PROGRAM] [--device cuda] [--shapes gpt2-xl,gpt-j-6b,llama-2-7b] [--folder gpu-check]
#
# It makes its inputs on the spot (models of published shapes with random weights, facts about numbered towns), runs every stage on
# the CPU and on the GPU for small models and compares them, runs and times the published shapes on the GPU, and
# writes FOLDER/table.md. It needs the program, built with `cargo build --release --features cuda`, python3 with numpy, and
# disk for the largest model (16 GB). `--device cpu` tries the check itself, without a GPU.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v python3 >/dev/null || { echo "python3 is missing" >&2; exit 1; }
python3 -c 'import numpy' 2>/dev/null || { echo "numpy is missing: python3 -m pip install numpy" >&2; exit 1; }
exec python3 "$here/gpu_check" "$@"
