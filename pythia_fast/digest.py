"""The sha256 of open files, once for each, and how to tell that a file is what it was."""

import hashlib
import os
import time
from collections.abc import Callable

from pythia_fast.core import File

SETTLED_S = 60
"""So long after its last change a file's times show each further one, also through a mapping."""

_CHUNK_BYTES = 2**18  # stays in the cache between the read and the hash

Stamp = tuple[int, int, int, int]
_Seen = tuple[int, Stamp]


def stamp(status: os.stat_result) -> Stamp:
    """What tells that a file may have changed: its inode, its size, its mtime and its ctime, in ns.

    The mtime alone does not: `cp -p`, `rsync -t` and `tar` put back the one of their source. The
    ctime nobody can put back. It also moves with a rename, a link or a chmod, so another stamp says
    only that the bytes are to be looked at again. The device is no part of it: a file system that
    is mounted anew may get another number, and two files with the same inode number, size and times
    to the nanosecond are one, or snapshots of one.
    """
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


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

    A file is the same while its path and its `stamp` are; one whose mtime or ctime is less than
    `SETTLED_S` ago is not relied on, as its next change might show in neither. A pickle takes along
    what is known. Threads may share it.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Seen, str]] = {}

    def of(self, file: File) -> str:
        """The sha256 of an open file, in hex. ReadError if it shrinks meanwhile."""
        seen = _seen(file)
        known = self._known.get(file.path)
        if known is not None and known[0] == seen:
            return known[1]
        settled = _is_settled(seen[1])
        digest = sha256(file)
        if settled and _seen(file) == seen:
            self._known[file.path] = seen, digest
        return digest


def _seen(file: File) -> _Seen:
    """The size is also that of when it was opened, which is hashed."""
    return file.size, stamp(os.fstat(file.fileno()))


def _is_settled(now: Stamp) -> bool:
    *_, modified_ns, changed_ns = now
    return time.time_ns() - max(modified_ns, changed_ns) > SETTLED_S * 10**9
