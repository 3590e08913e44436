"""Attention, causal or in a tree, straight from the qkv projection, by torch's fused kernel.

The projection's rows are laid out [H, 3, K], so queries, keys and values are strided views of it
and nothing is copied. torch's CPU and CUDA kernels keep scores and sums in float32 for half types,
which 14m needs: its q·k overflows float16.
B batch, T new positions, S all positions so far, H heads, K head width, C = 3HK, D = HK.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from pythia_fast.kernels.rotary import Rope, rotate_


def attention(
    qkv_BTC: torch.Tensor,
    heads: int,
    rope: Rope,
    *,
    cache: torch.Tensor | None = None,
    start: int = 0,
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(q kᵀ / sqrt(K)) v over positions up to the query's own; returns [B, T, D].

    Overwrites queries and keys in `qkv_BTC` with their rotation; `rope` holds the T positions'
    tables. With `cache` [2, B, H, positions, K], the new keys and values are stored at `start` and
    attention runs over positions 0 to start + T. `seen` [B, 1, T, T], of bool, says which keys a
    query sees instead, without a cache.
    """
    B, T, C = qkv_BTC.shape
    K = C // (3 * heads)
    rotate_(qkv_BTC, heads, rope)
    q_BHTK, k_BHSK, v_BHSK = qkv_BTC.view(B, T, heads, 3, K).permute(3, 0, 2, 1, 4).unbind(0)
    if cache is not None:
        S = start + T
        cache[0, :, :, start:S] = k_BHSK
        cache[1, :, :, start:S] = v_BHSK
        if start:
            k_BHSK, v_BHSK = cache[0, :, :, :S], cache[1, :, :, :S]
    if seen is not None:
        out_BHTK = scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=seen)
    elif start and T > 1:
        seen_TS = torch.ones(T, start + T, dtype=torch.bool, device=qkv_BTC.device).tril(start)
        out_BHTK = scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=seen_TS)
    else:
        out_BHTK = scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, is_causal=T > 1)
    return out_BHTK.transpose(1, 2).reshape(B, T, heads * K)
