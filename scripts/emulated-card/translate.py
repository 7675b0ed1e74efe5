"""Makes a kernel in CUDA's C++ one for the host: translate.py KERNEL.cu HOST.cpp.

Kernels as Burn writes them are plain C++ but for a few words, which emulated.h defines; what is left are shared memory, instructions
written out as assembler, and a function that takes the arguments out of the driver's array.
"""

import re
import sys
from pathlib import Path

source = Path(sys.argv[1]).read_text()
waits = int("__sync" in source or "_sync(" in source)

source = re.sub(r"extern __shared__ __align__\(\d+\) char (\w+)\[\];", r"char* \1 = emulated_card->shared;", source)
source = re.sub(
    r'asm\s*\("(max|min)\.NaN\.f32 %0, %1, %2;" : "=f"\((\w+)\) : "f"\((\w+)\), "f"\((\w+)\)\)', r"\2 = emulated_\1(\3, \4)", source
)
source = re.sub(
    r'asm volatile\("atom\.relaxed\.add\.f32 %0, \[%1\], %2;" : "=f"\((\w+)\) : "l"\((\w+)\), "f"\((\w+)\) \)',
    r"\1 = emulated_add((float*)\2, (float)\3)",
    source,
)
if "asm" in source:
    raise SystemExit(f"{sys.argv[1]}: an instruction that is not emulated: {source[source.index('asm') :][:120]}")

head = re.search(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\))?\s*(\w+)\((.*?)\) \{', source, re.S)
name, parameters = head.group(1), [p for p in head.group(2).split(",") if p.strip()]
kinds = [re.sub(r"__restrict__|__grid_constant__", "", re.sub(r"\b\w+\s*$", "", p)).strip() for p in parameters]
values = ", ".join(f"*({kind}*)arguments[{i}]" for i, kind in enumerate(kinds))
Path(sys.argv[2]).write_text(
    f'#define EMULATED_KERNEL\n#include "emulated.h"\n{source}\n'
    f'extern "C" {{ int emulated_waits = {waits}; void emulated_{name}(void** arguments) {{ {name}({values}); }} }}\n'
)
