"""The ranks' parts of each weight become one tensor, in a nameless file, piece by piece.

Sums and means are taken in the next wider format (float32 for half precision, else float64), in the
order of the ranks, and rounded once. GPT-NeoX's own tools round after every addition: for two ranks
that is the same, for more it may differ in the last bit. Once is nearer, and does not depend on
their order.
"""

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import IO

from pythia_fast.core import File
from pythia_fast.errors import WriteError
from pythia_fast.publish import is_writable
from pythia_fast.series.gpt_neox.rules import Merge
from pythia_fast.series.parts import (
    PIECE_BYTES,
    Part,
    pieces_of,
    safetensors_bytes,
    write_parts,
)
from pythia_fast.series.tensors import ITEM_BYTES, TensorRange

IN_MEMORY_BYTES = 64 * 2**20
"""What is smaller than this needs no disk."""


def merged_shape(rule: Merge, part: tuple[int, ...], ranks: int) -> tuple[int, ...]:
    """The shape of the whole, of `ranks` parts of the shape `part`."""
    if rule is Merge.ROWS and part:
        return (part[0] * ranks, *part[1:])
    if rule is Merge.COLUMNS and len(part) > 1:
        return (part[0], part[1] * ranks, *part[2:])
    return part


def merge(rule: Merge, ranks: Sequence[TensorRange]) -> Part:
    """The whole of the ranks' parts, which are alike in shape and dtype."""
    first = ranks[0]
    shape = merged_shape(rule, first.shape, len(ranks))
    match rule:
        case Merge.ROWS:
            return Part(first.dtype, shape, lambda: (p for r in ranks for p in pieces_of(r)))
        case Merge.COLUMNS:
            return Part(first.dtype, shape, lambda: _side_by_side(ranks))
        case Merge.SUM:
            return Part(first.dtype, shape, lambda: iter([_added(ranks, mean=False)]))
        case Merge.MEAN:
            return Part(first.dtype, shape, lambda: iter([_added(ranks, mean=True)]))


def assemble(parts: Mapping[str, Part], source: Path) -> File:
    """The parts as a safetensors file without a name, which is gone when nobody has it open.

    WriteError if the disk refuses; `source` is for its text.
    """
    total_bytes = safetensors_bytes(parts)
    try:
        with _nameless(total_bytes) as file:
            write_parts(file, parts)
            file.flush()
            return File(f"/proc/self/fd/{file.fileno()}")
    except OSError as error:
        if isinstance(error, WriteError) or error.errno is None:
            raise
        raise WriteError(
            error.errno,
            f"cannot merge {source} into a temporary file of {total_bytes / 1e6:,.0f} MB: "
            f"{error.strerror}; set TMPDIR to a folder on a disk with room",
        ) from error


def _nameless(total_bytes: int) -> AbstractContextManager[IO[bytes]]:
    if total_bytes <= IN_MEMORY_BYTES:
        return os.fdopen(os.memfd_create("pythia_fast-merged"), "wb")
    # /tmp is often in memory, and these are gigabytes.
    folder = tempfile.gettempdir() if os.environ.get("TMPDIR") else "/var/tmp"
    if not is_writable(Path(folder)):
        folder = tempfile.gettempdir()
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < total_bytes:
        raise OSError(errno.ENOSPC, f"{folder} has no room")
    return tempfile.TemporaryFile("wb", dir=folder, prefix="pythia_fast-")


def _side_by_side(ranks: Sequence[TensorRange]) -> Iterator[bytes]:
    """Rows that are the ranks' rows one after the other."""
    import numpy as np  # here: whoever only lists the steps of a folder does without

    row_bytes = prod(ranks[0].shape[1:]) * ITEM_BYTES[ranks[0].dtype]
    rows_at_once = max(1, PIECE_BYTES // max(1, row_bytes * len(ranks)))
    for begin in range(0, ranks[0].shape[0], rows_at_once):
        rows = min(rows_at_once, ranks[0].shape[0] - begin)
        block = np.empty((rows, len(ranks), row_bytes), np.uint8)
        for rank, tensor in enumerate(ranks):
            raw = tensor.file.read(tensor.offset + begin * row_bytes, rows * row_bytes)
            block[:, rank] = np.frombuffer(raw, np.uint8).reshape(rows, row_bytes)
        yield block.tobytes()


def _added(ranks: Sequence[TensorRange], *, mean: bool) -> bytes:
    import torch  # here: NumPy has no bfloat16

    dtypes = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    dtype = dtypes.get(ranks[0].dtype, torch.float64)
    wide = torch.float32 if dtype.itemsize == 2 else torch.float64
    parts = (
        torch.frombuffer(bytearray(rank.file.read(rank.offset, rank.nbytes)), dtype=dtype)
        for rank in ranks
    )
    total = next(parts).to(wide)
    for part in parts:
        total += part
    if mean:
        total /= len(ranks)
    return total.to(dtype).view(torch.uint8).numpy().tobytes()
