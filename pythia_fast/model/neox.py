"""The forward pass of GPT-NeoX (arXiv:2204.06745, section 2), functional in its parameters.

B batch, T time, N = B·T tokens, D width, H heads, K head width, C = 3D, F feed-forward width,
V vocabulary rows. Everything here is differentiable in the parameters.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import embedding, gelu, linear

from pythia_fast.kernels import Gelu, tree
from pythia_fast.kernels.attention import attention
from pythia_fast.kernels.rotary import Rope, rope_tables
from pythia_fast.model.parameters import BlockWeights, Norm, Parameters
from pythia_fast.suite.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Shape:
    """What a block must know beside its weights: numbers of the architecture, and rotary tables."""

    heads: int
    epsilon: float
    parallel_residual: bool
    gelu: Gelu
    rope: Rope

    @classmethod
    def of(cls, architecture: Architecture, device: torch.device | str = "cpu") -> "Shape":
        """The constants of an architecture, with rotary tables for all its positions."""
        return cls(
            heads=architecture.heads,
            epsilon=architecture.layer_norm_eps,
            parallel_residual=architecture.parallel_residual,
            gelu="none" if architecture.activation == "gelu" else "tanh",
            rope=rope_tables(
                architecture.max_positions,
                architecture.rotary_dims,
                architecture.rotary_base,
                device,
            ),
        )


@dataclass(slots=True)
class Cache:
    """Keys and values of the positions before `length`: [layer, 2, B, H, positions, K]."""

    keys_values: torch.Tensor
    length: int = 0


@dataclass(frozen=True, slots=True)
class Branches:
    """Of rows that are trees: the rotary tables [B, T, R/2], and who sees whom, [B, 1, T, T]."""

    rope: Rope
    seen: torch.Tensor

    @classmethod
    def of(cls, end_BT: torch.Tensor, s: Shape) -> "Branches":
        """From up to where each token is seen: see `pythia_fast.kernels.tree`."""
        return cls(tree.rope_of(s.rope, end_BT), tree.sight(end_BT))


def block(
    x_BTD: torch.Tensor,
    w: BlockWeights,
    s: Shape,
    cache: torch.Tensor | None = None,
    start: int = 0,
    branches: Branches | None = None,
) -> torch.Tensor:
    """One block: x + attention(ln1(x)) + mlp(ln2(x)), the parallel residual.

    Or, sequentially, y + mlp(ln2(y)) with y = x + attention(ln1(x)).
    The parallel form's output weights are one [W_o | W_2]; on a CPU two products on its parts, the
    second adding to the first, take half the time of gathering [attention | gelu] for one. The
    residual comes last, since the sum of the branches is small and rounds finely.
    """
    rope = s.rope.at(start, x_BTD.shape[1]) if branches is None else branches.rope
    seen = None if branches is None else branches.seen
    qkv_BTC = linear(layer_norm(x_BTD, w.ln1, s.epsilon), w.qkv_CD, w.qkv_bias_C)
    attended_BTD = attention(qkv_BTC, s.heads, rope, cache=cache, start=start, seen=seen)
    if s.parallel_residual:
        branches_BTD = linear(attended_BTD, w.attention_out_DD, w.out_bias_D)
        return x_BTD + add_product(branches_BTD, mlp_hidden(x_BTD, w, s), w.mlp_out_DF)
    y_BTD = x_BTD + linear(attended_BTD, w.attention_out_DD, w.attention_out_bias_D)
    return y_BTD + linear(mlp_hidden(y_BTD, w, s), w.mlp_out_DF, w.mlp_out_bias_D)


def mlp_hidden(x_BTD: torch.Tensor, w: BlockWeights, s: Shape) -> torch.Tensor:
    """gelu(W_1 ln2(x) + b_1), [B, T, F]."""
    h_BTD = layer_norm(x_BTD, w.ln2, s.epsilon)
    return gelu(linear(h_BTD, w.mlp_in_FD, w.mlp_in_bias_F), approximate=s.gelu)


def layer_norm(x_BTD: torch.Tensor, norm: Norm, epsilon: float) -> torch.Tensor:
    """(x - mean) / sqrt(variance + epsilon) · weight + bias over the last dimension."""
    return torch.layer_norm(x_BTD, x_BTD.shape[-1:], norm.weight_D, norm.bias_D, epsilon)


def add_product(x_BTD: torch.Tensor, a_BTI: torch.Tensor, w_DI: torch.Tensor) -> torch.Tensor:
    """The sum x + a Wᵀ in one operation."""
    return torch.addmm(x_BTD.flatten(0, 1), a_BTI.flatten(0, 1), w_DI.T).view_as(x_BTD)


def hidden(
    ids_BT: torch.Tensor,
    w: Parameters,
    s: Shape,
    cache: Cache | None = None,
    end_BT: torch.Tensor | None = None,
) -> torch.Tensor:
    """Ids to the final LayerNorm's output, [B, T, D].

    With a cache, `ids_BT` continue the positions in it, and are added to it. Without one, rows may
    be trees of tokens, each seen up to `end_BT`: see `pythia_fast.kernels.tree`.
    """
    branches = None if end_BT is None else Branches.of(end_BT, s)
    x_BTD = embedding(ids_BT, w.embed_VD)
    start = 0 if cache is None else cache.length
    for layer, weights in enumerate(w.layers):
        of_layer = None if cache is None else cache.keys_values[layer]
        x_BTD = block(x_BTD, weights, s, of_layer, start, branches)
    if cache is not None:
        cache.length += ids_BT.shape[1]
    return layer_norm(x_BTD, w.final_norm, s.epsilon)


def logits(ids_BT: torch.Tensor, w: Parameters, s: Shape) -> torch.Tensor:
    """Ids to logits of the next token, [B, T, V]."""
    return linear(hidden(ids_BT, w, s), w.unembed_VD)
