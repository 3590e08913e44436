"""What the themes share: which data types there are, and how much work a pass is.

B sequences, T tokens, D width, F = 4D, L layers, V vocabulary rows.
"""

import functools
import tempfile
from pathlib import Path

import torch
from roofline import Work

import pythia_fast
from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series, tiny

DTYPES = ("bfloat16", "split-bf16", "float32")
"""Fastest first."""
ITEM_BYTES = {"bfloat16": 2, "split-bf16": 4, "float32": 4}


@functools.cache
def offered_dtypes() -> tuple[str, ...]:
    """Those of `DTYPES` that this version and this machine offer."""
    with tempfile.TemporaryDirectory() as folder:
        series = make_series(Path(folder) / "tiny", tiny(), [0])
        return tuple(dtype for dtype in DTYPES if _offered(series, dtype))


@functools.cache
def multiplied_dtypes() -> tuple[str, ...]:
    """Those of them that the processor has instructions for.

    Without, torch emulates bfloat16, many times slower than float32: no peer's best setting.
    """
    emulated = set() if torch.cpu.get_capabilities().get("avx512_bf16") else {"bfloat16"}
    return tuple(dtype for dtype in offered_dtypes() if dtype not in emulated)


def timed_dtypes() -> tuple[str, ...]:
    """The two fastest of those: a theme that times no more of them than one would choose from."""
    return multiplied_dtypes()[:2]


def _offered(series: Path, dtype: str) -> bool:
    try:
        pythia_fast.load(series, dtype=dtype)
    except pythia_fast.PythiaFastError:
        return False
    return True


def forward_flops(architecture: Architecture, sequences: int, tokens: int) -> float:
    """Of the products and of causal attention, whose scores above the diagonal are not needed."""
    a = architecture
    weights = a.layers * (4 * a.width**2 + 2 * a.width * a.intermediate) + a.vocab_rows * a.width
    attention = a.layers * 2 * a.width * (tokens + 1)  # q kᵀ and p v over half the positions
    return float(sequences * tokens) * (2 * weights + attention)


def sweep_work(
    architecture: Architecture, checkpoints: int, sequences: int, tokens: int, dtype: str
) -> Work:
    """The last token of a sequence is only a label. Each checkpoint is written into memory once."""
    flops = checkpoints * forward_flops(architecture, sequences, tokens - 1)
    return Work(flops, checkpoints * architecture.parameters * ITEM_BYTES[dtype], dtype)
