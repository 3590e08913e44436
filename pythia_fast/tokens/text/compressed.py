"""Files of text, plain or compressed, opened as a stream of bytes."""

import bz2
import errno
import gzip
import io
import lzma
import os
import select
import stat
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, MissingTokensError, ReadError

STANDARD_INPUT = "-"
_BUFFER_BYTES = 1 << 20
_POLL_MS = 100
_ZSTD_BYTES = 1 << 13  # read at once: a block of 4 bytes may stand for 128 kB


class DamagedError(ValueError):
    """Compressed data that is no such, or not whole: never leaves this room."""


class StoppedError(Exception):
    """Another thread has given up: never leaves this room."""


@contextmanager
def opened(path: str, stop: threading.Event | None = None) -> Iterator[IO[bytes]]:
    """A file by its path, decompressed if its name ends so; "-" is standard input.

    Whoever waits for a pipe, or for a terminal, has StoppedError soon after `stop` is set. Errors
    of the system, also while it is read, are ReadError; damage is DamagedError.
    """
    try:
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                raise ReadError(errno.EBADF, "cannot read standard input: it is closed")
            yield _standard_input(stop)
            return
        opener = _OPENERS.get(compression(path).lower())
        with _raw(expanded(path), stop) as raw:
            if opener is None:
                yield raw
                return
            with io.BufferedReader(opener(raw, path), _BUFFER_BYTES) as file:
                yield cast("IO[bytes]", file)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DamagedError(str(error)) from error
    except ReadError:
        raise
    except OSError as error:
        if error.errno is None:  # as bz2 says that its data is damaged
            raise DamagedError(str(error)) from error
        raise ReadError.of(path, error) from error


def _standard_input(stop: threading.Event | None) -> IO[bytes]:
    try:
        descriptor = sys.stdin.fileno()
        quiet = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, ValueError):  # something else in its place
        quiet = False
    if stop is None or not quiet:
        return sys.stdin.buffer
    return cast("IO[bytes]", io.BufferedReader(_Pipe(descriptor, stop, keep=True), _BUFFER_BYTES))


def _raw(path: Path, stop: threading.Event | None) -> IO[bytes]:
    if stop is None or path.is_file():
        return path.open("rb")
    # Without O_NONBLOCK the opening itself would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return cast("IO[bytes]", io.BufferedReader(_Pipe(descriptor, stop, keep=False), _BUFFER_BYTES))


class _Pipe(io.RawIOBase):
    """What may give nothing for a long time."""

    def __init__(self, descriptor: int, stop: threading.Event, *, keep: bool) -> None:
        self._descriptor, self._stop, self._keep = descriptor, stop, keep
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._stop.is_set():
            if self._poll.poll(_POLL_MS):
                try:
                    data = os.read(self._descriptor, len(buffer))
                except BlockingIOError:
                    continue
                buffer[: len(data)] = data
                return len(data)
        raise StoppedError

    def close(self) -> None:
        if not (self.closed or self._keep):
            os.close(self._descriptor)
        super().close()


def compression(path: str) -> str:
    """The ending of a name that says how the file is compressed; "" if it is not."""
    suffix = os.path.splitext(path)[1]  # noqa: PTH122  # a path may be "-"
    return suffix if suffix.lower() in _OPENERS else ""


def check_input(path: str) -> None:
    """Before hours of work: MissingTokensError if it is not there, ArgumentError for a folder.

    ArgumentError also for what cannot be decompressed here.
    """
    if path == STANDARD_INPUT:
        return
    place = expanded(path)
    if not place.exists():
        raise MissingTokensError(f"no text at {path!r}")
    if place.is_dir():
        raise ArgumentError(f"{path} is a folder: name the files in it")
    if compression(path).lower() in _ZSTD:
        _zstandard(path)


class _Zstd(io.RawIOBase):
    """Zstandard frames, one after the other, the last of them whole."""

    def __init__(self, raw: IO[bytes], path: str) -> None:
        self._library = _zstandard(path)
        self._raw = raw
        self._frame: Any = None  # that is being read
        self._rest = b""  # compressed, of the next frame
        self._data = memoryview(b"")  # decompressed, not yet taken

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._data:
            given = self._rest or self._raw.read(_ZSTD_BYTES)
            self._rest = b""
            if not given:
                if self._frame is not None:
                    raise EOFError("the file ends within a frame")
                return 0
            if self._frame is None:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            try:
                self._data = memoryview(self._frame.decompress(given))
            except self._library.ZstdError as error:
                raise DamagedError(str(error)) from error
            if self._frame.eof:
                self._rest = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


def _zstandard(path: str) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ArgumentError(
            f"{path} is compressed with Zstandard, which needs the package zstandard: "
            "pip install 'pythia-fast[zstd]', or give the text to standard input: "
            f"zstd -dc {path} | … -"
        ) from error
    return zstandard


def _gzip(raw: IO[bytes], path: str) -> Any:
    return gzip.GzipFile(fileobj=raw, mode="rb")


def _bz2(raw: IO[bytes], path: str) -> Any:
    return bz2.BZ2File(raw)


def _xz(raw: IO[bytes], path: str) -> Any:
    return lzma.LZMAFile(raw)


_ZSTD = (".zst", ".zstd")
_OPENERS: dict[str, Callable[[IO[bytes], str], Any]] = {
    ".gz": _gzip,
    ".bz2": _bz2,
    ".xz": _xz,
    **dict.fromkeys(_ZSTD, _Zstd),
}
