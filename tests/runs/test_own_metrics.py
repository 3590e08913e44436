"""A metric of one's own in a sweep: what is told of its failures and of its edits."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
