"""From files straight into the host's memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from pythia_fast.core import Read, read_tensors
from pythia_fast.model.parameters import DTYPES, Place
from pythia_fast.series.tensors import TensorRange


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load read. `nonfinite`: NaN and Inf by weight name, for the weights that hold any.

    Values are counted as they lie in the arena, after conversion. `copy_s` of `elapsed_s` were
    spent waiting for copies to the GPU, which go on beside the reading.
    """

    nonfinite: Mapping[str, int]
    read_bytes: int
    elapsed_s: float
    copy_s: float = 0.0


def read_places(
    pairs: Iterable[tuple[TensorRange, Place]], flat: torch.Tensor, threads: int | None = None
) -> list[int]:
    """Read tensors of files to their places in `flat` (on the CPU), converted to its dtype.

    Returns how many values of each are NaN or Inf. `threads` None is torch's number of threads.
    """
    itemsize, dtype = flat.dtype.itemsize, DTYPES[flat.dtype]
    reads = [
        Read(
            tensor.file,
            tensor.offset,
            tensor.dtype,
            place.rows,
            place.columns,
            place.offset * itemsize,
            dtype,
            place.stride * itemsize,
        )
        for tensor, place in pairs
    ]
    memory = flat.view(torch.uint8).numpy().data
    return read_tensors(reads, memory, threads or torch.get_num_threads())
