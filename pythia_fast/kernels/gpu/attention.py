"""Rotary attention of whole sequences on a GPU, straight from the qkv projection.

Behind the kernel that turns queries and keys (`rotary`) comes causal attention by an online softmax
(arXiv:2205.14135, arXiv:2307.08691): a program has M queries of a head, and keys and values come
by in tiles, from the copy engine where the chip has one. Scores, maxima and sums are float32, which
14m needs: its q·k overflows float16.

Each sequence's numbers come from the same operations in the same order whatever lies beside it.
B sequences, T time, N tokens of all sequences, H heads, K head width, C = 3HK, D = HK, R rotated
dimensions, P positions of a cache; M queries and S keys of a tile; K = W + X, two tiles' columns:
80 = 64 + 16, since tiles are powers of two, and 256 = 128 + 128, which saves registers.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.gpu.arguments import check_cache, check_projection, check_rope
from pythia_fast.kernels.gpu.chips import chip_of, lookup
from pythia_fast.kernels.gpu.launching import launch
from pythia_fast.kernels.gpu.rotary import extent, rotate_and_store_
from pythia_fast.kernels.rotary import Rope


@dataclass(frozen=True, slots=True)
class Tiles:
    """M queries of a program, a multiple of the S keys of a tile; warps; tiles on their way."""

    M: int
    S: int
    warps: int
    stages: int


SMALL = {
    32: Tiles(128, 64, 4, 3),
    64: Tiles(128, 32, 4, 3),
    80: Tiles(64, 64, 4, 2),
    128: Tiles(128, 32, 8, 2),
    256: Tiles(64, 32, 8, 2),
}
"""For the chips with 99 KB of shared memory."""

CONFIGS = {
    (8, 0): {
        32: Tiles(128, 64, 4, 3),
        64: Tiles(128, 32, 4, 3),
        80: Tiles(64, 64, 4, 3),
        128: Tiles(128, 64, 8, 3),
        256: Tiles(64, 64, 8, 2),
    },
    (8, 6): SMALL,
    (9, 0): {
        32: Tiles(128, 64, 4, 3),
        64: Tiles(128, 64, 4, 3),
        80: Tiles(128, 64, 4, 3),
        128: Tiles(128, 64, 8, 3),
        256: Tiles(128, 64, 8, 2),
    },
    (10, 0): {
        32: Tiles(128, 64, 8, 3),
        64: Tiles(128, 64, 8, 3),
        80: Tiles(64, 64, 4, 3),
        128: Tiles(128, 64, 8, 3),
        256: Tiles(64, 64, 4, 2),
    },
    (12, 0): SMALL,
}
"""By capability and head width: the largest tiles that ptxas fits into registers in all variants.

