"""What the kernels must know of a GPU, and where its configurations are looked up."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
import triton

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.gpu import OLDEST

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class Chip:
    """A GPU as kernels see it.

    `capability` is CUDA's compute capability, `multiprocessors` how many programs run at once at
    least, `shared_bytes` the shared memory that one program may have.
    """

    capability: tuple[int, int]
    multiprocessors: int

    @property
    def shared_bytes(self) -> int:
        """CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"."""
        return lookup(SHARED_BYTES, self)

    @property
    def copies_tiles(self) -> bool:
        """Whether it has an engine that copies tiles of a tensor by itself (TMA)."""
        return self.capability >= (9, 0)


SHARED_BYTES = {
    (8, 0): 163 << 10,
    (8, 6): 99 << 10,
    (8, 7): 163 << 10,
    (8, 9): 99 << 10,
    (9, 0): 227 << 10,
    (10, 0): 227 << 10,
    (12, 0): 99 << 10,
}


def lookup(configs: Mapping[tuple[int, int], Config], chip: Chip) -> Config:
    """What is known of the chip, or of the newest that is not newer than it."""
    known = [capability for capability in configs if capability <= chip.capability]
    if not known:
        raise ArgumentError(
            f"a GPU of compute capability {'.'.join(map(str, chip.capability))} is too old for the "
            f"kernels, which need {'.'.join(map(str, OLDEST))}"
        )
    return configs[max(known)]


def chip_of(device: torch.device) -> Chip:
    """The chip of a GPU; where nothing is computed, that for which triton compiles.

    In triton's interpreter, a Hopper of three multiprocessors: few, so that programs come round.
    """
    if device.type == "cuda":
        return _chip_of(torch.cuda.current_device() if device.index is None else device.index)
    if device.type == "meta":
        arch: int = triton.runtime.driver.active.get_current_target().arch
        return Chip((arch // 10, arch % 10), 132)
    return Chip((9, 0), 3)


@cache
def _chip_of(index: int) -> Chip:
    properties = torch.cuda.get_device_properties(index)
    return Chip((properties.major, properties.minor), properties.multi_processor_count)
