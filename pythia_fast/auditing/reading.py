"""One checkpoint, read once and piece by piece, and what stays of it: little."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.tensors import ITEM_BYTES, TensorRange

SAMPLE = 2**16
"""So many values of a tensor are kept, evenly spaced, to measure distances by."""
_PIECE_BYTES = 2**20  # a multiple of every element's size; stays in the processor's cache

Values = npt.NDArray[np.float32]

_EXPONENTS: Mapping[str, tuple[np.dtype[np.unsignedinteger], int]] = {
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
    "F32": (np.dtype("<u4"), 0x7F80_0000),
    "F64": (np.dtype("<u8"), 0x7FF0_0000_0000_0000),
}
"""An element as an integer, and the bits of its exponent, which are all set in NaN and infinity."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """What stays of a tensor; `constant` if all its values are the same."""

    dtype: str
    sha256: str
    nan: int
    infinite: int
    constant: bool
    sample: Values


def read_checkpoint(checkpoint: Checkpoint, pool: ThreadPoolExecutor) -> Mapping[str, Tensor]:
    """All its tensors by name, each read once from its file. ReadError if a file shrinks."""
    return dict(
        zip(checkpoint.tensors, pool.map(read_tensor, checkpoint.tensors.values()), strict=True)
    )


def read_tensor(tensor: TensorRange) -> Tensor:
    """Hash it, count what is not finite, and keep evenly spaced values, at most SAMPLE of them.

    The spacing is odd, so that it does not fall on the same column of every row.
    """
    kind, exponent = _EXPONENTS[tensor.dtype]
    elements = tensor.nbytes // ITEM_BYTES[tensor.dtype]
    spacing = -(-elements // SAMPLE) | 1
    digest = hashlib.sha256()
    nan = infinite = first = 0
    constant = True
    kept = []
    for begin in range(0, tensor.nbytes, _PIECE_BYTES):
        raw = tensor.file.read(tensor.offset + begin, min(_PIECE_BYTES, tensor.nbytes - begin))
        digest.update(raw)
        bits = np.frombuffer(raw, kind)
        if begin == 0:
            first = bits[0]
        constant = constant and bool((bits == first).all())
        special = (bits & exponent) == exponent
        if special.any():
            mantissa = bits[special] & (exponent & -exponent) - 1
            nan += int(np.count_nonzero(mantissa))
            infinite += int(np.count_nonzero(mantissa == 0))
        done = begin // kind.itemsize
        kept.append(bits[-done % spacing :: spacing].copy())  # a view would keep all of `raw`
    sample = np.concatenate(kept) if kept else np.empty(0, kind)
    return Tensor(
        tensor.dtype, digest.hexdigest(), nan, infinite, constant, _values(sample, tensor)
    )


def _values(bits: npt.NDArray[np.unsignedinteger], tensor: TensorRange) -> Values:
    if tensor.dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    floats = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[tensor.dtype]
    with np.errstate(over="ignore"):
        return bits.view(floats).astype(np.float32)
