"""Files of a cache: with holes, read and written at offsets, or small ones written as a whole.

All errors name the path.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from pythia_fast.errors import HubError, ReadError, TruncatedFileError
from pythia_fast.publish import published, writing


def open_sparse(path: Path, size: int) -> int:
    """Open a file that may have holes, and make it if need be; of a read-only cache, to read."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        common = os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | common, 0o666)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.exists():
                raise
            descriptor = os.open(path, os.O_RDONLY | common)
    try:
        with writing(path):
            has = os.fstat(descriptor).st_size
            if has < size:
                os.ftruncate(descriptor, size)
        if has > size:
            raise HubError(
                f"{path} has {has} bytes where {size} belong, so this package did not write it: "
                "remove it, or give another cache_dir"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def close_all(descriptors: Sequence[int]) -> None:
    """Close them."""
    for descriptor in descriptors:
        os.close(descriptor)


def read_exactly(descriptor: int, path: Path, begin: int, nbytes: int) -> bytes:
    """`nbytes` from `begin` on. TruncatedFileError if they are not all there."""
    parts = []
    done = 0
    while done < nbytes:
        try:
            part = os.pread(descriptor, nbytes - done, begin + done)
        except OSError as error:
            raise ReadError.of(path, error) from error
        if not part:
            raise TruncatedFileError(
                path,
                "the file ends here now; it was longer when it was opened",
                offset=begin + done,
            )
        parts.append(part)
        done += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_all(descriptor: int, path: Path, begin: int, data: memoryview) -> None:
    """Put `data` at `begin`; not yet on disk when this returns."""
    done = 0
    with writing(path):
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], begin + done)


def publish_text(path: Path, text: str) -> None:
    """Write a small file, whole or not at all; its folder is made. WriteError if that fails."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as file:
        file.write(text.encode())
