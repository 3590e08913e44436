"""Norms and products of the suite, compiled only."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from pythia_fast.kernels import Gelu
from pythia_fast.kernels.gpu.linear import FEW, linear
from pythia_fast.kernels.gpu.norm import dual_layer_norm, layer_norm

WIDTHS = (128, 256, 512, 768, 2048, 2560, 5120)  # 1024 and 4096 are the kernels of 768 and 2560
ROWS = 2048


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def norms(width: int, dtype: torch.dtype) -> None:
    x_ND = empty(ROWS, width, dtype=dtype)
    ln = empty(width, dtype=dtype), empty(width, dtype=dtype)
    dual_layer_norm(x_ND, ln, ln, 1e-5, x_ND, x_ND)


def last_norm(width: int, dtype: torch.dtype) -> None:
    x_ND = empty(ROWS, width, dtype=dtype)
    layer_norm(x_ND, (empty(width, dtype=dtype), empty(width, dtype=dtype)), 1e-5, x_ND)


def product(rows: int, width: int, dtype: torch.dtype, kind: Literal["qkv", "out"] | Gelu) -> None:
    """`qkv`, mlp-in by its GELU, or `out`, in the buffers of a model of this width."""
    x_ND = empty(rows, width, dtype=dtype)
    branches_NX = empty(rows, 5 * width, dtype=dtype)
    if kind == "qkv":
        w_CD, b_C = empty(3 * width, width, dtype=dtype), empty(3 * width, dtype=dtype)
        linear(x_ND, w_CD, b_C, empty(rows, 3 * width, dtype=dtype))
    elif kind == "out":
        w_DX, b_D = empty(width, 5 * width, dtype=dtype), empty(width, dtype=dtype)
        linear(branches_NX, w_DX, b_D, x_ND, residual_NO=x_ND)
    else:
        w_FD, b_F = empty(4 * width, width, dtype=dtype), empty(4 * width, dtype=dtype)
        linear(x_ND, w_FD, b_F, branches_NX[:, width:], gelu=kind)


def logits(rows: int, vocabulary: int, dtype: torch.dtype) -> None:
    """No bias; rows of an odd vocabulary start where the copy engine cannot."""
    h_ND, w_VD = empty(rows, 2048, dtype=dtype), empty(vocabulary, 2048, dtype=dtype)
    linear(h_ND, w_VD, None, empty(rows, vocabulary, dtype=dtype))


CASES: dict[str, Callable[[], object]] = {}
for dtype in (torch.float16, torch.bfloat16):
    kind: Literal["qkv", "out"] | Gelu
    for rows in (FEW, ROWS):
        for kind in ("qkv", "none", "tanh", "out"):
            case = partial(product, rows, 2048, dtype, kind)
            CASES[f"linear {kind} of {rows} rows, {dtype}"] = case
        CASES[f"linear logits of {rows} rows, {dtype}"] = partial(logits, rows, 50304, dtype)
        CASES[f"linear by pointers of {rows} rows, {dtype}"] = partial(logits, rows, 50303, dtype)
    for width in WIDTHS:
        CASES[f"dual norm of {width}, {dtype}"] = partial(norms, width, dtype)
        CASES[f"norm of {width}, {dtype}"] = partial(last_norm, width, dtype)

NO_MATRIX = {"_norms": "it adds up rows"}
