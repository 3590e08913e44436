"""What only a GPU shows: skipped where there is none, but for the run of the small cases."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series, tiny

HERE = Path(__file__).parent
ANYWHERE = "test_small_cases.py"

if torch.cuda.is_available():
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else `poisoned` lets cuBLAS warn


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Here everything is `gpu`, so that `-m gpu` runs it all and nothing else."""
    absent = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.name != ANYWHERE:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(absent)


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    return torch.device("cuda")


@pytest.fixture
def poisoned() -> Iterator[None]:
    """`torch.empty` gives NaN, also in launchers: what is read before it is written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(8, device="cuda").isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def small() -> Architecture:
    """Small, with a head width of the suite."""
    return tiny(layers=3, width=256, heads=4, vocab_rows=1024, max_positions=256)


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory, small: Architecture) -> Path:
    """Five checkpoints, float16."""
    return make_series(tmp_path_factory.mktemp("gpu") / "small", small, range(5))


@pytest.fixture(scope="session")
def ids(small: Architecture) -> npt.NDArray[np.int64]:
    """37 sequences of 201 tokens: no multiples of anything."""
    return np.random.default_rng(0).integers(0, small.vocab_rows, (37, 201))


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each replay of a CUDA graph."""
    noted: list[object] = []
    replay = torch.cuda.CUDAGraph.replay

    def counting(graph: torch.cuda.CUDAGraph) -> None:
        noted.append(graph)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counting)
    return noted
