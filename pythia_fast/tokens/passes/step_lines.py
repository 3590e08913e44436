"""A file of one JSON line a training step, to which a run that was killed adds what is missing.

{"step": 7, "rows": [6144, 7168], "source": "/data/document.bin, 9216 rows",
"function": "module:name", …the function's values}
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pythia_fast.errors import FormatError, RunMismatchError, WriteError
from pythia_fast.publish import published, require_plain, write_error, writing
from pythia_fast.tokens.steps import rows_of_step

_BEGIN = b'{"step": '
_OF = ("rows", "source", "function")


def step_line(step: int, values: dict[str, Any], *, function: str, source: str, batch: int) -> str:
    """One line, with its end. `values` are plain JSON, as `map_steps` gives them."""
    return json.dumps(_head(step, function, source, batch) | values, allow_nan=False) + "\n"


class _ReplacedError(Exception):
    """The file is another one now."""


class StepLines:
    """The file. What a kill left of a last line is taken out when it is opened.

    Several processes may add to one file: each line is written at once, at the end; who replaces
    the file takes over what was added to it meanwhile, and who added to a file that was replaced
    adds to the new one. Of two lines of a step the first is kept when the last of them finishes.

    RunMismatchError if it holds lines of another function, of other data (`source`) or of batches
    of another size; FormatError if it holds anything else; WriteError if the system refuses. Steps
    that are there are taken to be of the function as it is now.
    """

    def __init__(self, path: Path, *, function: str, source: str, batch: int) -> None:
        self.path, self._function, self._source, self._batch = path, function, source, batch
        self._places: dict[int, tuple[int, int]] = {}  # of each step's line: offset and bytes
        self._file = self._open()
        try:
            self._read()
            if self._is_torn:
                self._rewrite()
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
        line = step_line(
            step, values, function=self._function, source=self._source, batch=self._batch
        )
        self._append(step, line.encode())

    def finish(self) -> None:
        """Flush to the disk, in the order of steps: lines that filled gaps are put in place."""
        try:
            while True:
                self._follow()
                self._read()
                if self._in_order and not self._is_torn:
                    os.fsync(self._file.fileno())
                    if self._is_current():
                        return
                else:
                    self._rewrite()
        except WriteError:
            raise
        except OSError as error:
            raise write_error(self.path, error) from error

    def _open(self) -> IO[bytes]:
        require_plain(self.path)
        with writing(self.path):
            return self.path.open("a+b", buffering=0)

    def _append(self, step: int, line: bytes) -> None:
        """Until it is in the file that has the name after it was written."""
        while True:
            with writing(self.path):
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
            if self._is_current():
                return
            self._follow()
            if step in self:
                return

    def _is_current(self) -> bool:
        """Whether the open file still has the name."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise write_error(self.path, error) from error

    def _follow(self) -> None:
        """Go on with the file that has the name now, if another process has replaced it."""
        if not self._is_current():
            self._file.close()
            self._file = self._open()
            self._read()

    def _rewrite(self) -> None:
        """Replace the file by its whole lines, in order, one for each step.

        Not if another process has replaced it: there may be lines now that the old one lacks.
        """
        old, end = self._file, self._end
        try:
            with published(self.path) as new:
                for _, (offset, length) in sorted(self._places.items()):
                    new.write(os.pread(old.fileno(), length, offset))
                new.flush()
                os.fsync(new.fileno())  # here, so that little time is left after the question
                if not self._is_current():
                    raise _ReplacedError
        except _ReplacedError:
            self._follow()
            return
        with old:
            self._file = self._open()
            self._read()
            for step, offset, length in self._lines(old, end):  # added until it was replaced
                if step not in self:
                    self._append(step, os.pread(old.fileno(), length, offset))

    def _read(self) -> None:
        self._places, self._in_order = {}, True
        self._end, self._is_torn = 0, False
        last = 0
        for step, offset, length in self._lines(self._file, 0):
            self._in_order &= last < step and offset == self._end
            last = max(last, step)
            self._places.setdefault(step, (offset, length))
            self._end = offset + length

    def _lines(self, file: IO[bytes], begin: int) -> Iterator[tuple[int, int, int]]:
        """Step, offset and bytes of each whole line from `begin` on; `_is_torn` if one is not."""
        try:
            with open(os.dup(file.fileno()), "rb") as reader:  # noqa: PTH123  # that very file
                reader.seek(offset := begin)
                for number, line in enumerate(reader, start=1):
                    if line.endswith(b"\n"):
                        # A kill's piece of a line may have another process's line behind it.
                        whole = line if _is_json(line) else line[max(0, line.rfind(_BEGIN)) :]
                        step = self._step_of(whole, number, offset)
                        yield step, offset + len(line) - len(whole), len(whole)
                    elif line.startswith(_BEGIN) or _BEGIN.startswith(line):
                        self._is_torn = True
                    else:
                        raise FormatError(self.path, _STRANGE, offset=offset)
                    offset += len(line)
        except FormatError:
            raise
        except OSError as error:
            raise write_error(self.path, error) from error

    def _step_of(self, line: bytes, number: int, offset: int) -> int:
        try:
            record = json.loads(line)
            step, found = int(record["step"]), {key: record[key] for key in _OF}
            expected = _head(step, self._function, self._source, self._batch)
        except (ValueError, LookupError, TypeError) as error:
            raise FormatError(self.path, _STRANGE, offset=offset) from error
        if found != {key: expected[key] for key in found}:
            raise RunMismatchError(
                f"line {number} of {self.path} is of {found['function']} and rows {found['rows']} "
                f"of {found['source']}, not of {self._function} and rows {expected['rows']} of "
                f"{self._source}: write to another file, or remove this one"
            )
        return step


_STRANGE = "no line that this command writes: write to another file"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _head(step: int, function: str, source: str, batch: int) -> dict[str, Any]:
    rows = rows_of_step(step, batch)
    return {"step": step, "rows": [rows.start, rows.stop], "source": source, "function": function}
