"""Attention of whole sequences and of one token after another, in the shapes of Pythia's models."""

from collections.abc import Callable
from functools import partial

import torch

from pythia_fast.kernels.gpu.attention import rotary_attention, rotary_attention_packed
from pythia_fast.kernels.gpu.decode import decode_attention
from pythia_fast.kernels.rotary import Rope

HEADS = {32: 8, 64: 16, 80: 32, 128: 40, 256: 8}
"""Of 31m, 410m, 2.8b, 12b and 1b, by head width."""

B, T = 2, 2048


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def tables(K: int, *shape: int) -> Rope:
    return Rope(meta(*shape, K // 8), meta(*shape, K // 8))


def out_beside_gelu(K: int, dtype: torch.dtype) -> torch.Tensor:
    D = HEADS[K] * K
    return meta(B, T, 5 * D, dtype=dtype)[:, :, :D]


def causal(K: int, dtype: torch.dtype) -> None:
    qkv_BTC = meta(B, T, 3 * HEADS[K] * K, dtype=dtype)
    rotary_attention(qkv_BTC, HEADS[K], tables(K, T), out_beside_gelu(K, dtype))


def prompts(K: int, dtype: torch.dtype) -> None:
    qkv_BTC = meta(B, T, 3 * HEADS[K] * K, dtype=dtype)
    cache = meta(2, B, HEADS[K], T, K, dtype=dtype)
    rotary_attention(qkv_BTC, HEADS[K], tables(K, T), out_beside_gelu(K, dtype), cache=cache)


def trees(K: int, dtype: torch.dtype) -> None:
    qkv_BTC = meta(B, T, 3 * HEADS[K] * K, dtype=dtype)
    end_BT = meta(B, T, dtype=torch.int64)
    rotary_attention(qkv_BTC, HEADS[K], tables(K, B, T), out_beside_gelu(K, dtype), end_BT=end_BT)


def packed(K: int, dtype: torch.dtype) -> None:
    D = HEADS[K] * K
    qkv_NC, out_ND = meta(B * T, 3 * D, dtype=dtype), meta(B * T, 5 * D, dtype=dtype)[:, :D]
    starts_B = meta(B + 3, dtype=torch.int32)
    rotary_attention_packed(qkv_NC, HEADS[K], tables(K, T), starts_B, T, out_ND)


def decoding(K: int, dtype: torch.dtype, positions: int = T) -> None:
    D, slots = HEADS[K] * K, 4
    qkv_BC, out_BD = meta(B, 3 * D, dtype=dtype), meta(B, 5 * D, dtype=dtype)[:, :D]
    cache = meta(2, slots, HEADS[K], positions, K, dtype=dtype)
    slot_B, position = meta(B, dtype=torch.int32), meta(1, dtype=torch.int32)
    decode_attention(qkv_BC, HEADS[K], tables(K, positions), cache, slot_B, position, out_BD)


def decoding_briefly(K: int, dtype: torch.dtype) -> None:
    """In one chunk."""
    decoding(K, dtype, positions=64)


HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}

CASES: dict[str, Callable[[], object]] = {
    f"attention/{kind.__name__}/{K}/{dtype}": partial(kind, K, HALF[dtype])
    for kind in (causal, prompts, trees, packed, decoding, decoding_briefly)
    for dtype in HALF
    for K in HEADS
}

NO_MATRIX = {
    "rotate_and_store": "it turns pairs of numbers",
    "attend_once": "a single query waits for memory",
    "join_chunks": "it adds up a few rows",
}
