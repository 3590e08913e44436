"""Rows of training data: the C++ loader against a loop over numpy.memmap."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison import Comparison

from pythia_fast.tokens import TokenDataset, write_tokens

ROWS, COLUMNS, GATHERED = 50_000, 2049, 1024


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "train"
    random = np.random.default_rng(0)
    write_tokens(path, random.integers(0, 50_254, (ROWS, COLUMNS), dtype=np.uint16))
    return path


def test_gather_against_memmap(benchmark: Any, comparison: Comparison, prefix: Path) -> None:
    dataset = TokenDataset(prefix)
    mapped = np.memmap(prefix.with_suffix(".bin"), np.uint16, "r", shape=(ROWS, COLUMNS))
    rows = np.random.default_rng(1).choice(ROWS, GATHERED, replace=False)

    def loop() -> np.ndarray[Any, Any]:
        return np.stack([mapped[row].astype(np.int64) for row in rows])

    def fancy() -> np.ndarray[Any, Any]:
        return mapped[rows].astype(np.int64)

    np.testing.assert_array_equal(dataset.gather(rows), loop())
    peers = {"loop over numpy.memmap": loop, "numpy.memmap with an index array": fancy}
    comparison.run(
        benchmark,
        f"{GATHERED} random rows of {COLUMNS} uint16 to int64",
        lambda: dataset.gather(rows),
        peers,
        rounds=50,
        cache="page cache warm",
    )
