"""`python -m reference check FOLDER …` (from benches/): this implementation against the authors' numbers.
`python -m reference trace MODEL FOLDER [PROMPTS [WINDOW]]`: causal tracing of a result of the stage `trace` again, see trace.py."""

import sys

import torch

from . import check, trace

if __name__ == "__main__":
    if len(sys.argv) in (4, 5, 6) and sys.argv[1] == "trace":
        sys.exit(0 if trace.run(*sys.argv[2:]) else "a difference is over its tolerance")
    if len(sys.argv) < 3 or sys.argv[1] != "check":
        sys.exit(__doc__)
    torch.set_num_threads(2)
    failed = sum(check.run(folder) for folder in sys.argv[2:])
    sys.exit(f"{failed} differences are over their tolerance" if failed else 0)
