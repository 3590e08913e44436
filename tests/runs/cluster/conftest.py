"""The cluster of the tests of faults, which nobody kills here, and clusters that are played."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.register_assert_rewrite("ray_nodes", "played_ray", "played_workers")
# Their asserts are rewritten now.
from played_ray import Ray, played  # noqa: E402
from played_workers import IDS, STEPS  # noqa: E402
from ray_nodes import alone, nodes, series  # noqa: E402

import pythia_fast  # noqa: E402
from pythia_fast.runs.results.result import SweepResult  # noqa: E402
from pythia_fast.testing import tiny_suite  # noqa: E402

__all__ = ["alone", "nodes", "series"]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    """Ray on two machines, which this process is connected to; it is played."""
    return played(monkeypatch, {"CPU": 2.0}, {"CPU": 2.0})


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_suite(tmp_path_factory.mktemp("played") / "tiny", steps=STEPS)


@pytest.fixture(scope="session")
def known(small: Path, tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """What the local engine finds, whose parts are what the played workers tell."""
    out = tmp_path_factory.mktemp("known") / "run"
    return pythia_fast.sweep(small, tokens=IDS, out=out, dtype="float32", progress=False)


@pytest.fixture
def new(tmp_path: Path) -> Callable[[], Path]:
    """A run folder of its own for each call."""
    numbers = itertools.count()
    return lambda: tmp_path / f"run{next(numbers)}"
