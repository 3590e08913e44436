"""The sha256 of open files."""

import hashlib
from collections.abc import Callable

from pythia_fast.core import File

_CHUNK_BYTES = 2**18  # stays in the cache between the read and the hash


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
