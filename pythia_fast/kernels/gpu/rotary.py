"""Queries and keys turned where they lie in the qkv projection, and a cache filled beside.

Turning touches R of the K numbers of a head. Turning keys on their way to the tensor cores would
cost a detour through registers each time that a tile is read; turned once, they go straight there.
B sequences, T time, H heads, K head width, C = 3HK, R rotated dimensions, P positions of a cache.
"""

import torch
import triton
import triton.language as tl

from pythia_fast.kernels.gpu.launching import launch
from pythia_fast.kernels.rotary import Rope

TURNED = 4096
"""Numbers of a head in a program that turns keys; of twice as many ptxas spills on some chips."""


@triton.jit(
    do_not_specialize=["T", "heads", "positions", "rope_step"],
    do_not_specialize_on_alignment=["starts_B"],
)
def rotate_and_store(
    qkv_BTC, cos, sin, cache, starts_B, T, heads, C, rope_step, cache_part, cache_step, positions,
    K: tl.constexpr, HALF: tl.constexpr, HALF_PADDED: tl.constexpr, K_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Turn dimension i of the first R against i + R/2, in place; store keys and values if asked.

    In place is safe: what is stored is computed from both numbers of the pair, which no other pair
    needs.
    """
    blocks = tl.cdiv(T, ROWS)
    pair = tl.program_id(0) // heads
    h, block, b = tl.program_id(0) % heads, pair % blocks, (pair // blocks).to(tl.int64)
    begin, length = extent(starts_B, b, T)
    t_R1 = block * ROWS + tl.arange(0, ROWS)[:, None]
    here_R1 = t_R1 < length
    row_R1 = qkv_BTC + (begin + t_R1) * C + h * 3 * K
    into_R1 = b * cache_step + (h * positions + t_R1) * K
    if HALF:
        i_1P = tl.arange(0, HALF_PADDED)[None, :]
        pairs_RP = here_R1 & (i_1P < HALF)
        angle_RP = (b * rope_step + t_R1) * HALF + i_1P
        cos_RP = tl.load(cos + angle_RP, mask=pairs_RP, other=0.0)
        sin_RP = tl.load(sin + angle_RP, mask=pairs_RP, other=0.0)
        for part in tl.static_range(2):
            at_RP = row_R1 + part * K + i_1P
            first_RP = tl.load(at_RP, mask=pairs_RP, other=0.0)
            second_RP = tl.load(at_RP + HALF, mask=pairs_RP, other=0.0)
            x_RP, y_RP = first_RP.to(tl.float32), second_RP.to(tl.float32)
            first_RP = (x_RP * cos_RP - y_RP * sin_RP).to(first_RP.dtype)
            second_RP = (y_RP * cos_RP + x_RP * sin_RP).to(second_RP.dtype)
            tl.store(at_RP, first_RP, mask=pairs_RP)
            tl.store(at_RP + HALF, second_RP, mask=pairs_RP)
            if part == 1 and cache is not None:
                tl.store(cache + into_R1 + i_1P, first_RP, mask=pairs_RP)
                tl.store(cache + into_R1 + i_1P + HALF, second_RP, mask=pairs_RP)
    if cache is not None:
        k_1K = tl.arange(0, K_PADDED)[None, :]
        all_RK = here_R1 & (k_1K < K)
        rest_RK = all_RK & (k_1K >= 2 * HALF)
        tl.store(cache + into_R1 + k_1K, tl.load(row_R1 + K + k_1K, mask=rest_RK), mask=rest_RK)
        v_RK = tl.load(row_R1 + 2 * K + k_1K, mask=all_RK)
        tl.store(cache + into_R1 + cache_part + k_1K, v_RK, mask=all_RK)


@triton.jit
def extent(starts_B, b, T):
    """First row and number of rows of a sequence."""
    if starts_B is None:
        begin, length = b * T, T
    else:
        begin = tl.load(starts_B + b).to(tl.int64)
        length = (tl.load(starts_B + b + 1) - begin).to(tl.int32)
    return begin, length


def rotate_and_store_(
    qkv_BTC: torch.Tensor,
    heads: int,
    rope: Rope,
    cache: torch.Tensor | None,
    starts_B: torch.Tensor | None,
    B: int,
    T: int,
) -> None:
    """`pythia_fast.kernels.rotary.rotate_` of B sequences of T tokens at most, one at least.

    `starts` [B + 1] says where each begins if they lie one behind another. Keys and values go into
    the `cache` if there is one. Nothing is checked: whoever calls has (`arguments`).
    """
    C = qkv_BTC.shape[2]
    K, half = C // (3 * heads), rope.cos_TP.shape[-1]
    if not half and cache is None:
        return
    padded = triton.next_power_of_2(K)
    rows = TURNED // padded
    launch(
        rotate_and_store,
        (triton.cdiv(T, rows) * B * heads,),
        qkv_BTC.device,
        qkv_BTC, rope.cos_TP, rope.sin_TP, cache, starts_B, T, heads, C,
        T if rope.cos_TP.dim() == 3 else 0,
        0 if cache is None else cache.stride(0),
        0 if cache is None else cache.stride(1),
        0 if cache is None else cache.shape[3],
        K=K, HALF=half, HALF_PADDED=triton.next_power_of_2(half),
        K_PADDED=padded, ROWS=rows, num_warps=4,
    )  # fmt: skip
