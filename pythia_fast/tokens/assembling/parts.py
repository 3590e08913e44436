"""Files that are made of parts of others: what goes where, and what of it is left."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_fast.errors import ReadError
from pythia_fast.tokens.assembling.copying import clone, shareable


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes [offset, offset + nbytes) of a file."""

    path: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Target:
    """A file to be made: its parts, one after the other."""

    path: Path
    parts: tuple[Part, ...]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return sum(part.nbytes for part in self.parts)


def plan_of(targets: Sequence[Target]) -> dict[str, Any]:
    """What is made of what, as JSON has it. ReadError if a source is not there."""
    sources: dict[str, list[int]] = {}
    for part in (part for target in targets for part in target.parts):
        path = str(part.path.resolve())
        if path in sources:
            continue
        try:
            found = part.path.stat()
        except OSError as error:
            raise ReadError(error.errno, f"cannot read {path}: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise ReadError(errno.EINVAL, f"cannot copy {path}: it is no regular file")
        sources[path] = [found.st_size, found.st_mtime_ns]
    made = {
        target.path.name: [[str(p.path.resolve()), p.offset, p.nbytes] for p in target.parts]
        for target in targets
    }
    return {"sources": sources, "made": made}


def left_of(targets: Sequence[Target], done: int) -> Iterator[tuple[Target, Part, int]]:
    """What is left after the first `done` bytes of all: of which target, and where in it."""
    begin = 0
    for target in targets:
        offset = 0
        for part in target.parts:
            skip = min(part.nbytes, max(0, done - begin))
            if skip < part.nbytes:
                left = Part(part.path, part.offset + skip, part.nbytes - skip)
                yield target, left, offset + skip
            offset += part.nbytes
            begin += part.nbytes


def in_chunks(part: Part, offset: int, chunk_bytes: int) -> Iterator[tuple[Part, int]]:
    """A part in pieces, each with its place in the target."""
    for at in range(0, part.nbytes, chunk_bytes):
        nbytes = min(chunk_bytes, part.nbytes - at)
        yield Part(part.path, part.offset + at, nbytes), offset + at


def shareable_bytes(folder: Path, targets: Sequence[Target], done: int) -> int:
    """How many bytes of what is left would take no room; 0 where it cannot be tried."""
    try:
        trial = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    nbytes = 0
    try:
        block = os.fstatvfs(trial).f_bsize
        for _, part, offset in left_of(targets, done):
            begin, end = shareable(trial, part.offset, offset, part.nbytes)
            if begin == end:
                continue
            source = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if clone(source, part.offset + begin, trial, 0, block):
                    nbytes += end - begin
            finally:
                os.close(source)
    finally:
        os.close(trial)
    return nbytes
