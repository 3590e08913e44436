"""Errors travel: a worker process must be able to hand one to its parent."""

import pickle
from pathlib import Path

import pytest

from pythia_fast import errors
from pythia_fast.errors import FormatError, PythiaFastError, TokenRangeError, nearest


@pytest.mark.parametrize(
    "error",
    [
        FormatError("a/b", "torn", offset=8),
        errors.TokenFileError("a", "odd"),
        TokenRangeError(1, 2, 300, 257),
        errors.OrderMismatchError(3, 4, 5, None, 3),
        errors.WriteError(28, "full"),
        errors.SweepError("step 1 failed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_a_pickle(error: PythiaFastError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_format_error_says_where() -> None:
    assert str(FormatError(Path("a"), "torn", offset=8)) == "a at byte 8: torn"


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("sciqq", ["piqa", "sciq"], "no task 'sciqq'; near are sciq"),
        ("ROLLING", ["piqa", "local_rolling"], "no task 'ROLLING'; near are local_rolling"),
        ("charm", ["b", "a", "b"], "no task 'charm'; there are b, a"),
        ("", list("abcdef"), "no task ''; there are a, b, c, d, e and 1 more"),
        (3, [], "no task 3"),
        ("task", [f"task{i}" for i in range(9)], "near are task8, task7, task6, task5, task4"),
    ],
)
def test_the_nearest_names_are_told(name: object, known: list[str], said: str) -> None:
    assert nearest("task", name, known).endswith(said)
