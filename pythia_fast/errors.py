"""Everything that this package raises on purpose.

Each error is also the built-in that a caller expects (`ValueError`, `LookupError`, `OSError`), and
its message says what was wrong, where, and what to do.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

OnError = Literal["raise", "skip"]
"""What follows where a part of the work fails: it ends, or goes on without that part."""


class PythiaFastError(Exception):
    """The base of all errors of this package."""


class CoreNotBuiltError(PythiaFastError, ImportError):
    """The compiled module `pythia_fast._core` is missing."""


class ArgumentError(PythiaFastError, ValueError):
    """An argument is outside what the function takes."""


class RowIndexError(PythiaFastError, IndexError):
    """A row index outside the data; the message names it and the number of rows."""


class UnknownModelError(PythiaFastError, LookupError):
    """No such model, and no such folder; the message names the nearest models."""


class UnknownStepError(PythiaFastError, LookupError):
    """The series has no checkpoint of this step; the message names the nearest steps."""


class MissingCheckpointError(PythiaFastError, FileNotFoundError):
    """A step's folder, revision or one of its files is not there, or only half of it."""


class MissingTokensError(PythiaFastError, FileNotFoundError):
    """No token data or tokenizer at a path; the message says what was looked for."""


class ReadError(PythiaFastError, OSError):
    """The operating system refused to open, map or read a file: path and errno's words."""

    @classmethod
    def of(cls, path: object, error: OSError, doing: str = "read") -> "ReadError":
        """The system's refusal as ours; `doing` is what it refused: "read", "list"."""
        text = f"cannot {doing} {path}: {error.strerror or error}"
        return cls(text) if error.errno is None else cls(error.errno, text)


class WriteError(PythiaFastError, OSError):
    """The operating system refused to write, link or rename: path and errno's words."""


class ChecksumError(PythiaFastError, OSError):
    """A file's bytes do not have the sha256 that its source promises."""


class HubError(PythiaFastError, OSError):
    """The Hub could not be reached or gave an answer that makes no sense."""


class OfflineError(HubError):
    """What is needed is not on this machine, and HF_HUB_OFFLINE forbids to ask for it."""


class FormatError(PythiaFastError, ValueError):
    """A file does not keep to its format: `path`, `offset` in bytes (or None) and the reason.

    Raised before anything from the file is used.
    """

    def __init__(self, path: str | Path, reason: str, *, offset: int | None = None) -> None:
        self.path = Path(path)
        self.offset = offset
        self.reason = reason
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{self.path}{where}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (type(self), self.path, self.reason, self.offset)
        return _format_error, arguments, self.__dict__  # in which its notes are


class TruncatedFileError(FormatError):
    """A file ends before the bytes that its own header promises."""


class UnsafePickleError(FormatError):
    """A pickle asks for something other than tensors in a dictionary; it is never executed."""


class TokenFileError(FormatError):
    """An `.idx`/`.bin` pair or a `.npy` file whose numbers do not add up, or are no token ids."""


class OrderError(PythiaFastError, ValueError):
    """A training order that contradicts itself, or does not belong to the data it is used with."""


class OrderMismatchError(PythiaFastError, ValueError):
    """Two data sets that should hold the same rows differ: `row`, `column` and the two ids.

    An id is None where that data set's row has ended. `rows` were compared before, all alike.
    """

    def __init__(
        self, row: int, column: int, found: int | None, expected: int | None, rows: int
    ) -> None:
        self.row, self.column, self.found, self.expected, self.rows = (
            row,
            column,
            found,
            expected,
            rows,
        )
        ended = "the end of the row"
        super().__init__(
            f"row {row} differs at column {column}: {ended if found is None else found} in order, "
            f"{ended if expected is None else expected} in the preshuffled data; {rows:,} rows "
            "before it are the same. Is this the order of the same data, seed and sequence length?"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.row, self.column, self.found, self.expected, self.rows)
        return type(self), arguments, self.__dict__


class WeightsError(PythiaFastError, ValueError):
    """A checkpoint's tensors do not fit the architecture: missing, unknown, or of another shape."""


class PinnedMemoryError(PythiaFastError, MemoryError):
    """The system locks no more of the host's memory for copies to a GPU."""


class DeviceMemoryError(PythiaFastError, MemoryError):
    """One sequence's activations do not fit into a GPU's memory beside the weights."""


class MovedWeightsError(PythiaFastError, RuntimeError):
    """An arena is not where it was when a pass over it was recorded."""


class TokenRangeError(PythiaFastError, ValueError):
    """A token id outside the embedding: `sequence` (row), `offset` in it, and the id."""

    def __init__(self, sequence: int, offset: int, token: int, vocab_rows: int) -> None:
        self.sequence, self.offset, self.token, self.vocab_rows = (
            sequence,
            offset,
            token,
            vocab_rows,
        )
        super().__init__(
            f"sequence {sequence} holds token id {token} at offset {offset}, but the embedding has "
            f"{vocab_rows} rows (ids 0 to {vocab_rows - 1}). Was another tokenizer used?"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.sequence, self.offset, self.token, self.vocab_rows)
        return type(self), arguments, self.__dict__


class NonFiniteError(PythiaFastError, ValueError):
    """The model's logits are NaN or infinite, so that no token can be chosen by them."""


class RunMismatchError(PythiaFastError, ValueError):
    """A run folder was made with another specification, or a checkpoint has changed since."""


class WorkInterruptedError(PythiaFastError, KeyboardInterrupt):
    """Ctrl-C during long work on files: the message says what is kept and how to go on."""


class ConversionError(PythiaFastError, RuntimeError):
    """A step of a conversion failed; the cause is chained, and what was finished is kept."""


class SweepError(PythiaFastError, RuntimeError):
    """A step of a sweep failed; the cause is chained, and what was finished is kept."""


class SweepInterruptedError(PythiaFastError, KeyboardInterrupt):
    """Ctrl-C during a sweep: what was finished is kept, and the message says how to resume."""


class WorkerError(PythiaFastError, RuntimeError):
    """A worker process ended on the way: how, and where to look for the reason."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that failed: the error's type and its words."""

    step: int
    error: str
    message: str

    @classmethod
    def of(cls, step: int, error: Exception) -> "Failure":
        """An error as a failure, with what was noted beside it: places, in brackets, first."""
        noted = notes(error)
        places = [note for note in noted if note.startswith("(")]
        others = [note for note in noted if note not in places]
        words = "; ".join([" ".join([own_words(error), *places]), *others])
        return cls(step, type(error).__name__, words)


def own_words(error: BaseException) -> str:
    """What it says of itself, or what a traceback says where it cannot."""
    try:
        return str(error)
    except Exception:  # that a step failed is to be told whatever its error is worth
        return "<exception str() failed>"


def notes(error: BaseException) -> list[str]:
    """What was noted beside an error."""
    noted: list[str] = getattr(error, "__notes__", [])
    return noted


def _format_error(
    kind: type[FormatError], path: Path, reason: str, offset: int | None
) -> FormatError:
    """For pickle, which knows no keywords: an error must reach the parent of a worker process."""
    return kind(path, reason, offset=offset)
