"""Errors travel: a worker process must be able to hand one to its parent."""

import pickle
from pathlib import Path

import pytest

from pythia_fast import errors
from pythia_fast.errors import FormatError, PythiaFastError, TokenRangeError


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
