"""Small models for all rooms: random weights, so that every path runs in milliseconds."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series

TINY = Architecture(
    layers=2, width=64, heads=4, vocab_rows=160, intermediate=256, rotary_dims=4, max_positions=128
)


@pytest.fixture(scope="session")
def tiny() -> Architecture:
    return TINY


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="tests that have a long form run it: `make faults`"
    )


@pytest.fixture(scope="session")
def tiny_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 0, 1, 2, 4, 8 and 16; safetensors and torch files in turn. Not to be written to."""
    folder = tmp_path_factory.mktemp("series") / "tiny"
    return make_series(folder, TINY, (0, 1, 2, 4, 8, 16), seed=7)


@pytest.fixture(scope="session")
def tiny_ids() -> np.ndarray:
    """24 sequences of 80 tokens, int64."""
    return np.random.default_rng(0).integers(0, TINY.vocab_rows, (24, 80))


@pytest.fixture
def interrupted() -> Callable[[float], AbstractContextManager[None]]:
    """`with interrupted(after_s):` presses Ctrl-C after so long, and again every five seconds.

    Python loses one that falls into a destructor, which a whole run of the tests has many of.
    """

    @contextmanager
    def pressing(after_s: float) -> Iterator[None]:
        over = threading.Event()

        def press() -> None:
            wait_s = after_s
            while not over.wait(wait_s):
                os.kill(os.getpid(), signal.SIGINT)
                wait_s = 5.0

        thread = threading.Thread(target=press)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return pressing


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or fills the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True, scope="session")
def _one_seed() -> None:
    torch.manual_seed(0)
