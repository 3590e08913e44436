"""What weights are stored in and how they are multiplied: the values of the argument `dtype`."""

from dataclasses import dataclass

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.cpu import MAX_HEAD_DIM, Arithmetic, default_arithmetic, has_amx
from pythia_fast.kernels.gpu import takes_model
from pythia_fast.model.native import takes
from pythia_fast.suite.architecture import Architecture

NAMES = ("auto", "float32", "bfloat16", "float16", "split-bf16")


@dataclass(frozen=True, slots=True)
class Precision:
    """A resolved `dtype`: its `name`, the weights' `dtype`, and the native kernels' arithmetic.

    `arithmetic` is None on a GPU and where torch computes; `triton`: the Triton kernels do.
    """

    name: str
    dtype: torch.dtype
    arithmetic: Arithmetic | None
    triton: bool = False

    @property
    def reproducible(self) -> bool:
        """Whether a sequence's bits can be its own whatever is computed with it; not by torch."""
        return self.triton or self.arithmetic is not None


def known_precision(dtype: str | torch.dtype) -> str | None:
    """The name of the precision that `dtype` asks for, wherever it is computed; None for "auto".

    ArgumentError for none of `NAMES`.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in NAMES:
        raise ArgumentError(f"dtype is {', '.join(map(repr, NAMES))}, not {dtype!r}")
    return None if name == "auto" else name


def resolve_precision(
    dtype: str | torch.dtype, device: torch.device, architecture: Architecture | None = None
) -> Precision:
    """One of `NAMES`, or a torch dtype of such a name, on a device; ArgumentError for any other.

    "split-bf16" keeps float32 weights and multiplies each as a sum of two bfloat16, on processors
    with AMX: the accuracy of float32, nearly, at a fraction of its cost. "auto" is float16 on a
    GPU; on a CPU "split-bf16" with AMX and float32 without. Checkpoints are saved in float16, which
    is exact in float32 and as two bfloat16, but not as one. Where the kernels do not take the
    `architecture`, if one is given, torch computes: "auto" is float32 and "split-bf16" an error.
    """
    name = known_precision(dtype) or "auto"
    if device.type != "cpu":
        if name == "split-bf16":
            raise ArgumentError("dtype 'split-bf16' is for a CPU; a GPU takes 'float16' or 'auto'")
        name = "float16" if name == "auto" else name
        kind = getattr(torch, name)
        triton = architecture is not None and takes_model(device, kind, architecture.head_dim)
        return Precision(name, kind, None, triton)
    taken = architecture is None or takes(architecture)
    if name == "auto":
        name = "split-bf16" if has_amx() and taken else "float32"
    if name == "split-bf16":
        if not has_amx():
            raise ArgumentError("dtype 'split-bf16' needs a processor with AMX: take 'float32'")
        if architecture is not None and not taken:
            raise ArgumentError(
                f"dtype 'split-bf16' is for even widths and heads of at most {MAX_HEAD_DIM}, and "
                f"these heads are {architecture.head_dim} wide: take 'float32'"
            )
        return Precision(name, torch.float32, "split-bf16")
    kind = getattr(torch, name)
    return Precision(name, kind, default_arithmetic(kind) if taken else None)
