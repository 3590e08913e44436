"""Attention of one token of each sequence against a cache of keys and values.

Reading the cache is all the work. A program has a head of a sequence and at most `CHUNK` positions;
a second kernel joins the chunks' softmaxes in their order. The chunks do not depend on how many
sequences there are, and so neither do a sequence's bits. The position is read on the device, so
that one CUDA graph serves every step: programs of chunks behind it return at once.
B sequences, H heads, K head width, C = 3HK, D = HK, R rotated dimensions, P positions of the cache,
S keys at a time.
"""

import torch
import triton
import triton.language as tl

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.gpu.arguments import check_cache, check_projection, check_rope
from pythia_fast.kernels.gpu.launching import launch
from pythia_fast.kernels.rotary import Rope

CHUNK = 256
"""Positions of a program: 8 for 2048, so that one sequence of 16 heads fills a chip nearly."""

TILE = 8192
"""Numbers of keys that a program of `WARPS` warps has in registers at a time; not measured."""

MOST_KEYS = 128
"""At a time: of twice as many, 32 wide, ptxas spills on some chips by triton 3.6."""

WARPS = 4


@triton.jit(
    do_not_specialize=["heads", "positions"],
    do_not_specialize_on_alignment=["slot_B", "position_1"],
)
def attend_once(
    qkv_BC, cos, sin, cache, slot_B, position_1, out_BD, parts, heads, positions, C, cache_part,
    cache_step, out_row, K: tl.constexpr, K_PADDED: tl.constexpr, HALF: tl.constexpr,
    S: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """One head's query against one chunk of positions; the last chunk's program brings the new key.

    With one chunk the result goes to `out`, else peak, sum and weighted values to `parts`.
    """
    b, h, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    position = tl.load(position_1)
    first = chunk * CHUNK
    if first > position:
        return
    k_K = tl.arange(0, K_PADDED)
    here_K = k_K < K
    row = qkv_BC + b * C + h * 3 * K
    q_K = _turned(row, cos, sin, position, K, K_PADDED, HALF)
    keys = cache + tl.load(slot_B + b).to(tl.int64) * cache_step + h.to(tl.int64) * positions * K
    values = keys + cache_part
    scale: tl.constexpr = 1.4426950408889634 / K**0.5
    peak = -float("inf")
    total = 0.0
    acc_K = tl.zeros([K_PADDED], tl.float32)
    if position < first + CHUNK:
        new_K = _turned(row + K, cos, sin, position, K, K_PADDED, HALF)
        v_K = tl.load(row + 2 * K + k_K, mask=here_K, other=0.0)
        tl.store(keys + position * K + k_K, new_K, mask=here_K)
        tl.store(values + position * K + k_K, v_K, mask=here_K)
        peak = tl.sum(q_K.to(tl.float32) * new_K.to(tl.float32), 0) * scale
        total = 1.0
        acc_K = v_K.to(tl.float32)
    for s in range(first, tl.minimum(position, first + CHUNK), S):
        s_S = s + tl.arange(0, S)
        stored_S1 = (s_S < position)[:, None]
        at_SK = s_S[:, None] * K + k_K[None, :]
        # Behind the position lies what another sequence left there: 0 · NaN would be NaN.
        k_SK = tl.load(keys + at_SK, mask=stored_S1 & here_K[None, :], other=0.0)
        v_SK = tl.load(values + at_SK, mask=stored_S1 & here_K[None, :], other=0.0)
        score_S = tl.sum(q_K.to(tl.float32)[None, :] * k_SK.to(tl.float32), 1) * scale
        score_S = tl.where(s_S < position, score_S, -float("inf"))
        higher = tl.maximum(peak, tl.max(score_S, 0))
        faded, weight_S = tl.exp2(peak - higher), tl.exp2(score_S - higher)
        total = total * faded + tl.sum(weight_S, 0)
        acc_K = acc_K * faded + tl.sum(weight_S[:, None] * v_SK.to(tl.float32), 0)
        peak = higher
    if CHUNKS == 1:
        out_K = (acc_K / total).to(out_BD.dtype.element_ty)
        tl.store(out_BD + b * out_row + h * K + k_K, out_K, mask=here_K)
    else:
        part = parts + ((b * heads + h) * CHUNKS + chunk) * (K_PADDED + 2)
        tl.store(part + k_K, acc_K)
        tl.store(part + K_PADDED, peak)
        tl.store(part + K_PADDED + 1, total)


@triton.jit(do_not_specialize=["heads"], do_not_specialize_on_alignment=["position_1"])
def join_chunks(
    parts, position_1, out_BD, heads, out_row, K: tl.constexpr, K_PADDED: tl.constexpr,
    CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """The softmax of all chunks up to the position, the first one first."""
    b, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    k_K = tl.arange(0, K_PADDED)
    part = parts + (b * heads + h) * CHUNKS * (K_PADDED + 2)
    peak = -float("inf")
    total = 0.0
    acc_K = tl.zeros([K_PADDED], tl.float32)
    for _ in range(tl.load(position_1) // CHUNK + 1):
        chunk_peak = tl.load(part + K_PADDED)
        higher = tl.maximum(peak, chunk_peak)
        faded, share = tl.exp2(peak - higher), tl.exp2(chunk_peak - higher)
        total = total * faded + tl.load(part + K_PADDED + 1) * share
        acc_K = acc_K * faded + tl.load(part + k_K) * share
        peak = higher
        part += K_PADDED + 2
    out_K = (acc_K / total).to(out_BD.dtype.element_ty)
    tl.store(out_BD + b * out_row + h * K + k_K, out_K, mask=k_K < K)


@triton.jit
def _turned(
    row, cos, sin, position, K: tl.constexpr, K_PADDED: tl.constexpr, HALF: tl.constexpr
):  # fmt: skip
    """A query or key turned by its position, rounded as the cache has it."""
    k_K = tl.arange(0, K_PADDED)
    x_K = tl.load(row + k_K, mask=k_K < K, other=0.0)
    if HALF:
        turned_K, is_first_K = k_K < 2 * HALF, k_K < HALF
        pair_K = tl.where(is_first_K, k_K, k_K - HALF)
        partner_K = tl.where(is_first_K, k_K + HALF, pair_K)
        y_K = tl.load(row + partner_K, mask=turned_K, other=0.0).to(tl.float32)
        cos_K = tl.load(cos + position * HALF + pair_K, mask=turned_K, other=1.0)
        sin_K = tl.load(sin + position * HALF + pair_K, mask=turned_K, other=0.0)
        sin_K = tl.where(is_first_K, -sin_K, sin_K)
        x_K = (x_K.to(tl.float32) * cos_K + y_K * sin_K).to(x_K.dtype)
    return x_K


def decode_attention(
    qkv_BC: torch.Tensor,
    heads: int,
    rope: Rope,
    cache: torch.Tensor,
    slot_B: torch.Tensor,
    position: torch.Tensor,
    out_BD: torch.Tensor,
) -> None:
    """Store the tokens' keys and values, and attend over positions 0 to `position`, into `out`.

    `cache` is [2, slots, H, P, K]; sequence b has the slot `slot_B[b]`, int32, its own. `position`
    is [1] int32 and lies below P: it and the slots are on the device and not looked at here. `rope`
    holds the tables [P, R/2] of all positions. `qkv` stays as it is. ArgumentError if a shape,
    stride or dtype is not as told.
    """
    B, _, C = check_projection(qkv_BC[:, None], heads, rope, out_BD[:, None])
    K, half, device = C // (3 * heads), rope.cos_TP.shape[-1], qkv_BC.device
    check_cache(cache, qkv_BC, heads)
    P = cache.shape[3]
    check_rope(rope, None, P)
    if len(out_BD) != B or slot_B.shape != (B,) or position.shape != (1,):
        raise ArgumentError(
            f"{B} sequences have rows of out and slots, and one position: {tuple(out_BD.shape)}, "
            f"{tuple(slot_B.shape)}, {tuple(position.shape)}"
        )
    if not slot_B.dtype == position.dtype == torch.int32 or not slot_B.is_contiguous():
        raise ArgumentError(f"slots and position are int32: {slot_B.dtype}, {position.dtype}")
    if not B:
        return
    padded, chunks = triton.next_power_of_2(K), triton.cdiv(P, CHUNK)
    parts = None
    if chunks > 1:
        parts = qkv_BC.new_empty(B, heads, chunks, padded + 2, dtype=torch.float32)
    launch(
        attend_once,
        (B, heads, chunks),
        device,
        qkv_BC, rope.cos_TP, rope.sin_TP, cache, slot_B, position, out_BD, parts, heads, P, C,
        cache.stride(0), cache.stride(1), out_BD.stride(0),
        K=K, K_PADDED=padded, HALF=half, S=min(TILE // padded, MOST_KEYS), CHUNK=CHUNK,
        CHUNKS=chunks, num_warps=WARPS,
    )  # fmt: skip
    if chunks > 1:
        launch(
            join_chunks,
            (B, heads),
            device,
            parts, position, out_BD, heads, out_BD.stride(0),
            K=K, K_PADDED=padded, CHUNK=CHUNK, CHUNKS=chunks, num_warps=1,
        )  # fmt: skip
