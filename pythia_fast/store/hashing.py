"""Whether a file is what its name in the store says, asked once in a process."""

import hashlib
import os
import threading
from collections.abc import Callable

from pythia_fast.core import File
from pythia_fast.digest import Stamp, sha256, stamp

_CHUNK_BYTES = 2**18
_GIT = "git-"


class Verified:
    """Files whose bytes this process has hashed, or has verified while they came.

    A file is known by its `stamp`: one that somebody may have written to since is hashed again.
    """

    def __init__(self) -> None:
        self._known: dict[str, Stamp] = {}
        self._lock = threading.Lock()

    def add(self, digest: str, status: os.stat_result) -> None:
        """The file has been verified as it is."""
        with self._lock:
            self._known[digest] = stamp(status)

    def has(self, digest: str, status: os.stat_result) -> bool:
        """Whether it was, and is still the same."""
        with self._lock:
            return self._known.get(digest) == stamp(status)


def digest_is(digest: str, file: File, *, seen: Callable[[int], None] | None = None) -> bool:
    """Hash an open file, by its sha256 or as git does. ReadError.

    `seen` is told how many bytes each step has added, and may raise to stop it.
    """
    if not digest.startswith(_GIT):
        return sha256(file, seen=seen) == digest
    found = hashlib.sha1(b"blob %d\0" % file.size)
    for offset in range(0, file.size, _CHUNK_BYTES):
        nbytes = min(_CHUNK_BYTES, file.size - offset)
        found.update(file.read(offset, nbytes))
        if seen is not None:
            seen(nbytes)
    return found.hexdigest() == digest.removeprefix(_GIT)
