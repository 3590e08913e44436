"""Each operation by its definition: slow, plain, and right in whatever dtype comes in.

Everything else in this package is tested against these functions in float64.
B batch, T time, N rows, D width, H heads, K head width, C = 3D, R rotated dimensions, V vocabulary.
"""

import math

import torch

from pythia_fast.kernels.rotary import Rope
from pythia_fast.kernels.scores import TokenScores


def layer_norm(
    x_ND: torch.Tensor, weight_D: torch.Tensor, bias_D: torch.Tensor, eps: float
) -> torch.Tensor:
    """(x - mean) / sqrt(var + eps) · weight + bias, with the biased variance (arXiv:1607.06450)."""
    centred_ND = x_ND - x_ND.mean(-1, keepdim=True)
    variance_N1 = centred_ND.square().mean(-1, keepdim=True)
    return centred_ND / torch.sqrt(variance_N1 + eps) * weight_D + bias_D


def rotate(x_BTHK: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Turn dimension i of the first R against i + R/2 by the position (arXiv:2104.09864)."""
    half = rope.cos_TP.shape[-1]
    cos_T1P = rope.cos_TP.to(x_BTHK.dtype)[..., None, :]
    sin_T1P = rope.sin_TP.to(x_BTHK.dtype)[..., None, :]
    first, second, rest = x_BTHK.tensor_split((half, 2 * half), dim=-1)
    return torch.cat(
        (first * cos_T1P - second * sin_T1P, second * cos_T1P + first * sin_T1P, rest), dim=-1
    )


def attention(
    qkv_BTC: torch.Tensor, heads: int, rope: Rope, seen: torch.Tensor | None = None
) -> torch.Tensor:
    """Causal softmax(q kᵀ / √K) v from the projection laid out [H, 3, K]; returns [B, T, D].

    `seen` [B, 1, T, T] says which keys a query sees instead.
    """
    B, T, C = qkv_BTC.shape
    K = C // (3 * heads)
    q_BTHK, k_BTHK, v_BTHK = qkv_BTC.view(B, T, heads, 3, K).unbind(3)
    q_BTHK, k_BTHK = rotate(q_BTHK, rope), rotate(k_BTHK, rope)
    scores_BHTT = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK) / math.sqrt(K)
    if seen is None:
        seen = torch.ones(T, T, dtype=torch.bool, device=qkv_BTC.device).tril()
    weights_BHTT = scores_BHTT.masked_fill(~seen, -math.inf).softmax(-1)
    return torch.einsum("bhts,bshk->bthk", weights_BHTT, v_BTHK).reshape(B, T, heads * K)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Gelu, x Φ(x), with the normal distribution's Φ by erf: what the published configs name."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """The tanh approximation of `gelu`, with which Pythia was trained (arXiv:1606.08415)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def linear_scores(h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor) -> TokenScores:
    """The scores of targets y under softmax(W h), with all logits in memory at once."""
    logits_NV = h_ND @ w_VD.T
    logsumexp_N = torch.logsumexp(logits_NV, -1)
    target_N = logits_NV.gather(1, y_N[:, None])[:, 0]
    best_N2 = logits_NV.topk(2, dim=-1).values
    return TokenScores(
        nll=logsumexp_N - target_N,
        logsumexp=logsumexp_N,
        target_logit=target_N,
        argmax=(logits_NV == best_N2[:, :1]).int().argmax(-1),
        margin=best_N2[:, 0] - best_N2[:, 1],
    )
