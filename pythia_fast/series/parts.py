"""Writes safetensors from tensors that come in pieces, so that none has to be in memory whole."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import IO

from pythia_fast.series.tensors import ITEM_BYTES, TensorRange

PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor to be written: `pieces` gives its bytes in order, dense and row-major, once."""

    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[bytes]]

    @property
    def nbytes(self) -> int:
        """The tensor's size in bytes."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def part_of(tensor: TensorRange) -> Part:
    """The tensor as it lies in its file."""
    return Part(tensor.dtype, tensor.shape, lambda: pieces_of(tensor))


def pieces_of(tensor: TensorRange) -> Iterator[bytes]:
    """The tensor's bytes, in pieces. ReadError if its file shrinks meanwhile."""
    end = tensor.offset + tensor.nbytes
    for begin in range(tensor.offset, end, PIECE_BYTES):
        yield tensor.file.read(begin, min(PIECE_BYTES, end - begin))


def safetensors_bytes(parts: Mapping[str, Part]) -> int:
    """The size of the file that `write_parts` makes of these."""
    return len(_header(parts)) + sum(part.nbytes for part in parts.values())


def write_parts(
    file: IO[bytes], parts: Mapping[str, Part], seen: Callable[[bytes], None] | None = None
) -> None:
    """Write the parts, in their order, as one safetensors file.

    `seen` gets every piece that was written. OSError where the system refuses.
    """
    header = _header(parts)
    file.write(header)
    if seen is not None:
        seen(header)
    for name, part in parts.items():
        written_bytes = 0
        for piece in part.pieces():
            file.write(piece)
            written_bytes += len(piece)
            if seen is not None:
                seen(piece)
        assert written_bytes == part.nbytes, name


def _header(parts: Mapping[str, Part]) -> bytes:
    """The header's size and the header, a multiple of eight bytes as safetensors itself writes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, part in parts.items():
        offsets = [begin, begin + part.nbytes]
        entries[name] = {"dtype": part.dtype, "shape": list(part.shape), "data_offsets": offsets}
        begin += part.nbytes
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw
