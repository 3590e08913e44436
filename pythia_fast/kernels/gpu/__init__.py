"""Triton kernels, one file each: why it exists, its configurations, the kernel, and its launcher.

None of them is imported before a GPU is to compute: triton takes a second to import.
"""

from functools import cache
from importlib.util import find_spec

import torch

HALF = (torch.float16, torch.bfloat16)
"""What the kernels compute with; sums are float32."""

HEAD_DIMS = frozenset({32, 64, 80, 128, 256})
"""The widths of a head that attention has tiles for: those of Pythia."""

OLDEST = (8, 0)
"""Ampere: the first with bfloat16 products and asynchronous copies to shared memory."""


def takes_model(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether the kernels do a whole model of heads of this width; else torch does."""
    return head_dim in HEAD_DIMS and takes(device, dtype)


def takes(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels are for numbers of this dtype on this device; else torch computes.

    triton is there on Linux on x86-64 (see pyproject.toml), where torch itself needs it for GPUs.
    """
    if device.type != "cuda" or dtype not in HALF or not torch.cuda.is_available():
        return False
    if torch.version.hip is not None:  # AMD's GPUs go by the same name, and have other numbers
        return False
    return torch.cuda.get_device_capability(device) >= OLDEST and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
