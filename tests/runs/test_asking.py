"""What is asked is checked once, whoever computes and in whatever dtype."""

from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import pytest

import pythia_fast
from pythia_fast.errors import TokenRangeError
from pythia_fast.runs import sweeping
from pythia_fast.runs.asking import Question, questions
from pythia_fast.series import open_series
from pythia_fast.tokens import TokenDataset


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows are looked at, each time."""
    counts: list[int] = []
    check = TokenDataset.check_ids

    def checking(data: TokenDataset, vocab_rows: int, rows: Any = None) -> None:
        counts.append(len(rows))
        check(data, vocab_rows, rows)

    monkeypatch.setattr(TokenDataset, "check_ids", checking)
    return counts


def question(series: Path, ids: np.ndarray) -> Question:
    (asked,) = questions(
        [open_series(series)],
        "all",
        tokens=ids,
        sequences=512,
        metrics=("perplexity",),
        deterministic=False,
        batch_tokens="auto",
        disk_budget=None,
        cache_dir=None,
    )
    return asked


def test_rows_are_looked_at_once_for_all_dtypes(
    tiny_series: Path, tiny_ids: np.ndarray, looks: list[int]
) -> None:
    asked = question(tiny_series, tiny_ids)
    assert looks == []
    asked.check()
    plans = [asked.plan(dtype) for dtype in ("float32", "bfloat16")]
    assert looks == [len(tiny_ids)]
    assert [plan.dtype for plan in plans] == ["float32", "bfloat16"]
    assert [plan.specification["dtype"] for plan in plans] == ["float32", "bfloat16"]
    assert plans[0].specification == plans[1].specification | {"dtype": "float32"}


def test_what_is_wrong_is_told_each_time(tiny_series: Path, tiny_ids: np.ndarray) -> None:
    ids = tiny_ids.copy()
    ids[3, 2] = 60_000
    asked = question(tiny_series, ids)
    for _ in range(2):
        with pytest.raises(TokenRangeError):
            asked.check()
        with pytest.raises(TokenRangeError):
            asked.plan("float32")


class Workers:
    """A cluster whose first worker says in which dtype it computes."""

    def __init__(self, *_: object) -> None:
        self.placing = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def begin(self, dtype: str, architectures: object, *, most: int) -> None:
        pass

    def first(self) -> SimpleNamespace:
        return SimpleNamespace(precisions=("float32",))


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_cluster_is_given_what_was_checked_before_it_was_asked(
    tiny_series: Path,
    tiny_ids: np.ndarray,
    tmp_path: Path,
    looks: list[int],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(sweeping, "Cluster", Workers)
    monkeypatch.setattr(sweeping, "compute_there", lambda asked, *_: given.extend(asked))
    pythia_fast.sweep(
        tiny_series,
        tokens=tiny_ids,
        out=tmp_path / "run",
        dtype=dtype,
        engine="ray",
        progress=False,
    )
    assert looks == [len(tiny_ids)]
    assert [each.plan.dtype for each in given] == ["float32"]
