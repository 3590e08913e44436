"""What a model says of tokens: logits, losses and scores, by its kernels or by torch.

B batch, T time, N positions of several sequences, M those of one pass, D width, V vocabulary rows.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.nn.functional import linear

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.cross_entropy import linear_nll, linear_scores
from pythia_fast.kernels.panels import LANES
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model import neox
from pythia_fast.model.ids import checked_ends, target_count
from pythia_fast.model.passes import finish

if TYPE_CHECKING:
    from pythia_fast.model.model import Model


Result = TypeVar("Result")

PASS_TOKENS = 2048
"""Tokens that go through torch's operations at a time: activations that stay in a CPU's cache."""

NATIVE_PASS_TOKENS = 4096
"""Tokens that go through the native kernels at a time: enough for the weights to be read seldom.

What fills up a sequence's last panel counts, since it takes as much memory.
"""


def pass_tokens(model: "Model") -> int:
    """Tokens that go through the model at a time, as whole sequences, one at least."""
    if model.gpu is not None:
        return model.gpu.passes.tokens
    return PASS_TOKENS if model.native is None else NATIVE_PASS_TOKENS


def in_passes(
    model: "Model", ids_BT: torch.Tensor, work: Callable[[slice], Result]
) -> Iterator[tuple[slice, Result]]:
    """The work on slices of the batch that go through the blocks together, one after the other."""
    sequences = len(ids_BT)
    tokens = max(1, ids_BT.shape[1] - 1)  # the last is often only a label
    if model.gpu is not None:
        yield from model.gpu.in_passes(sequences, tokens, work)
        return
    if model.native is not None:
        tokens = -(-tokens // LANES) * LANES
    each = max(1, pass_tokens(model) // tokens)
    for first in range(0, sequences, each):
        rows = slice(first, min(sequences, first + each))
        yield rows, work(rows)


def logits(model: "Model", ids_BT: torch.Tensor) -> torch.Tensor:
    """See `Model.__call__`."""
    shape = *ids_BT.shape, model.architecture.vocab_rows
    out_BTV = torch.empty(shape, dtype=model.dtype, device=model.device)

    def work(rows: slice) -> None:
        if model.kernels is not None:
            model.kernels.logits_into(ids_BT[rows], model.weights, out_BTV[rows])
        else:
            out_BTV[rows] = linear(_hidden(model, ids_BT[rows]), model.weights.unembed_VD)

    finish(in_passes(model, ids_BT, work))
    return out_BTV


def nll(model: "Model", ids_BT: torch.Tensor) -> torch.Tensor:
    """See `Model.nll`."""
    shape = len(ids_BT), ids_BT.shape[1] - 1
    out_BT = torch.empty(shape, dtype=torch.float32, device=model.device)

    def work(rows: slice) -> torch.Tensor:
        ids, y_BT = ids_BT[rows, :-1], ids_BT[rows, 1:]
        if model.kernels is not None:
            return model.kernels.nll(ids, y_BT, model.weights)
        h_ND = _hidden(model, ids).flatten(0, 1)
        return linear_nll(h_ND, model.weights.unembed_VD, y_BT.flatten()).view(y_BT.shape)

    for rows, nll_BT in in_passes(model, ids_BT, work) if out_BT.numel() else ():
        out_BT[rows] = nll_BT
    return out_BT


def score(model: "Model", ids_BT: torch.Tensor, start: int) -> TokenScores:
    """See `Model.score`."""
    count = target_count(ids_BT, start)

    def work(rows: slice) -> TokenScores:
        ids, y_BT = ids_BT[rows, :-1], ids_BT[rows, 1:]
        if model.kernels is not None:
            found = model.kernels.scores(ids, y_BT, model.weights, start)
            return found.map(lambda x_BT: x_BT.reshape(-1))
        h_ND = _hidden(model, ids)[:, start:].flatten(0, 1)
        return linear_scores(h_ND, model.weights.unembed_VD, y_BT[:, start:].flatten())

    parts = [found for _, found in in_passes(model, ids_BT, work)] if count else []
    return TokenScores.joined(parts, (len(ids_BT), count), model.device)


def score_at(
    model: "Model",
    ids_BT: torch.Tensor,
    row_N: torch.Tensor,
    place_N: torch.Tensor,
    target_N: torch.Tensor,
    end_BT: torch.Tensor | None,
) -> TokenScores:
    """See `Model.score_at`."""
    B, T = ids_BT.shape
    if end_BT is not None:
        end_BT = checked_ends(end_BT, ids_BT, model.architecture.max_positions)
    chosen = [x_N.to(model.device) for x_N in (row_N, place_N, target_N)]
    for x_N, end in zip(chosen, (B, T, model.architecture.vocab_rows), strict=True):
        if not len(x_N) or bool(((x_N < 0) | (x_N >= end)).any()):
            raise ArgumentError(f"expected numbers from 0 to {end - 1}, got {x_N.tolist()}")
    row_N, place_N, target_N = chosen

    def work(rows: slice) -> tuple[torch.Tensor, TokenScores] | None:
        here_M = ((row_N >= rows.start) & (row_N < rows.stop)).nonzero()[:, 0]
        if not len(here_M):
            return None
        row_M, place_M = row_N[here_M] - rows.start, place_N[here_M]
        ends = None if end_BT is None else end_BT[rows]
        if model.kernels is not None:
            at = ids_BT[rows], row_M, place_M, target_N[here_M]
            return here_M, model.kernels.scores_at(*at, model.weights, ends)
        h_MD = _hidden(model, ids_BT[rows], ends)[row_M, place_M]
        return here_M, linear_scores(h_MD, model.weights.unembed_VD, target_N[here_M])

    found = [each for _, each in in_passes(model, ids_BT, work) if each is not None]
    back_N = torch.cat([here_M for here_M, _ in found]).argsort()
    return TokenScores.cat([scores for _, scores in found]).map(lambda x_N: x_N[back_N])


def _hidden(
    model: "Model", ids_BT: torch.Tensor, end_BT: torch.Tensor | None = None
) -> torch.Tensor:
    return neox.hidden(ids_BT, model.weights.views, model.shape, end_BT=end_BT)
