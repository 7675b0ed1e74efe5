#!/usr/bin/env python3
"""Writes the numbers that our statistics are compared with: crates/eval/tests/fixtures/statistics.json.

Needs scipy (pip install scipy). Samples are drawn by a seed; what scipy makes of them is recorded with its version, so that no test needs
Python.
"""

import json
import pathlib
from itertools import accumulate

import numpy
import scipy
from scipy import stats

random = numpy.random.default_rng(7)


def students():
    for n in [2, 3, 5, 10, 31]:
        values = random.normal(0.7, 0.1, n).round(6)
        low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
        yield {"values": values.tolist(), "mean": values.mean(), "deviation": values.std(ddof=1), "interval": [low, high]}


def wilsons():
    for good, n in [(0, 5), (5, 5), (3, 7), (31, 32), (450, 1000)]:
        interval = stats.binomtest(good, n).proportion_ci(0.95, method="wilson")
        yield {"good": good, "n": n, "interval": [interval.low, interval.high]}


def mcnemars():
    for more, fewer in [(0, 0), (1, 0), (5, 5), (9, 2), (40, 12), (700, 640)]:
        n = more + fewer
        yield {"more": more, "fewer": fewer, "p": stats.binomtest(more, n, 0.5).pvalue if n else 1.0}


def flips():
    for n in [2, 4, 7, 11, 12]:
        values = random.normal(0.3, 1.0, n).round(6)
        found = stats.permutation_test(
            (values,), numpy.mean, permutation_type="samples", n_resamples=numpy.inf, alternative="two-sided"
        )
        yield {"differences": values.tolist(), "p": found.pvalue}


def holms():
    for n in [1, 3, 8]:
        ps = random.random(n).round(6) * 0.2
        # scipy has Benjamini and Hochberg only: Holm's own definition, on sorted p.
        order = numpy.argsort(ps)
        sorted_ = list(accumulate([min(1.0, (n - rank) * ps[at]) for rank, at in enumerate(order)], max))
        adjusted = numpy.empty(n)
        adjusted[order] = sorted_
        yield {"ps": ps.tolist(), "adjusted": adjusted.tolist()}


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    found = {
        "scipy": scipy.__version__,
        "student": list(students()),
        "wilson": list(wilsons()),
        "mcnemar": list(mcnemars()),
        "sign_flip": list(flips()),
        "holm": list(holms()),
    }
    path = root / "crates/eval/tests/fixtures/statistics.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
