"""Rows of ids in one .npy file [rows, T], mapped: nothing of it is loaded or copied."""

import errno
import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from pythia_fast.cache import expanded
from pythia_fast.core import File, TokenStore
from pythia_fast.errors import MissingTokensError, ReadError, TokenFileError, TruncatedFileError
from pythia_fast.tokens.files import near_names

ENDING = ".npy"
SAMPLES, SAMPLE_BYTES = 16, 2**12
"""What of a file is compared when its times have changed."""
_WANTED = "token ids are integers [rows, T]"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

Vector = npt.NDArray[np.int64]


class NpyStore:
    """A TokenStore over a mapped file, which after each use asks whether that is what it was.

    What is asked is the file that was opened, which stays as it is if its name goes to another, or
    is removed. TruncatedFileError if it has shrunk; ReadError (ESTALE) if its size or its mtime has
    changed, and not the time alone: samples of its bytes are compared, since files on a cluster are
    touched so that they are not purged.
    """

    documents = None

    def __init__(self, file: File) -> None:
        self._file = file
        self._opened = self._status()
        self._samples = self._sampled()
        ids_NT = _mapped(file)
        rows, length = ids_NT.shape
        bounds = np.arange(rows + 1, dtype=np.int64) * length
        self._store = TokenStore.in_memory(ids_NT.reshape(-1), bounds)

    def __len__(self) -> int:
        return len(self._store)

    @property
    def dtype(self) -> str:
        """The type of the ids."""
        return self._store.dtype

    @property
    def bin_bytes(self) -> int:
        """The bytes that the rows take."""
        return self._store.bin_bytes

    def lengths(self, rows: Vector, out: Vector) -> None:
        """See TokenStore."""
        self._store.lengths(rows, out)

    def gather(
        self, rows: Vector, start: int, stop: int, out: npt.NDArray[Any], threads: int
    ) -> None:
        """See TokenStore."""
        try:
            self._store.gather(rows, start, stop, out, threads)
        except ReadError:
            self._require_unchanged()
            raise
        self._require_unchanged()

    def find_outside(self, rows: Vector, limit: int, threads: int) -> tuple[int, int, int] | None:
        """See TokenStore."""
        try:
            found = self._store.find_outside(rows, limit, threads)
        except ReadError:
            self._require_unchanged()
            raise
        self._require_unchanged()
        return found

    def verify(self, threads: int) -> None:
        """Nothing is left to check: the header was, and ids are when they are used."""

    def _require_unchanged(self) -> None:
        path, then, now = self._file.path, self._opened, self._status()
        if now.st_size < self._file.size:
            raise TruncatedFileError(
                path,
                f"the file has shrunk from {self._file.size} bytes to {now.st_size}",
                offset=now.st_size,
            )
        if (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns):
            return
        if now.st_size != then.st_size or self._sampled() != self._samples:
            raise ReadError(
                errno.ESTALE,
                f"{path} has changed since it was opened, and its ids may be others: open it anew, "
                "or call again. A new file that takes its name, by a rename, disturbs nobody",
            )
        self._opened = now

    def _sampled(self) -> bytes:
        """A digest of pieces of the file at equal distances, from its first to its last byte."""
        digest = hashlib.sha256()
        last = max(0, self._file.size - SAMPLE_BYTES)
        for number in range(SAMPLES):
            place = last * number // (SAMPLES - 1)
            nbytes = min(SAMPLE_BYTES, self._file.size - place)
            digest.update(self._file.read(place, nbytes))
        return digest.digest()

    def _status(self) -> os.stat_result:
        try:
            return os.fstat(self._file.fileno())
        except OSError as error:  # as of a network file system that has removed it
            raise ReadError(error.errno, error.strerror, self._file.path) from error


