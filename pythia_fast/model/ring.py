"""The way from files to a GPU: a ring of pinned slots, filled by readers and emptied by copies.

A slot holds a piece of the arena exactly as it will lie there, padding and derived values included,
so that one copy brings it over. While it is under way, the next slots are filled; a slot is filled
again when its copy is done. However large the model, the host holds no more of it than the ring.
"""

import logging
import threading
import time
import weakref
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch

from pythia_fast.core import Read, read_tensors
from pythia_fast.errors import ArgumentError, PinnedMemoryError
from pythia_fast.model.parameters import ALIGNMENT_BYTES, DTYPES, Layout, Place
from pythia_fast.model.streams import Event, Streams
from pythia_fast.quantities import sized
from pythia_fast.series.tensors import ITEM_BYTES, TensorRange

_log = logging.getLogger("pythia_fast")

SLOT_BYTES = 64 << 20
"""A copy takes about a millisecond, beside which its start does not count."""

SLOTS = 4
"""One that is filled, one that is copied, and two between them."""

LEAST_SLOT_BYTES = 1 << 20
"""Where less than this can be pinned, something else is wrong."""


class Block(NamedTuple):
    """Values of one tensor in a piece: `rows` of `columns`, from the tensor's value `first` on.

    They begin at the piece's element `offset`, rows `stride` apart.
    """

    tensor: int
    first: int
    rows: int
    columns: int
    offset: int
    stride: int


class Piece(NamedTuple):
    """Elements [begin, end) of the arena, what is read for them, and what is not.

    `sums` are (layer, first, offset, count) of the summed biases; `gaps` (offset, count) stay zero.
    """

    begin: int
    end: int
    blocks: tuple[Block, ...]
    sums: tuple[tuple[int, int, int, int], ...]
    gaps: tuple[tuple[int, int], ...]


@lru_cache(maxsize=4)
def pieces(layout: Layout, most: int) -> tuple[Piece, ...]:
    """An arena cut into pieces of `most` elements; the last has what is left."""
    return tuple(
        _piece(layout, begin, min(begin + most, layout.numel))
        for begin in range(0, layout.numel, most)
    )


def _piece(layout: Layout, begin: int, end: int) -> Piece:
    width = layout.architecture.width
    blocks = [
        block
        for tensor, place in enumerate(layout.places.values())
        for block in _blocks(tensor, place, begin, end)
    ]
    sums = []
    for layer, (*_, at) in enumerate(layout.sums):
        first, last = max(at, begin), min(at + width, end)
        if first < last:
            sums.append((layer, first - at, first - begin, last - first))
    gaps = []
    ends = [*(offset for offset, _ in layout.slots[1:]), layout.numel]
    for (offset, shape), after in zip(layout.slots, ends, strict=True):
        first, last = max(offset + prod(shape), begin), min(after, end)
        if first < last:
            gaps.append((first - begin, last - first))
    return Piece(begin, end, tuple(blocks), tuple(sums), tuple(gaps))


def _blocks(tensor: int, place: Place, begin: int, end: int) -> list[Block]:
    """What of a tensor lies in [begin, end): part of a row, whole rows, and part of a row."""
    offset, _, rows, row_columns, stride = place
    if stride == row_columns:  # without gaps it is one long row
        rows, row_columns, stride = 1, rows * row_columns, rows * row_columns
    first = max(begin - offset, 0)
    last = min(end - offset, (rows - 1) * stride + row_columns)
    if first >= last:
        return []
    (row, column), (last_row, last_column) = divmod(first, stride), divmod(last, stride)
    found = []

    def add(row: int, column: int, rows: int, columns: int) -> None:
        if rows > 0 and columns > 0:
            at = offset + row * stride + column - begin
            found.append(Block(tensor, row * row_columns + column, rows, columns, at, stride))

    if row == last_row:
        add(row, column, 1, min(last_column, row_columns) - column)
        return found
    if column > 0:
        add(row, column, 1, row_columns - column)
        row += 1
    add(row, 0, last_row - row, row_columns)
    add(last_row, 0, 1, min(last_column, row_columns))
    return found


