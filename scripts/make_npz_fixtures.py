"""Second moments as numpy writes them: crates/edit/tests/numpy.

    python scripts/make_npz_fixtures.py

Needs numpy. The entries are those of the published files.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "crates" / "edit" / "tests" / "numpy"

keys = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
entries = {
    "mom2.constructor": "util.runningstats.SecondMoment()",
    "mom2.count": 40,
    "mom2.mom2": keys.T @ keys,
    "sample_size": 7,
}
FOLDER.mkdir(exist_ok=True)
np.savez(FOLDER / "plain.npz", **entries)
np.savez_compressed(FOLDER / "packed.npz", **entries)