@dataclass(frozen=True, slots=True)
class Npy:
    """An origin: a .npy file by its absolute path, with its size when it was found.

    In another process, after a pickle, the size must be the same still.
    """

    path: Path
    nbytes: int

    def open(self) -> NpyStore:
        """Map it: TokenFileError for anything but integers [rows, T] in C order.

        MissingTokensError, which names this machine, where it is gone, or never was.
        """
        try:
            file = File(self.path)
        except ReadError as error:
            if error.errno != errno.ENOENT:
                raise
            raise MissingTokensError(
                f"there is no {self.path} on {platform.node()}, of data that was opened already: "
                "every machine that is to read it needs it under the same path"
            ) from error
        if file.size != self.nbytes:
            raise TokenFileError(
                self.path,
                f"the file has {file.size} bytes, but had {self.nbytes} when the data was opened",
            )
        return NpyStore(file)

    def __str__(self) -> str:
        return str(self.path)


def is_npy(path: str | os.PathLike[str]) -> bool:
    """Whether a path means one: by its name, unless an .idx/.bin pair is called so too."""
    text = os.fspath(path)
    return text.endswith(ENDING) and not os.path.lexists(f"{expanded(text)}.idx")


def find_npy(path: str | os.PathLike[str]) -> Npy:
    """The file as an origin. MissingTokensError if it is not there."""
    given = expanded(path).absolute()
    try:
        if not given.is_file():
            raise MissingTokensError(
                f"no token data at {os.fspath(path)!r}: there is no such file{near_names(given)}"
            )
        return Npy(given, given.stat().st_size)
    except MissingTokensError:
        raise
    except OSError as error:
        raise ReadError.of(given, error, "look for") from error


def _mapped(opened: File) -> npt.NDArray[Any]:
    path, nbytes = Path(opened.path), opened.size
    try:
        with open(opened.fileno(), "rb", closefd=False) as file:
            shape, by_columns, dtype, offset = _header(path, file)
    except OSError as error:
        raise ReadError.of(path, error) from error
    if dtype.kind not in "iu" or len(shape) != 2:
        raise TokenFileError(path, f"it holds {dtype} of shape {list(shape)}; {_WANTED}")
    if not dtype.isnative or by_columns:
        layout = "in Fortran order" if by_columns else f"of another byte order ({dtype.str})"
        raise TokenFileError(
            path,
            f"its ids are {layout}, and cannot be mapped: load it with numpy, and save "
            "np.ascontiguousarray(ids, dtype='int64')",
        )
    rows, length = shape
    if rows < 0 or length < 0 or (rows > 0 and length == 0) or offset % dtype.itemsize:
        raise TokenFileError(path, f"its header says {list(shape)} from byte {offset}; {_WANTED}")
    end = offset + rows * length * dtype.itemsize
    if end > nbytes:
        raise TruncatedFileError(
            path, f"the file ends here, but its header promises {end} bytes", offset=nbytes
        )
    if end < nbytes:
        raise TokenFileError(path, f"{nbytes - end} bytes follow the last row", offset=end)
    if rows * length == 0:
        return np.empty((rows, length), dtype)
    try:
        with open(opened.fileno(), "rb", closefd=False) as file:
            return np.memmap(file, dtype, "r", offset, (rows, length))
    except (OSError, ValueError) as error:  # ValueError where the file has shrunk meanwhile
        raise ReadError(
            getattr(error, "errno", errno.EIO), f"cannot map {path}: {error}"
        ) from error


def _header(path: Path, file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and where the ids begin. It is data, not a pickle."""
    try:
        version = npy.read_magic(file)
        read = _HEADERS.get(version)
        if read is None:
            raise ValueError(f"version {version[0]}.{version[1]} is not one that ids are saved in")
        shape, by_columns, dtype = read(file)
    except OSError:
        raise
    except Exception as error:  # of a header that is no Python literal numpy raises many things
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TokenFileError(path, f"it is no whole .npy file: {reason}") from error
    return shape, by_columns, dtype, file.tell()
