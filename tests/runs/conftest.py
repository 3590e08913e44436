"""A small sweep for the tests of runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pythia_fast


@pytest.fixture
def small_sweep(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path
) -> Callable[..., pythia_fast.SweepResult]:
    """Sweep the tiny series into `tmp_path / "run"`; any argument may be replaced."""

    def run(**changes: Any) -> pythia_fast.SweepResult:
        arguments = {"model": tiny_series, "tokens": tiny_ids, "out": tmp_path / "run"}
        arguments |= {"progress": False} | changes
        return pythia_fast.sweep(**arguments)

    return run
