"""What happens in a cluster, as its driver is told."""

import re
from dataclasses import dataclass
from typing import Any

from pythia_fast.errors import PythiaFastError, WorkerError, own_words
from pythia_fast.runs.cluster.messages import Hello, Message

_MOST_WORDS = 400  # characters of a reason
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker is ready."""

    worker: str
    hello: Hello


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A worker is of another version, and was ended."""

    worker: str


@dataclass(frozen=True, slots=True)
class Told:
    """A worker's messages."""

    worker: str
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class GaveBack:
    """Whether a worker has given a step back."""

    worker: str
    model: int
    step: int
    given: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone, with all that it had in hand. `joined`: whether it had been ready."""

    worker: str
    reason: str
    joined: bool


@dataclass(frozen=True, slots=True)
class Silent:
    """A worker has not answered for so long, although it should every few seconds."""

    worker: str
    silent_s: float


Event = Joined | LeftOut | Told | GaveBack | Lost | Silent


def reason_of(error: Exception) -> str:
    """Why a worker is gone, in the words of Ray that say it, without its advice.

    Of a traceback that is what follows its last frame.
    """
    text = _COLOUR.sub("", str(error))
    if '\n  File "' in text:
        lines = text.splitlines()
        last = max(place for place, line in enumerate(lines) if line.startswith(" "))
        text = " ".join(lines[last + 1 :]) or text
    words = " ".join(text.split())
    _, because, reason = words.rpartition("The actor is dead because ")
    return (reason if because else words).partition(" Some common causes include:")[0][:_MOST_WORDS]


def own_error(error: Any, who: str) -> PythiaFastError:
    """The error that a call of a worker has ended with, if it is ours, or one that tells of it."""
    cause = error.cause
    if isinstance(cause, PythiaFastError):
        cause.add_note(f"on {who}")
        return cause
    return WorkerError(f"{who} cannot begin: {type(cause).__name__}: {own_words(cause)}")
