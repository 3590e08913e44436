"""A metric of one's own in a sweep: what is told of its failures and of its edits."""

import importlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pythia_fast
from pythia_fast.errors import ArgumentError, RunMismatchError, SweepError

Sweep = Callable[..., pythia_fast.SweepResult]

MINE = """
import pythia_fast

def ratio(right, zero):
    return right / zero

class Mine:
    name = "mine"

    def __call__(self, model, batch):
        return {"x": batch.lengths_B}

class SpeechlessError(Exception):
    def __str__(self):
        return self.words

def fall_silent():
    raise SpeechlessError
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A metric in `mine.py` that answers with this expression."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(answer: str) -> Any:
        (tmp_path / "mine.py").write_text(MINE.replace('{"x": batch.lengths_B}', answer))
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()
        return importlib.import_module("mine").Mine()

    yield written
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("ratio(1, 0)", "ZeroDivisionError: division by zero (mine.py:5)"),
        ("{}['x']", "KeyError: 'x' (mine.py:11)"),
        ("fall_silent()", "SpeechlessError: <exception str() failed> (mine.py:18)"),
        ("model.nll(batch.ids_BT * 0 - 1)", " (mine.py:11)"),  # an error of ours, from there
    ],
)
def test_where_it_fails_is_told(
    small_sweep: Sweep, mine: Callable[[str], Any], answer: str, message: str
) -> None:
    metric = mine(answer)
    with pytest.raises(SweepError, match="step 0 failed") as caught:
        small_sweep(steps=[0], metrics=[metric])
    assert f"{message}. What was finished" in str(caught.value)
    (failure,) = small_sweep(steps=[0], metrics=[metric], on_error="skip").failures
    assert f"{failure.error}: {failure.message}".endswith(message)


def test_a_folder_of_other_code_is_refused(small_sweep: Sweep, mine: Callable[[str], Any]) -> None:
    small_sweep(steps=[0], metrics=[mine('{"x": batch.lengths_B}')])
    words = r"another specification \(the code of the metric 'mine' is another\)"
    with pytest.raises(RunMismatchError, match=words):
        small_sweep(steps=[0], metrics=[mine('{"x": batch.lengths_B * 2}')])


def test_an_answer_without_any_column_is_refused(
    small_sweep: Sweep, mine: Callable[[str], Any]
) -> None:
    with pytest.raises(SweepError, match="'mine' gave an empty dict: give at least one") as caught:
        small_sweep(steps=[0], metrics=[mine("{}")])
    assert isinstance(caught.value.__cause__, ArgumentError)


class Leaving:
    """A metric that goes to another folder while it computes."""

    name = "leaving"

    def __init__(self, to: Path) -> None:
        self.settings = {}
        self._to = to

    def __call__(self, model: Any, batch: Any) -> dict[str, Any]:
        os.chdir(self._to)
        return {"x": batch.lengths_B}


@pytest.mark.parametrize("several", [False, True])
def test_the_run_folder_stays_where_it_was_asked_for(
    tiny_series: Path,
    tiny_ids: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    several: bool,
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(here)  # and back when all is over
    result = pythia_fast.sweep(
        [tiny_series] if several else tiny_series,
        steps=[0, 1, 2],
        tokens=tiny_ids,
        metrics=[Leaving(elsewhere)],
        out="out",
        progress=False,
    )
    assert result.path == here / "out"
    assert result.table["step"].to_pylist() == [0, 1, 2]
    assert list(elsewhere.iterdir()) == []


def test_a_result_is_read_wherever_its_process_has_gone(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pythia_fast.sweep(tiny_series, steps=[0], tokens=tiny_ids, out="out", progress=False)
    opened = pythia_fast.SweepResult("out")
    monkeypatch.chdir("/")
    assert len(opened.table) == 1
    assert len(pickle.loads(pickle.dumps(opened)).sequences) == len(tiny_ids)


class Writing:
    """A metric that writes to what it is given."""

    uses_scores = True

    def __init__(self, what: str) -> None:
        self.name, self._what = "writing", what
        self.settings: dict[str, Any] = {}

    def __call__(self, model: Any, batch: Any) -> dict[str, Any]:
        if self._what == "rows":
            batch.rows_B[:] = 7
        elif self._what == "nll":
            batch.scores.nll.zero_()
        else:
            getattr(batch, self._what)[:] = 1
        return {"x": [1.0] * len(batch.rows_B)}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("ids_BT", "writes to its batch"),
        ("lengths_B", "writes to its batch"),
        ("nll", "writes to its batch"),
        ("rows", "read-only"),
    ],
)
def test_no_metric_changes_what_others_see(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path, what: str, words: str
) -> None:
    with pytest.raises(SweepError, match=words):
        pythia_fast.sweep(
            tiny_series,
            steps=[0],
            tokens=tiny_ids,
            metrics=[Writing(what), "perplexity"],
            out=tmp_path / "out",
            progress=False,
        )
