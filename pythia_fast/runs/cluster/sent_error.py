"""Errors on their way to the driver, which may lack what they are made of."""

import pickle
from dataclasses import dataclass

from pythia_fast.errors import WorkerError, notes, own_words


@dataclass(frozen=True, slots=True)
class SentError:
    """An error as bytes, which nobody opens by accident, and in words that need no opening."""

    pickled: bytes | None
    words: str
    notes: tuple[str, ...]

    def opened(self) -> Exception:
        """The error itself where it can be had here, else a WorkerError with its words."""
        try:
            if self.pickled is not None:
                error = pickle.loads(self.pickled)
                if isinstance(error, Exception):
                    return error
        except Exception:  # whatever its class does, or because there is none here
            pass
        told = WorkerError(self.words)
        for note in self.notes:
            told.add_note(note)
        return told


def sent(error: BaseException) -> SentError:
    """What the driver is sent of an error. Of what would end a process the words alone."""
    pickled = None
    try:
        if isinstance(error, Exception):
            pickled = pickle.dumps(error)
    except Exception:  # it holds a lock, or its class has no name
        pickled = None
    words = f"{type(error).__name__}: {own_words(error)}"
    return SentError(pickled, words, tuple(notes(error)))