None is measured. On Hopper 128 keys at a time spill, or ptxas gives up overlapping the products.
"""

NEAR_BYTES = 16 << 20
"""Keys and values of the heads whose programs run side by side: a part of the cache of any chip."""


@triton.jit(
    do_not_specialize=["T", "heads", "pairs", "group"],
    do_not_specialize_on_alignment=["end_BT", "starts_B"],
)
def attend(
    qkv_BTC, tiles, rest_tiles, out_BTD, end_BT, starts_B, T, heads, pairs, group, C, out_step,
    out_row, K: tl.constexpr, W: tl.constexpr, X: tl.constexpr, M: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Causal attention of M queries of a head.

    Of the heads in a group, whose keys and values stay near, the latest queries come first: they
    have most keys to see, and the shortest programs fill the gaps at the end.
    """
    blocks = tl.cdiv(T, M)
    leader = tl.program_id(0) // (group * blocks) * group
    place, size = tl.program_id(0) % (group * blocks), tl.minimum(group, pairs - leader)
    block, pair = blocks - 1 - place // size, leader + place % size
    b, h = (pair // heads).to(tl.int64), pair % heads
    begin, length = extent(starts_B, b, T)
    if block * M >= length:
        return
    t_M = block * M + tl.arange(0, M)
    row = qkv_BTC + begin * C + h * 3 * K
    # Queries beyond the end are the last one again, so that all have a key to see.
    known_M1 = tl.minimum(t_M, length - 1)[:, None]
    q_MW = tl.load(row + known_M1 * C + tl.arange(0, W)[None, :])
    q_MX = tl.load(row + known_M1 * C + W + tl.arange(0, X)[None, :]) if X else None
    peak_M = tl.full([M], -float("inf"), tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    acc_MW = tl.zeros([M, W], tl.float32)
    acc_MX = tl.zeros([M, X if X else 16], tl.float32)
    masked = 0
    if end_BT is None:
        masked = block * M
        for s in range(0, masked, S):
            peak_M, sum_M, acc_MW, acc_MX = _weigh(
                q_MW, q_MX, peak_M, sum_M, acc_MW, acc_MX, row, tiles, rest_tiles, None, starts_B,
                b, begin, h, s, t_M, length, C, K, W, X, S, False,
            )  # fmt: skip
    ends = end_BT + b * T if end_BT is not None else None
    for s in range(masked, tl.minimum(block * M + M, length), S):
        peak_M, sum_M, acc_MW, acc_MX = _weigh(
            q_MW, q_MX, peak_M, sum_M, acc_MW, acc_MX, row, tiles, rest_tiles, ends, starts_B,
            b, begin, h, s, t_M, length, C, K, W, X, S, True,
        )  # fmt: skip
    if starts_B is None:
        row_M1 = out_BTD + b * out_step + t_M[:, None] * out_row + h * K
    else:
        row_M1 = out_BTD + (begin + t_M[:, None]) * out_row + h * K
    here_M1, sum_M1 = t_M[:, None] < length, sum_M[:, None]
    dtype = out_BTD.dtype.element_ty
    tl.store(row_M1 + tl.arange(0, W)[None, :], (acc_MW / sum_M1).to(dtype), mask=here_M1)
    if X:
        tl.store(row_M1 + W + tl.arange(0, X)[None, :], (acc_MX / sum_M1).to(dtype), mask=here_M1)


@triton.jit
def _weigh(
    q_MW, q_MX, peak_M, sum_M, acc_MW, acc_MX, row, tiles, rest_tiles, ends, starts_B,
    b, begin, h, s, t_M, length, C, K: tl.constexpr, W: tl.constexpr, X: tl.constexpr,
    S: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Take the S keys from `s` on into the running softmax; in base 2, which the hardware has."""
    scale: tl.constexpr = 1.4426950408889634 / K**0.5
    s_S = s + tl.arange(0, S)
    k_SW = _tile(row, tiles, starts_B, b, begin, h, s, length, C, K, K, W, S, MASKED)
    score_MS = tl.dot(q_MW, k_SW.T, input_precision="ieee")
    if X:
        k_SX = _tile(row, rest_tiles, starts_B, b, begin, h, s, length, C, K, K + W, X, S, MASKED)
        score_MS = tl.dot(q_MX, k_SX.T, score_MS, input_precision="ieee")
    if MASKED:
        known_M = tl.minimum(t_M, length - 1)
        if ends is None:
            seen_MS = s_S[None, :] <= known_M[:, None]
        else:
            end_S = tl.load(ends + s_S, mask=s_S < length, other=0).to(tl.int32)
            # One comparison for s <= t < end: before the key, the difference wraps around.
            behind_MS = (known_M[:, None] - s_S[None, :]).to(tl.uint32)
            seen_MS = behind_MS < tl.maximum(end_S - s_S, 0).to(tl.uint32)[None, :]
        score_MS = tl.where(seen_MS, score_MS, -float("inf"))
    higher_M = tl.maximum(peak_M, tl.max(score_MS, 1) * scale)
    weight_MS = tl.exp2(score_MS * scale - higher_M[:, None])
    faded_M = tl.exp2(peak_M - higher_M)
    sum_M = sum_M * faded_M + tl.sum(weight_MS, 1)
    weight_MS = weight_MS.to(q_MW.dtype)
    v_SW = _tile(row, tiles, starts_B, b, begin, h, s, length, C, K, 2 * K, W, S, MASKED)
    acc_MW = tl.dot(weight_MS, v_SW, acc_MW * faded_M[:, None], input_precision="ieee")
    if X:
        v_SX = _tile(
            row, rest_tiles, starts_B, b, begin, h, s, length, C, K, 2 * K + W, X, S, MASKED
        )
        acc_MX = tl.dot(weight_MS, v_SX, acc_MX * faded_M[:, None], input_precision="ieee")
    return higher_M, sum_M, acc_MW, acc_MX


@triton.jit
def _tile(
    row, tiles, starts_B, b, begin, h, s, length, C, K: tl.constexpr, COLUMN: tl.constexpr,
    WIDTH: tl.constexpr, S: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """S rows of keys or values; values are zero behind the sequence, since 0 · NaN is NaN.

    The engine reads zeros behind the tensor, but there packed sequences have neighbours.
    """
    here_S1 = (s + tl.arange(0, S))[:, None] < length
    if tiles is None:
        at_SW = row + (s + tl.arange(0, S))[:, None] * C + COLUMN + tl.arange(0, WIDTH)[None, :]
        x_SW = tl.load(at_SW, mask=here_S1, other=0.0) if MASKED else tl.load(at_SW)
    elif starts_B is None:
        x_SW = tiles.load([b.to(tl.int32), s, h * 3 * K + COLUMN]).reshape(S, WIDTH)
    else:
        x_SW = tiles.load([0, begin.to(tl.int32) + s, h * 3 * K + COLUMN]).reshape(S, WIDTH)
        if MASKED and COLUMN >= 2 * K:
            x_SW = tl.where(here_S1, x_SW, 0.0)
    return x_SW


def rotary_attention(
    qkv_BTC: torch.Tensor,
    heads: int,
    rope: Rope,
    out_BTD: torch.Tensor,
    *,
    cache: torch.Tensor | None = None,
    end_BT: torch.Tensor | None = None,
) -> None:
    """softmax(q kᵀ / √K) v over positions up to the query's own, into `out`; its rows may be apart.

    Overwrites queries and keys in `qkv_BTC` with their rotation; `rope` holds tables [T, R/2], or
    [B, T, R/2]. With `cache` [2, B, H, P, K], keys and values are stored at positions 0 to T. With
    `end_BT` rows are trees (`pythia_fast.kernels.tree`): key s is seen by queries s to its end,
    the first by all. A value that is not finite stays in its sequence, but may reach queries before
    it that share its tile. ArgumentError if a shape, stride or dtype is not as told.
    """
    B, T, _ = check_projection(qkv_BTC, heads, rope, out_BTD)
    if out_BTD.shape[:2] != (B, T):
        raise ArgumentError(f"out is [{B}, {T}, D], not {tuple(out_BTD.shape)}")
    if end_BT is not None and (end_BT.shape != (B, T) or not end_BT.is_contiguous()):
        raise ArgumentError(f"ends are [{B}, {T}], not {tuple(end_BT.shape)}")
    check_rope(rope, B, T)
    if cache is not None:
        check_cache(cache, qkv_BTC, heads)
        if cache.shape[1] != B or cache.shape[3] < T:
            raise ArgumentError(
                f"{B} sequences of {T} tokens do not fit a cache [2, sequences, heads, positions, "
                f"head width] of {tuple(cache.shape)}"
            )
    _run(qkv_BTC, heads, rope, out_BTD, cache, end_BT, None, B, T)


def rotary_attention_packed(
    qkv_NC: torch.Tensor,
    heads: int,
    rope: Rope,
    starts_B: torch.Tensor,
    longest: int,
    out_ND: torch.Tensor,
) -> None:
    """`rotary_attention` of sequences that lie one behind another, from `starts[b]` to the next.

    `starts` is [B + 1] int32 on the device, and not looked at here: it rises from 0 to N, by
    `longest` at most. `rope` holds the tables of positions 0 to `longest` at least.
    """
    check_projection(qkv_NC[None], heads, rope, out_ND[None])
    if len(out_ND) != len(qkv_NC):
        raise ArgumentError(f"out has {len(out_ND)} rows for {len(qkv_NC)} of qkv")
    if starts_B.dtype != torch.int32 or starts_B.dim() != 1 or not starts_B.is_contiguous():
        raise ArgumentError(f"starts are [B + 1] int32: {starts_B.dtype} {tuple(starts_B.shape)}")
    check_rope(rope, None, longest)
    B = len(starts_B) - 1
    if B and longest:
        _run(qkv_NC[None], heads, rope, out_ND[None], None, None, starts_B, B, longest)


def _run(
    qkv_BTC: torch.Tensor,
    heads: int,
    rope: Rope,
    out_BTD: torch.Tensor,
    cache: torch.Tensor | None,
    end_BT: torch.Tensor | None,
    starts_B: torch.Tensor | None,
    B: int,
    T: int,
) -> None:
    C, device = qkv_BTC.shape[2], qkv_BTC.device
    K = C // (3 * heads)
    if not B * T:
        return
    rotate_and_store_(qkv_BTC, heads, rope, cache, starts_B, B, T)
    chip = chip_of(device)
    config = lookup(CONFIGS, chip)[K]
    W = min(1 << (K.bit_length() - 1), 128)
    by_engine = chip.copies_tiles
    near = NEAR_BYTES // (T * 2 * K * qkv_BTC.element_size())
    launch(
        attend,
        (triton.cdiv(T, config.M) * B * heads,),
        device,
        qkv_BTC,
        _tiles_of(qkv_BTC, config.S, W) if by_engine else None,
        _tiles_of(qkv_BTC, config.S, K - W) if by_engine and K > W else None,
        out_BTD, end_BT, starts_B, T, heads, B * heads, min(max(near, 1), B * heads), C,
        out_BTD.stride(0), out_BTD.stride(1),
        K=K, W=W, X=K - W, M=config.M, S=config.S, num_warps=config.warps,
        # Ends take registers: with two accumulators and three stages, triton 3.6 spills on Hopper.
        num_stages=config.stages if end_BT is None or K == W else 2,
    )  # fmt: skip


def _tiles_of(qkv_BTC: torch.Tensor, rows: int, width: int) -> Any:
    """What the copy engine must know; rows behind a sequence read as zeros."""
    shape, strides = list(qkv_BTC.shape), list(qkv_BTC.stride())
    return TensorDescriptor(qkv_BTC, shape, strides, [1, rows, width])
