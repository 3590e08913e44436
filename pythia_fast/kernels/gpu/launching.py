"""How a Triton kernel is started: the one place where a launch happens."""

from collections.abc import Callable
from typing import Any

import torch
import triton

from pythia_fast.errors import ArgumentError

Grid = tuple[int, ...]


def interpreted() -> bool:
    """Whether triton interprets kernels on the CPU (`TRITON_INTERPRET=1`), as tests do."""
    return bool(triton.knobs.runtime.interpret)


def launch(
    kernel: "Callable[..., Any]",
    grid: Grid,
    device: torch.device,
    *arguments: Any,
    **constants: Any,
) -> None:
    """Run `grid` programs of a jitted kernel on the device's current stream.

    Of meta tensors it is compiled only, exactly as it would be for real ones: for the target of
    triton's active driver. On a CPU it needs triton's interpreter, else ArgumentError.
    """
    started: Any = kernel
    if device.type == "meta":
        started.warmup(*arguments, grid=grid, **constants)
    elif device.type == "cuda":
        with torch.cuda.device(device):
            started[grid](*arguments, **constants)
    elif interpreted():
        started[grid](*arguments, **constants)
    else:
        raise ArgumentError(f"Triton kernels run on a GPU, not on {device}")
