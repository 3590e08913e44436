"""A small sweep for the tests of runs, of a folder or of what behaves as if from the Hub."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from remote_series import Remote

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


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time at which it is looked who works, however late that is."""
    now_s = time.time()
    monkeypatch.setattr("pythia_fast.runs.folder.present.time", SimpleNamespace(time=lambda: now_s))
    return now_s


@pytest.fixture
def remote(tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """The tiny series as if it came from the Hub, for `small_sweep`; its files may be changed."""
    series = Remote(Path(shutil.copytree(tiny_series, tmp_path / "14m")))
    for module in ("runs.sweeping", "streaming.resident", "runs.forecast.here"):
        monkeypatch.setattr(f"pythia_fast.{module}.open_series", lambda model, **_: series)
    return series
