"""What every kernel on the qkv projection asks of its operands, before anything is launched.

B sequences, T time, H heads, K head width, C = 3HK, R rotated dimensions, P positions of a cache.
"""

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.gpu import HEAD_DIMS
from pythia_fast.kernels.rotary import Rope


def check_projection(
    qkv_BTC: torch.Tensor, heads: int, rope: Rope, out_BTD: torch.Tensor
) -> tuple[int, int, int]:
    """B, T and C of rows laid out [H, 3, K], or ArgumentError if the kernels don't take them."""
    B, T, C = qkv_BTC.shape
    K = C // (3 * heads)
    if 3 * heads * K != C or K not in HEAD_DIMS:
        raise ArgumentError(
            f"rows of {C} are not queries, keys and values of {heads} heads of width "
            f"{', '.join(map(str, sorted(HEAD_DIMS)))}"
        )
    if not qkv_BTC.is_contiguous() or qkv_BTC.data_ptr() % 16:
        raise ArgumentError("qkv is contiguous and lies at a multiple of 16 bytes")
    if 2 * rope.cos_TP.shape[-1] > K:
        raise ArgumentError(f"{2 * rope.cos_TP.shape[-1]} rotated dimensions of {K}")
    if out_BTD.shape[-1] != C // 3 or out_BTD.stride(-1) != 1 or out_BTD.dtype != qkv_BTC.dtype:
        raise ArgumentError(
            f"out has rows of {C // 3} {qkv_BTC.dtype} side by side: {out_BTD.dtype} "
            f"{tuple(out_BTD.shape)}, strides {out_BTD.stride()}"
        )
    return B, T, C


def check_rope(rope: Rope, B: int | None, T: int) -> None:
    """ArgumentError unless it holds T positions' tables: of all, or if B is given of each."""
    for table in (rope.cos_TP, rope.sin_TP):
        fits = table.shape[:-1] == (B, T) if table.dim() == 3 else table.shape[0] >= T
        if not fits or not table.is_contiguous() or table.dtype != torch.float32:
            raise ArgumentError(
                f"tables are [{T}, R/2]{f' or [{B}, {T}, R/2]' if B else ''} float32, contiguous: "
                f"{table.dtype} {tuple(table.shape)}, strides {table.stride()}"
            )


def check_cache(cache: torch.Tensor, qkv: torch.Tensor, heads: int) -> None:
    """ArgumentError unless it is [2, sequences, H, P, K], the last three without gaps."""
    K = qkv.shape[-1] // (3 * heads)
    P = cache.shape[3] if cache.dim() == 5 else 0
    if (
        cache.dim() != 5
        or cache.shape[::2] != (2, heads, K)
        or cache.stride()[2:] != (P * K, K, 1)
        or cache.dtype != qkv.dtype
    ):
        raise ArgumentError(
            f"a cache is [2, sequences, {heads}, positions, {K}] {qkv.dtype}: {cache.dtype} "
            f"{tuple(cache.shape)}, strides {cache.stride()}"
        )
