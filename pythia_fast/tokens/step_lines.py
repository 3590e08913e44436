"""A file of one JSON line a training step, to which a run that was killed adds what is missing.

{"step": 7, "rows": [6144, 7168], "function": "module:name", …the function's values}
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pythia_fast.errors import FormatError, RunMismatchError, WriteError
from pythia_fast.tokens.publish import published, write_error
from pythia_fast.tokens.steps import rows_of_step

_BEGIN = b'{"step": '


def step_line(step: int, values: dict[str, Any], *, function: str, batch: int) -> str:
    """One line, with its end. `values` are plain JSON, as `map_steps` gives them."""
    return json.dumps(_head(step, function, batch) | values, allow_nan=False) + "\n"


class StepLines:
    """The file. What a kill left of a last line is cut off when it is opened.

    RunMismatchError if it holds lines of another function or of batches of another size;
    FormatError if it holds anything else; WriteError if the system refuses. Steps that are there
    are taken to be of the same data and of the function as it is now.
    """

    def __init__(self, path: Path, *, function: str, batch: int) -> None:
        self.path, self._function, self._batch = path, function, batch
        self._places: dict[int, tuple[int, int]] = {}  # of each step's line: offset and bytes
        self._size = 0
        self._in_order = True
        try:
            self._file: IO[bytes] = path.open("a+b", buffering=0)
        except OSError as error:
            raise write_error(path, error) from error
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "StepLines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, step: int) -> bool:
        return step in self._places

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Append a step's line; a kill from here on does not lose it."""
        line = step_line(step, values, function=self._function, batch=self._batch).encode()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise write_error(self.path, error) from error
        self._note(step, len(line))

    def finish(self) -> None:
        """Flush to the disk, in the order of steps: lines that filled gaps are put in place."""
        try:
            if self._in_order:
                os.fsync(self._file.fileno())
                return
            with published(self.path) as sorted_file:
                for _, (offset, length) in sorted(self._places.items()):
                    sorted_file.write(os.pread(self._file.fileno(), length, offset))
        except WriteError:
            raise
        except OSError as error:
            raise write_error(self.path, error) from error

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.endswith(b"\n"):
                        self._note(self._step_of(line, number), len(line))
                    elif line.startswith(_BEGIN) or _BEGIN.startswith(line):
                        self._file.truncate(self._size)
                    else:
                        raise FormatError(self.path, _STRANGE, offset=self._size)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _step_of(self, line: bytes, number: int) -> int:
        try:
            record = json.loads(line)
            step, found = int(record["step"]), {key: record[key] for key in ("rows", "function")}
            expected = _head(step, self._function, self._batch)
        except (ValueError, LookupError, TypeError) as error:
            raise FormatError(self.path, _STRANGE, offset=self._size) from error
        if found != {key: expected[key] for key in found}:
            raise RunMismatchError(
                f"line {number} of {self.path} is of {found['function']} and rows {found['rows']}, "
                f"not of {self._function} and rows {expected['rows']}: write to another file, or "
                "remove this one"
            )
        return step

    def _note(self, step: int, length: int) -> None:
        self._in_order &= not self._places or next(reversed(self._places)) < step
        self._places.setdefault(step, (self._size, length))
        self._size += length


_STRANGE = "no line that this command writes: write to another file"


def _head(step: int, function: str, batch: int) -> dict[str, Any]:
    rows = rows_of_step(step, batch)
    return {"step": step, "rows": [rows.start, rows.stop], "function": function}
