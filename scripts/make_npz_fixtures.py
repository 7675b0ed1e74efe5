#!/usr/bin/env python3
"""Writes the moment files that tests read, as ROME's and MEMIT's code does: numpy.savez of the statistics' state.

    python scripts/make_npz_fixtures.py

Needs numpy alone. The keys are whole numbers, so that sums are exact and tests need no tolerance.
"""

from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "crates/edit/tests/numpy"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    keys = np.random.default_rng(0).integers(-4, 5, size=(40, 4)).astype(np.float32)
    state = {
        "mom2.constructor": "util.runningstats.SecondMoment()",
        "mom2.count": keys.shape[0],
        "mom2.mom2": keys.T @ keys,
        "sample_size": 3,
    }
    np.savez(OUT / "stored.npz", **state)
    np.savez_compressed(OUT / "deflated.npz", **state)
    np.savez(OUT / "half-by-columns.npz", **state | {"mom2.mom2": np.asfortranarray(keys.T @ keys).astype(np.float16)})
    print((keys.T @ keys).tolist())


if __name__ == "__main__":
    main()
