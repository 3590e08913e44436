"""Errors that survive the way to the driver, whatever they are made of."""

import pickle
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from pythia_fast.errors import FormatError, WorkerError
from pythia_fast.runs.cluster.sent_error import sent


def test_an_error_travels_as_it_is() -> None:
    error = FormatError(Path("weights"), "it is damaged", offset=7)
    error.add_note("after three tries")
    opened = pickle.loads(pickle.dumps(sent(error))).opened()
    assert isinstance(opened, FormatError)
    assert (opened.offset, opened.reason) == (7, "it is damaged")
    assert opened.__notes__ == ["after three tries"]
    assert sent(error).words == "FormatError: weights at byte 7: it is damaged"


class BoundError(Exception):
    """One that cannot be made from its words."""

    def __init__(self, lock: object, where: str) -> None:
        super().__init__(f"no luck in {where}")
        self.lock = lock


def test_of_one_that_cannot_be_sent_the_words_are() -> None:
    error = BoundError(threading.Lock(), "there")
    error.add_note("after three tries")
    opened = sent(error).opened()
    assert isinstance(opened, WorkerError)
    assert str(opened) == "BoundError: no luck in there"
    assert opened.__notes__ == ["after three tries"]
    with pytest.raises(WorkerError, match="BoundError: no luck"):
        raise opened


class SpeechlessError(Exception):
    """Its words are not there."""

    def __str__(self) -> str:
        raise KeyError("words")


def test_an_error_without_words_is_sent() -> None:
    found = sent(SpeechlessError())
    assert found.words == "SpeechlessError: <exception str() failed>"
    assert isinstance(found.opened(), SpeechlessError)


def test_what_would_end_the_driver_is_told_in_words() -> None:
    assert str(sent(SystemExit(3)).opened()) == "SystemExit: 3"


def test_a_class_that_the_driver_lacks_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there in the worker, where it can be pickled and opened again."""
    there = ModuleType("only_there")
    exec("class Odd(Exception):\n    pass\n", vars(there))
    monkeypatch.setitem(sys.modules, "only_there", there)
    error = there.Odd("the GPU sings")
    error.add_note("at noon")
    told = sent(error)
    assert type(told.opened()) is there.Odd
    monkeypatch.delitem(sys.modules, "only_there")
    arrived = pickle.loads(pickle.dumps(told))  # as Ray does with all that a worker tells
    assert str(arrived.opened()) == "Odd: the GPU sings"
    assert arrived.opened().__notes__ == ["at noon"]
    assert arrived.words == "Odd: the GPU sings"
