"""Where a tensor lies in a file: what every reader of a format returns."""

from dataclasses import dataclass
from math import prod

from pythia_fast.core import File

ITEM_BYTES = {
    dtype: nbytes
    for nbytes, dtypes in {
        1: ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"),
        2: ("U16", "I16", "F16", "BF16"),
        4: ("U32", "I32", "F32"),
        8: ("U64", "I64", "F64"),
    }.items()
    for dtype in dtypes
}
"""Bytes of one element, by the dtype's name in safetensors, which is the name used throughout."""


@dataclass(frozen=True, slots=True)
class TensorRange:
    """One tensor's bytes: `nbytes` from `offset` of the open `file`.

    They are dense, row-major and little-endian. Made only by a reader that has checked that the
    range lies inside the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: File
    offset: int

    @property
    def nbytes(self) -> int:
        """The tensor's size in bytes."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def bounded_product(shape: tuple[int, ...], limit: int) -> int | None:
    """The number of elements, or None if it is above `limit`, whatever the size of the numbers."""
    if 0 in shape:
        return 0
    product = 1
    for size in shape:
        product *= size
        if product > limit:
            return None
    return product
