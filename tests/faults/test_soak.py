"""Faults of every kind at random, and room for three checkpoints: the results do not change.

Thirty checkpoints here, all 154 in `make faults`; `benchmarks/bench_soak.py` measures.
"""

from pathlib import Path

import pytest
from driver import SHAPE
from soak import SLACK_BYTES, soak

from pythia_fast.suite import STEPS
from pythia_fast.testing import make_series


@pytest.mark.timeout(1800)
def test_a_soak(tmp_path: Path, long_form: bool) -> None:
    steps, rate = (STEPS, 0.03) if long_form else (STEPS[:30], 0.12)
    folder = make_series(tmp_path / "series", SHAPE, steps)
    soaked = soak(folder, steps, tmp_path, rate=rate, seed=1)
    assert soaked.rows == soaked.expected
    assert sum(soaked.spoiled.values()) > 3, f"hardly a fault came: {soaked.spoiled}"
    assert 0 < soaked.most_bytes <= soaked.budget_bytes + SLACK_BYTES
