"""A file in the making: of its true size, with holes, and a record beside it of what is there.

The record is written after the bytes that it speaks of, and never flushed: it holds against a kill.
After a power cut it may speak of bytes that were lost, which the file's hash brings to light.
"""

import contextlib
import errno
import os
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from pythia_fast.errors import WriteError
from pythia_fast.publish import writing

BLOCK_BYTES = 2**16
"""What the record has a byte for: 0, or 1 where the whole block is there."""

RECORD_SUFFIX = ".done"

_HEADER = struct.Struct("<8sQ")
_MAGIC = b"pfparts1"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def record_of(partial: Path) -> Path:
    """Beside a file in the making: which parts are there. It stays until the file has a place."""
    return partial.with_name(partial.name + RECORD_SUFFIX)


def quarantine_of(partial: Path) -> Path:
    """Beside a file in the making: the last bytes that were not what the Hub lists."""
    return partial.with_name(f"{partial.name}.wrong")


def present_bytes(partial: Path, size: int) -> int:
    """How much of a file of this size is there already, by its record."""
    try:
        if not stat.S_ISREG(partial.lstat().st_mode) or partial.lstat().st_size != size:
            return 0
        blocks = _blocks(record_of(partial).read_bytes(), size)
    except OSError:
        return 0
    return 0 if blocks is None else _present(blocks, size)


class PartialFile:
    """The file at `path`, which is to have `size` bytes; what is there already is kept.

    Threads may share it, as long as they write different bytes. It is open until `release` has been
    called as often as `hold`, and once more. WriteError where the system refuses.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self._lock = threading.Lock()
        self._holders = 1
        self._blocks = bytearray(-(-size // BLOCK_BYTES))
        with contextlib.ExitStack() as undo, writing(path):
            self._data = os.open(path, _FLAGS, 0o644)
            undo.callback(os.close, self._data)
            self._require_plain()
            begun = os.fstat(self._data).st_size == size
            if not begun:  # its record, if there is one, speaks of another file
                record_of(path).unlink(missing_ok=True)
                os.ftruncate(self._data, size)
            self._record = os.open(record_of(path), _FLAGS, 0o644)
            undo.callback(os.close, self._record)
            blocks = _blocks(os.pread(self._record, _HEADER.size + len(self._blocks) + 1, 0), size)
            if begun and blocks is not None:
                self._blocks[:] = blocks
            else:
                os.ftruncate(self._record, 0)
                os.pwrite(self._record, _HEADER.pack(_MAGIC, size) + self._blocks, 0)
            undo.pop_all()

    @property
    def present_bytes(self) -> int:
        """How much is there."""
        return _present(self._blocks, self.size)

    def frontier(self, begin: int = 0) -> int:
        """Up to which byte everything is there, as it is up to `begin`."""
        block = self._blocks.find(0, begin // BLOCK_BYTES)
        return self.size if block < 0 else block * BLOCK_BYTES

    def missing(self) -> Iterator[tuple[int, int]]:
        """The byte ranges that are not there, ascending, of whole blocks."""
        stop = 0
        while (first := self._blocks.find(0, stop)) >= 0:
            stop = self._blocks.find(1, first)
            if stop < 0:
                stop = len(self._blocks)
            yield first * BLOCK_BYTES, min(stop * BLOCK_BYTES, self.size)

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes in their place; they are recorded with `mark` only."""
        with writing(self.path):
            while data:
                written = os.pwrite(self._data, data, offset)
                data, offset = data[written:], offset + written

    def mark(self, begin: int, end: int, *, there: bool = True) -> int:
        """Record the blocks that lie wholly in [begin, end); returns the end of the last one."""
        first = -(-begin // BLOCK_BYTES)
        stop = len(self._blocks) if end == self.size else end // BLOCK_BYTES
        if stop <= first:
            return begin
        marks = (b"\1" if there else b"\0") * (stop - first)
        with writing(record_of(self.path)):
            os.pwrite(self._record, marks, _HEADER.size + first)
        self._blocks[first:stop] = marks
        return min(stop * BLOCK_BYTES, self.size)

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` from bytes that are there."""
        with writing(self.path):
            while view:
                count = os.preadv(self._data, [view], offset)
                if not count:
                    raise OSError(errno.EIO, "the file was cut by somebody")
                view, offset = view[count:], offset + count

    def in_place(self) -> bool:
        """Whether the path still leads to this very file."""
        try:
            return os.path.samestat(os.fstat(self._data), os.lstat(self.path))
        except OSError:
            return False

    def hold(self) -> bool:
        """Keep it open until `release`; False if it is closed already."""
        with self._lock:
            if self._holders:
                self._holders += 1
            return self._holders > 0

    def release(self) -> None:
        """Close it, if nobody else holds it."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                os.close(self._data)
                os.close(self._record)

    def _require_plain(self) -> None:
        if not stat.S_ISREG(os.fstat(self._data).st_mode):
            raise WriteError(errno.EINVAL, f"cannot write {self.path}: it is no plain file")


def _blocks(record: bytes, size: int) -> bytes | None:
    """The bytes of a record, if it is one of a file of this size."""
    blocks = record[_HEADER.size :]
    if record[: _HEADER.size] != _HEADER.pack(_MAGIC, size):
        return None
    if len(blocks) != -(-size // BLOCK_BYTES) or blocks.translate(None, b"\0\1"):
        return None
    return blocks


def _present(blocks: bytes | bytearray, size: int) -> int:
    count = blocks.count(1) * BLOCK_BYTES
    short = -size % BLOCK_BYTES
    return count - short if blocks and blocks[-1] else count
