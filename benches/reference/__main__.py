"""`python -m reference check FOLDER …` (from benches/): this implementation against the authors' numbers."""

import sys

import torch

from . import check

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "check":
        sys.exit(__doc__)
    torch.set_num_threads(2)
    failed = sum(check.run(folder) for folder in sys.argv[2:])
    sys.exit(f"{failed} differences are over their tolerance" if failed else 0)
