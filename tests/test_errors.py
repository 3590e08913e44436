"""Errors travel: a worker process must be able to hand one to its parent."""

import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import pythia_fast
from pythia_fast import errors
from pythia_fast.errors import Failure, FormatError, PythiaFastError, ReadError, TokenRangeError


def kinds(base: type[PythiaFastError] = PythiaFastError) -> Iterator[type[PythiaFastError]]:
    """All errors of the package, as far as it is imported."""
    yield base
    for kind in base.__subclasses__():
        if kind.__module__.startswith("pythia_fast."):
            yield from kinds(kind)


KINDS = tuple(dict.fromkeys(kinds()))


def some(kind: type[PythiaFastError]) -> Iterator[PythiaFastError]:
    """Errors as they are made: with words, and those of the system with its number too."""
    if issubclass(kind, FormatError):
        yield kind("a/b", "torn", offset=8)
        yield kind(Path("a"), "odd")
    elif issubclass(kind, errors.OrderMismatchError):
        yield kind(3, 4, 5, None, 3)
    elif issubclass(kind, TokenRangeError):
        yield kind(1, 2, 300, 257)
    else:
        yield kind("step 1 failed")
        yield kind()
    if issubclass(kind, OSError):
        yield kind(28, "no room")
        yield kind(28, "no room", "/a/b")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_a_pickle(kind: type[PythiaFastError]) -> None:
    for error in some(kind):
        error.add_note("while loading step 1")
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            copy = pickle.loads(pickle.dumps(error, protocol))
            assert type(copy) is kind
            assert (str(copy), copy.args) == (str(error), error.args)
            assert vars(copy) == vars(error)
            assert copy.__notes__ == ["while loading step 1"]
            if isinstance(error, OSError):
                assert isinstance(copy, OSError)
                assert (copy.errno, copy.filename) == (error.errno, error.filename)


def test_there_are_no_other_errors() -> None:
    """Else one could be missing above."""
    for module in pkgutil.walk_packages(pythia_fast.__path__, "pythia_fast."):
        importlib.import_module(module.name)
    assert set(kinds()) == set(KINDS)


def test_a_format_error_says_where() -> None:
    assert str(FormatError(Path("a"), "torn", offset=8)) == "a at byte 8: torn"


def test_what_the_system_refuses_to_read_is_told_with_the_path() -> None:
    refused = PermissionError(13, "Permission denied")
    error = ReadError.of(Path("a"), refused)
    assert (error.errno, str(error)) == (13, "[Errno 13] cannot read a: Permission denied")
    assert str(ReadError.of("b", refused, "list")) == "[Errno 13] cannot list b: Permission denied"


def test_a_failure_tells_what_was_noted_places_first() -> None:
    error = ValueError("torn")
    assert Failure.of(4, error) == Failure(4, "ValueError", "torn")
    for note in ("after three tries", "(layer 2)"):
        error.add_note(note)
    assert Failure.of(4, error).message == "torn (layer 2); after three tries"


def test_a_failure_of_an_error_without_words_is_told() -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise KeyError("message")

    error = SpeechlessError()
    error.add_note("(layer 2)")
    expected = Failure(4, "SpeechlessError", "<exception str() failed> (layer 2)")
    assert Failure.of(4, error) == expected
