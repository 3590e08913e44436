"""The sha256 of open files, once for each."""

import hashlib
import os
import time
from collections.abc import Callable

from pythia_fast.core import File

SETTLED_S = 60
"""So long after its last write a file's times show each further one, also through a mapping."""

_CHUNK_BYTES = 2**18  # stays in the cache between the read and the hash
_Stamp = tuple[int, int, int, int, int]


def sha256(*files: File, seen: Callable[[int], None] | None = None) -> str:
    """The sha256 of all bytes of open files, one file after the other, in hex.

    `seen` is told how many bytes each step has added. ReadError if a file shrinks meanwhile. Other
    threads run in the meantime.
    """
    digest = hashlib.sha256()
    for file in files:
        for offset in range(0, file.size, _CHUNK_BYTES):
            nbytes = min(_CHUNK_BYTES, file.size - offset)
            digest.update(file.read(offset, nbytes))
            if seen is not None:
                seen(nbytes)
    return digest.hexdigest()


class Digests:
    """The sha256 of files, each computed once as long as nothing says that it has changed.

    A file is the same while its path, inode, size and times of change (mtime and ctime) are; one
    that was written to less than `SETTLED_S` before is not relied on. A pickle takes along what is
    known. Threads may share it.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Stamp, str]] = {}

    def of(self, file: File) -> str:
        """The sha256 of an open file, in hex. ReadError if it shrinks meanwhile."""
        stamp = _stamp(file)
        known = self._known.get(file.path)
        if known is not None and known[0] == stamp:
            return known[1]
        settled = _is_settled(stamp)
        digest = sha256(file)
        if settled and _stamp(file) == stamp:
            self._known[file.path] = stamp, digest
        return digest


def _stamp(file: File) -> _Stamp:
    """What tells of a change; the size is also that of when it was opened, which is hashed."""
    status = os.fstat(file.fileno())
    sizes = file.size, status.st_size
    return status.st_ino, *sizes, status.st_mtime_ns, status.st_ctime_ns


def _is_settled(stamp: _Stamp) -> bool:
    *_, modified_ns, _ = stamp
    return time.time_ns() - modified_ns > SETTLED_S * 10**9
