"""Copy a range of one file into another, in the cheapest way that their file systems have.

Blocks are shared where that is possible (btrfs, XFS): such a range is copied in no time and takes
no room. It is possible where both offsets lie equally far into a block, which is a property of the
range, not of the file system: of Pythia's shards of 5·10^9 bytes every eighth begins at a multiple
of 4096 of the whole. The rest is copied by the kernel, or where that cannot be, through a buffer;
holes stay holes.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pythia_fast.errors import TruncatedFileError

BUFFER_BYTES = 1 << 20
_FICLONERANGE = 0x4020940D  # of linux/fs.h: source, its offset, length, offset in the target
_CANNOT = {errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM}
"""What a call answers where these two file systems, or this kernel, do not have it."""


def copy_range(
    source: int, source_offset: int, target: int, target_offset: int, nbytes: int
) -> int:
    """Copy bytes between two open files; returns how many of them share their blocks now.

    The target is zeros, or the same bytes already, where they go. TruncatedFileError (which names
    the descriptor's file) if the source ends early; OSError as the system gives it.
    """
    if source_offset + nbytes > os.fstat(source).st_size:
        raise _truncated(source)
    begin, end = shareable(target, source_offset, target_offset, nbytes)
    if begin == end or not clone(
        source, source_offset + begin, target, target_offset + begin, end - begin
    ):
        begin = end = 0
    for first, last in ((0, begin), (end, nbytes)):
        for data_begin, data_end in _data(source, source_offset + first, source_offset + last):
            at = target_offset + data_begin - source_offset
            _copy(source, data_begin, target, at, data_end - data_begin)
    return end - begin


def shareable(target: int, source_offset: int, target_offset: int, nbytes: int) -> tuple[int, int]:
    """Begin and end of whole blocks in a range of bytes; both 0 if none lie alike in both files."""
    block = os.fstatvfs(target).f_bsize
    begin = -source_offset % block
    end = nbytes - (source_offset + nbytes) % block
    if (source_offset - target_offset) % block != 0 or begin >= end:
        return 0, 0
    return begin, end


def clone(source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> bool:
    """Let two files share whole blocks. False where the file systems cannot."""
    request = struct.pack("=qQQQ", source, source_offset, nbytes, target_offset)
    try:
        fcntl.ioctl(target, _FICLONERANGE, request)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _data(source: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Where in [begin, end) the file has data; a file system that knows no holes has it all."""
    while begin < end:
        try:
            data = os.lseek(source, begin, os.SEEK_DATA)
            hole = os.lseek(source, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole from here on
                return
            if error.errno not in _CANNOT:
                raise
            data, hole = begin, end
        if data < end:
            yield data, min(hole, end)
        begin = hole


def _copy(source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
    done = 0
    while done < nbytes:
        places = source_offset + done, target_offset + done
        try:
            copied = os.copy_file_range(source, target, nbytes - done, *places)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            copied = 0
        if copied == 0:  # also where a kernel only says that it did nothing
            copied = _copy_buffered(source, target, min(BUFFER_BYTES, nbytes - done), *places)
        done += copied


def _copy_buffered(
    source: int, target: int, nbytes: int, source_offset: int, target_offset: int
) -> int:
    data = os.pread(source, nbytes, source_offset)
    if not data:
        raise _truncated(source)
    rest = memoryview(data)
    while rest:
        written = os.pwrite(target, rest, target_offset + len(data) - len(rest))
        rest = rest[written:]
    return len(data)


def _truncated(source: int) -> TruncatedFileError:
    size = os.fstat(source).st_size
    path = Path(f"/proc/self/fd/{source}").readlink()
    return TruncatedFileError(path, "the file ends here, before what is to be copied", offset=size)
