"""Rows of training data: the C++ loader against a loop over numpy.memmap."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison import Comparison
from roofline import Work

from pythia_fast.tokens import TokenDataset, write_tokens

ROWS, COLUMNS, GATHERED = 50_000, 2049, 1024
WORK = Work(bytes=GATHERED * COLUMNS * (2 + 8))  # uint16 read, int64 written


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "train"
    random = np.random.default_rng(0)
    write_tokens(path, random.integers(0, 50_254, (ROWS, COLUMNS), dtype=np.uint16))
    return path


def test_gather_against_memmap(benchmark: Any, comparison: Comparison, prefix: Path) -> None:
    """Ours into a new array, the peers as people write them and as they are fastest."""
    dataset = TokenDataset(prefix)
    mapped = np.memmap(prefix.with_suffix(".bin"), np.uint16, "r", shape=(ROWS, COLUMNS))
    rows = np.random.default_rng(1).choice(ROWS, GATHERED, replace=False)

    def loop() -> np.ndarray[Any, Any]:
        return np.stack([mapped[row].astype(np.int64) for row in rows])

    def loop_into() -> np.ndarray[Any, Any]:
        out = np.empty((GATHERED, COLUMNS), np.int64)
        for i, row in enumerate(rows):
            out[i] = mapped[row]
        return out

    def index() -> np.ndarray[Any, Any]:
        return mapped[rows].astype(np.int64)

    ours = dataset.gather(rows)
    for peer in (loop, loop_into, index):
        np.testing.assert_array_equal(ours, peer())
    comparison.run(
        benchmark,
        f"{GATHERED} random rows of {COLUMNS} uint16 to a new int64 array",
        lambda: dataset.gather(rows),
        {
            "loop over numpy.memmap, stacked": loop,
            "loop over numpy.memmap into one array": loop_into,
            "numpy.memmap with an index array": index,
        },
        rounds=100,
        cache="page cache warm",
        work=WORK,
    )


def test_gather_into_a_given_array(benchmark: Any, comparison: Comparison, prefix: Path) -> None:
    """What a sweep's inner loop costs once its buffer is there."""
    dataset = TokenDataset(prefix)
    mapped = np.memmap(prefix.with_suffix(".bin"), np.uint16, "r", shape=(ROWS, COLUMNS))
    rows = np.random.default_rng(2).choice(ROWS, GATHERED, replace=False)
    ours, theirs = (np.zeros((GATHERED, COLUMNS), np.int64) for _ in range(2))

    def loop_into() -> None:
        for i, row in enumerate(rows):
            theirs[i] = mapped[row]

    dataset.gather(rows, out=ours)
    loop_into()
    np.testing.assert_array_equal(ours, theirs)
    comparison.run(
        benchmark,
        f"{GATHERED} random rows of {COLUMNS} uint16 to a given int64 array",
        lambda: dataset.gather(rows, out=ours),
        {"loop over numpy.memmap": loop_into},
        rounds=100,
        cache="page cache warm",
        work=WORK,
    )
