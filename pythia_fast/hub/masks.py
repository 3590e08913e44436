"""The causal masks in a checkpoint's file, which are made here rather than fetched.

Transformers once kept each layer's mask, [T, T] of one byte, lower triangle 1, with the weights:
4 MiB a layer, 47% of the smallest model. Where a torch file's directory has a record of the size
and checksum of such a mask, or a safetensors header a tensor of that name and shape, its bytes are
known. Whether they are right, and in the right place, the file's sha256 tells: all here is a guess,
and hostile files can only make it a wrong one.
"""

import functools
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PROBE_BYTES = 2**18
"""The end of a torch file, or the start of a safetensors file, that is looked at."""
_LEAST_SIDE, _MOST_SIDE = 256, 4096
_ALIGNED_BYTES = 64
_LOCAL_HEADER_BYTES = 30
_PADDING_HEADER_BYTES = 4
_MOST_RECORDS = 10_000
_MOST_SIDES = 16  # the checksum of each costs some milliseconds
_ROWS_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask [side, side] that begins at `offset` of its file."""

    offset: int
    side: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.side**2

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Its bytes, about a MiB at a time, each with its offset in the file."""
        rows = max(1, _ROWS_BYTES // self.side)
        for first in range(0, self.side, rows):
            yield self.offset + first * self.side, _rows(self.side, first, rows)


def makes_masks(side: int) -> bool:
    """Whether masks [side, side] are looked for."""
    return _LEAST_SIDE <= side <= _MOST_SIDE


def probe(path: str, size: int) -> tuple[int, int] | None:
    """The bytes of a file by whose content `find_masks` finds masks; None where it never does."""
    if size < _LEAST_SIDE**2 + PROBE_BYTES:
        return None
    if path.endswith(".safetensors"):
        return 0, PROBE_BYTES
    if path.endswith(".bin"):
        return size - PROBE_BYTES, size
    return None


def find_masks(path: str, size: int, probed: bytes) -> tuple[Mask, ...]:
    """Where masks should be in a file, by the bytes of its `probe`; ascending, and apart."""
    found = _in_safetensors(probed) if path.endswith(".safetensors") else _in_zip(size, probed)
    masks: list[Mask] = []
    for mask in sorted(found, key=lambda mask: mask.offset):
        if mask.offset >= (masks[-1].end if masks else 0) and mask.end <= size:
            masks.append(mask)
    return tuple(masks)


def _in_zip(size: int, tail: bytes) -> list[Mask]:
    try:
        with zipfile.ZipFile(_Tail(size, tail)) as archive:
            records = archive.infolist()[:_MOST_RECORDS]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError):
        return []
    sides = {side for record in records if (side := _side(record.file_size)) is not None}
    crcs = {side: _crc32(side) for side in sorted(sides)[:_MOST_SIDES]}
    masks = []
    for record in records:
        side = _side(record.file_size)
        if side is None or record.compress_type != zipfile.ZIP_STORED:
            continue
        if crcs.get(side) != record.CRC:
            continue
        # torch.save pads the record's own header so that the bytes behind it are aligned
        name_bytes = len(record.orig_filename.encode())
        begin = record.header_offset + _LOCAL_HEADER_BYTES + name_bytes + _PADDING_HEADER_BYTES
        masks.append(Mask(-(-begin // _ALIGNED_BYTES) * _ALIGNED_BYTES, side))
    return masks


def _in_safetensors(head: bytes) -> list[Mask]:
    nbytes = int.from_bytes(head[:8], "little")
    if nbytes > len(head) - 8:
        return []
    try:
        header = json.loads(head[8 : 8 + nbytes])
        entries = [
            (entry["dtype"], entry["shape"], entry["data_offsets"])
            for name, entry in header.items()
            if name.endswith("attention.bias")
        ]
        return [
            Mask(8 + nbytes + begin, side)
            for dtype, shape, (begin, end) in entries
            if dtype in ("BOOL", "U8")
            and type(begin) is int
            and type(end) is int
            and begin >= 0
            and (side := _side(end - begin)) is not None
            and shape == [1, 1, side, side]
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _side(nbytes: int) -> int | None:
    side = math.isqrt(max(0, nbytes))
    return side if side**2 == nbytes and makes_masks(side) else None


@functools.lru_cache(maxsize=16)
def _crc32(side: int) -> int:
    crc32 = 0
    for _, part in Mask(0, side).parts():
        crc32 = zlib.crc32(part, crc32)
    return crc32


def _rows(side: int, first: int, count: int) -> bytes:
    stop = min(first + count, side)
    return b"".join(b"\1" * (row + 1) + b"\0" * (side - row - 1) for row in range(first, stop))


class _Tail(io.RawIOBase):
    """A file of which only the end is here; what is before it cannot be read."""

    def __init__(self, size: int, tail: bytes) -> None:
        self._size, self._tail, self._at = size, tail, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the start of the file")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        begin = self._at - (self._size - len(self._tail))
        if begin < 0:
            raise ValueError("before the bytes that are here")
        data = self._tail[begin:] if size < 0 else self._tail[begin : begin + size]
        self._at += len(data)
        return data
