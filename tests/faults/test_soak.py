"""Faults of every kind at random, and room for three checkpoints: the results do not change.

Thirty checkpoints here; `benchmarks/bench_soak.py` takes all 154.
"""

from pathlib import Path

from driver import SHAPE
from soak import SMALL_BYTES, soak

from pythia_fast.suite import STEPS
from pythia_fast.testing import make_series

SOME = STEPS[:30]


def test_a_soak(tmp_path: Path) -> None:
    folder = make_series(tmp_path / "series", SHAPE, SOME)
    soaked = soak(folder, SOME, tmp_path, rate=0.25, seed=1)
    assert soaked.failures == 0
    assert soaked.rows == soaked.expected
    assert len(soaked.spoiled) > 3, "hardly a fault came"
    assert soaked.most_bytes <= soaked.budget_bytes + SMALL_BYTES * len(SOME)
