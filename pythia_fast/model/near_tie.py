"""How close two logits must be for rounding to have decided between them.

A logit is u · h, h = z ∘ g + b the final LayerNorm's output. Rounding gives z a relative error of
about eps · √(L + 1) in a direction of its own, so the logit of vocabulary row v errs by about one
unit, eps · √(L + 1) · |u_v ∘ g|. The bound is so many units of the largest row: a measured rule,
not a proof. tests/model/test_near_tie.py checks it.

By the native kernels, with weights from files in float16, the lead of the best logit over the
second was wrong by at most 4.9 units in bfloat16 and 3.2 in split-bf16, and no arg max was wrong at
a margin above 2.6 and 0.5 units: 230,400 positions of 18 trained models (texts by heart, and a
Markov chain) and 417,792 of 44 random ones (1 to 18 layers; flat, sharp, uneven), both of widths 64
to 512. So the bound is 2.4 times the largest error of a lead.
Torch's half types round each product's result, up to 10 units; in float32 the roundings inside a
product count, and grow with the width, up to 38 units.

The rule has a limit. Where random projections make attention's logits so large (deviation 6) that
each head looks at one token, each block multiplies the errors: 10 units behind one block, 56 and
more behind six. No trained model did that.
L layers, D width, V vocabulary rows.
"""

import math

import torch

from pythia_fast.kernels.cpu import Arithmetic, has_amx
from pythia_fast.model.apart import apart
from pythia_fast.model.exact import Referee
from pythia_fast.model.weights import Weights
from pythia_fast.series.checkpoint import Checkpoint

TORCH_UNITS = {torch.float32: 256.0, torch.bfloat16: 16.0, torch.float16: 16.0}
"""Where torch computes, and in float32 by whom ever."""

NATIVE_UNITS = 12.0
"""Where the native kernels compute, on weights of a half type or in another than float32."""

SPLIT_EPSILON = 2.0**-16
"""What a product of numbers that are sums of two bfloat16 leaves out of a term."""

ROWS = 512
"""Rows of the unembedding whose norms are taken together, in a core's L2."""


def relative_error(dtype: torch.dtype, arithmetic: Arithmetic | None) -> float:
    """The bound for one layer and rows of norm 1: that of the coarser of weights and arithmetic.

    `arithmetic` is None where torch computes.
    """
    half = dtype != torch.float32 and arithmetic is not None
    error = (NATIVE_UNITS if half else TORCH_UNITS[dtype]) * torch.finfo(dtype).eps
    if arithmetic == "bfloat16":
        return max(error, NATIVE_UNITS * torch.finfo(torch.bfloat16).eps)
    if arithmetic == "split-bf16":
        return max(error, NATIVE_UNITS * SPLIT_EPSILON)
    return error


@apart
def largest_logit_scale(weights: Weights) -> float:
    """The largest |u_v ∘ g|: a logit's deviation if the normalised residual were white noise."""
    squares_D = weights.final_norm.weight_D.float().square()
    buffer_RD = torch.empty(ROWS, len(squares_D), dtype=torch.float32, device=weights.device)
    largest = squares_D.new_zeros(())
    for slice_RD in torch.split(weights.unembed_VD, ROWS):
        rows_RD = buffer_RD[: len(slice_RD)].copy_(slice_RD)
        largest = torch.maximum(largest, (rows_RD.square_() @ squares_D).max())
    return math.sqrt(float(largest))


class TieMargins:
    """The bound in logits, whose part that takes reading the unembedding is kept for a step."""

    def __init__(self) -> None:
        self._scale: tuple[Weights, int, float] | None = None

    def margin(self, weights: Weights, dtype: torch.dtype, arithmetic: Arithmetic | None) -> float:
        """The margin at or under which an arg max is a near tie.

        `dtype` may be another than that of the weights: rows differ by their rounding only.
        """
        known = self._scale
        if known is None or known[0] is not weights or known[1] != weights.generation:
            known = (weights, weights.generation, largest_logit_scale(weights))
            self._scale = known
        roundings = math.sqrt(weights.architecture.layers + 1)
        return relative_error(dtype, arithmetic) * roundings * known[2]


def decide(
    referee: Referee,
    ties: TieMargins,
    ids_BT: torch.Tensor,
    start: int,
    weights: Weights,
    checkpoint: Checkpoint | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `Model.decide`."""
    of_checkpoint = start, weights, checkpoint
    if weights.dtype == torch.float32 or not (referee.is_native and has_amx()):
        scores = referee.scores(ids_BT, *of_checkpoint)
        return scores.argmax, scores.margin
    scores = referee.scores(ids_BT, *of_checkpoint, arithmetic="split-bf16")
    clear_BT = scores.margin > ties.margin(weights, torch.float32, "split-bf16")
    near_B = ~clear_BT.all(1)  # a NaN is not clear either
    if bool(near_B.any()):
        nearest = referee.scores(ids_BT[near_B], *of_checkpoint)
        scores.argmax[near_B], scores.margin[near_B] = nearest.argmax, nearest.margin
    return scores.argmax, scores.margin