class Ring:
    """Pinned slots of one device. Threads may share it: their loads take turns.

    PinnedMemoryError where not even `LEAST_SLOT_BYTES` a slot can be had; if less than
    `slot_bytes`, the log tells.
    """

    def __init__(
        self, streams: Streams, *, slot_bytes: int = SLOT_BYTES, slots: int = SLOTS
    ) -> None:
        if slot_bytes < ALIGNMENT_BYTES or slot_bytes % ALIGNMENT_BYTES or slots < 1:
            raise ArgumentError(
                f"a ring is of one or more slots of a multiple of {ALIGNMENT_BYTES} bytes, "
                f"not {slots} of {slot_bytes}"
            )
        self.streams = streams
        self.slot_bytes, memory = _pinned(streams, slot_bytes, slots)
        self._slots = memory.view(slots, self.slot_bytes)
        self._emptied: list[Event | None] = [None] * slots
        self._turn = threading.Lock()

    def load(
        self,
        ranges: Sequence[TensorRange],
        layout: Layout,
        flat: torch.Tensor,
        threads: int,
        after: Event | None,
    ) -> tuple[list[int], float]:
        """Read the tensors of `layout.places` in their order into `flat`, an arena on the device.

        Nothing is written before `after`. Returns, when all is there, how many values of each
        tensor are not finite, and the seconds that this thread waited for copies. If it fails, no
        copy is under way any more, and what `flat` holds is undefined.
        """
        with self._turn:
            if after is not None:
                self.streams.copy_after(after)
            try:
                return self._load(ranges, layout, flat, threads)
            except BaseException:
                self.streams.copied().synchronize()
                raise

    def _load(
        self, ranges: Sequence[TensorRange], layout: Layout, flat: torch.Tensor, threads: int
    ) -> tuple[list[int], float]:
        sums_LD = _summed_biases(ranges, layout, flat.dtype, threads)
        counts, waited_s = [0] * len(ranges), 0.0
        for number, piece in enumerate(pieces(layout, self.slot_bytes // layout.itemsize)):
            turn = number % len(self._slots)
            emptied = self._emptied[turn]
            if emptied is not None:
                waited_s += _waited_s(emptied)
            slot = self._slots[turn].view(flat.dtype)[: piece.end - piece.begin]
            reads = [_read(ranges[block.tensor], block, flat.dtype) for block in piece.blocks]
            found = read_tensors(reads, slot.view(torch.uint8).numpy().data, threads)
            for block, count in zip(piece.blocks, found, strict=True):
                counts[block.tensor] += count
            for layer, first, offset, count in piece.sums:
                slot[offset : offset + count] = sums_LD[layer, first : first + count]
            for offset, count in piece.gaps:
                slot[offset : offset + count] = 0
            self.streams.copy(flat[piece.begin : piece.end], slot)
            self._emptied[turn] = self.streams.copied()
        return counts, waited_s + _waited_s(self.streams.copied())


_rings: "weakref.WeakValueDictionary[Streams, Ring]" = weakref.WeakValueDictionary()


_making = threading.Lock()


def ring_of(streams: Streams) -> Ring:
    """The one of a device, made when it is first asked for, and gone with the last arena."""
    with _making:  # several threads may load their first checkpoint at once
        ring = _rings.get(streams)
        if ring is None:
            ring = _rings[streams] = Ring(streams)
        return ring


def _pinned(streams: Streams, slot_bytes: int, slots: int) -> tuple[int, torch.Tensor]:
    """(bytes of a slot, all slots): as much as was asked for, or half, or a quarter, and so on."""
    wanted_bytes = slot_bytes
    while True:
        try:
            memory = streams.pinned(slots * slot_bytes)
        except PinnedMemoryError:
            if slot_bytes // 2 < LEAST_SLOT_BYTES:
                raise
            slot_bytes = slot_bytes // 2 // ALIGNMENT_BYTES * ALIGNMENT_BYTES
            continue
        if slot_bytes < wanted_bytes:
            _log.warning(
                "only %s of memory could be pinned, and not %s: copies to the GPU may be slower",
                *(sized(slots * slot_bytes), sized(slots * wanted_bytes)),
            )
        return slot_bytes, memory


def _summed_biases(
    ranges: Sequence[TensorRange], layout: Layout, dtype: torch.dtype, threads: int
) -> torch.Tensor:
    """Each block's sum of output biases, [L, D]: read beforehand, since pieces may part them."""
    names = {name: i for i, name in enumerate(layout.places)}
    width = layout.architecture.width
    biases = torch.empty(len(layout.sums), 2, width, dtype=dtype, device="cpu")
    reads = [
        _read(ranges[names[name]], Block(names[name], 0, 1, width, place * width, width), dtype)
        for place, name in enumerate(name for *both, _ in layout.sums for name in both)
    ]
    read_tensors(reads, biases.view(torch.uint8).numpy().data, threads)
    return torch.add(biases[:, 0], biases[:, 1])


def _read(tensor: TensorRange, block: Block, dtype: torch.dtype) -> Read:
    offset = tensor.offset + block.first * ITEM_BYTES[tensor.dtype]
    return Read(
        *(tensor.file, offset, tensor.dtype, block.rows, block.columns),
        *(block.offset * dtype.itemsize, DTYPES[dtype], block.stride * dtype.itemsize),
    )


def _waited_s(event: Event) -> float:
    started_s = time.perf_counter()
    event.synchronize()
    return time.perf_counter() - started_s
