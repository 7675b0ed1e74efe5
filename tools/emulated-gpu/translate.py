"""Makes a kernel in CUDA's C++ one for the host: translate.py KERNEL.cu HOST.cpp.

Kernels as Burn writes them are plain C++ but for a few words, which emulated.h defines; what is left are shared memory, instructions
written out as assembler, and a function that takes the arguments out of the driver's array.
"""

import re
import sys
from pathlib import Path

# Instructions, and what does the same: see ptx.h.
INSTRUCTIONS = {
    r"(max|min)\.NaN\.f32": r"emulated_\1",
    r"atom\.relaxed\.add\.f32": "emulated_add",
    r"cp\.async\.c[ag]\.shared::cta\.global": "emulated_copy",
    r"cp\.async\.mbarrier\.arrive\.shared::cta\.b64": "emulated_copied",
    r"ldmatrix\.sync\.aligned\.m8n8\.x[124]\.shared::cta\.b16": "emulated_ldmatrix<false>",
    r"ldmatrix\.sync\.aligned\.m8n8\.x[124]\.trans\.shared::cta\.b16": "emulated_ldmatrix<true>",
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.f16\.f16\.f32": "emulated_mma<__half>",
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32": "emulated_mma<__nv_bfloat16>",
    r"mma\.sync\.aligned\.m16n8k8\.row\.col\.f32\.tf32\.tf32\.f32": "emulated_mma<EmulatedTf32>",
}
OPERAND = r'"([^"]*)"(?:\s*\(([^()]*)\))?'
ASSEMBLER = rf'\basm\s*(?:volatile)?\s*\(\s*"([^"]*)"((?:[\s:,]*{OPERAND})*[\s:]*)\)'


def call(statement):
    """The call in place of an instruction, with what it reads and then what it writes."""
    instruction, words = statement[1].split(maxsplit=1)
    found = [match.expand(to) for of, to in INSTRUCTIONS.items() if (match := re.fullmatch(of, instruction))]
    if not found:
        raise SystemExit(f"{sys.argv[1]}: an instruction that is not emulated: {statement[1]}")
    operands = [(kind, value) for kind, value in re.findall(OPERAND, statement[2]) if value]
    values = [operands[int(word[1:])][1] if word[0] == "%" else word for word in re.findall(r"%\d+|\b\d+", words)]
    written = sum(kind.startswith("=") for kind, _ in operands)
    return f"{found[0]}({', '.join(values[written:] + values[:written])})"


source = Path(sys.argv[1]).read_text()
waits = int("sync" in source or "cuda/barrier" in source)
# Tensor cores, by way of wmma or of their instructions.
cores = 1 if "mma_sync" in source else 2 if "mma.sync" in source else 0

source = re.sub(r"extern __shared__ __align__\(\d+\) char (\w+)\[\];", r"char* \1 = emulated_gpu->shared;", source)
source = re.sub(ASSEMBLER, call, source)
if "asm" in source:
    raise SystemExit(f"{sys.argv[1]}: an instruction that is not emulated: {source[source.index('asm') :][:120]}")

head = re.search(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\))?\s*(\w+)\((.*?)\) \{', source, re.S)
name, parameters = head.group(1), [p for p in head.group(2).split(",") if p.strip()]
kinds = [re.sub(r"__restrict__|__grid_constant__", "", re.sub(r"\b\w+\s*$", "", p)).strip() for p in parameters]
values = ", ".join(f"*({kind}*)arguments[{i}]" for i, kind in enumerate(kinds))
Path(sys.argv[2]).write_text(
    f'#define EMULATED_KERNEL\n#include "emulated.h"\n#include "ptx.h"\n{source}\n'
    f'extern "C" {{ int emulated_waits = {waits}, emulated_cores = {cores}; void emulated_{name}(void** arguments) {{ {name}({values}); }} }}\n'
)
