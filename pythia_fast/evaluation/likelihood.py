"""How likely continuations are, given their contexts, all as token ids.

Requests that are the same but for their last token, as the answers A, B, C and D to a question are,
go through the model once. Sequences are sorted by length and cut into batches with little padding;
the vocabulary is multiplied for the scored positions only, which is half of a small model's work.
B sequences, T positions, N scored tokens, R requests.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.model import Model
from pythia_fast.model.model import NATIVE_PASS_TOKENS, PASS_TOKENS
from pythia_fast.runs.measure import ACTIVATION_BYTES

PADDING_SHARE = 0.125
"""What part of a batch may be padding, unless the batch is small."""

SMALL_BATCH = 1024
"""Tokens below which a batch is filled up whatever the padding."""

Pair = tuple[Sequence[int], Sequence[int]]
Advance = Callable[[int], None]


def continuations(
    model: Model,
    requests: Sequence[Pair],
    *,
    batch_tokens: int | Literal["auto"] = "auto",
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Of each (context, continuation): its log-likelihood in nats, and whether it is greedy.

    [R] float64, the sum of ln p over the continuation's tokens, and [R] bool, whether each of them
    is the arg max. The context has one token at least. What is longer than the model's
    max_positions + 1 loses tokens on its left. ArgumentError for a context or continuation without
    tokens, or a continuation longer than max_positions; TokenRangeError for an id that is not in
    the embedding.
    """
    return Continuations(requests, model.architecture.max_positions).of(
        model, batch_tokens=batch_tokens
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    """Sequences [B, T], padded with 0 behind, and what is scored in them, [N] each.

    `row` and `position` say whose logits, `target` of which id, `request` for whom.
    """

    ids_BT: torch.Tensor
    row_N: torch.Tensor
    position_N: torch.Tensor
    target_N: torch.Tensor
    request_N: npt.NDArray[np.int64]
    tokens: int

    def halves(self) -> tuple["_Batch", "_Batch"]:
        """The sequences before and behind the middle."""
        middle = len(self.ids_BT) // 2
        first_N = self.row_N < middle
        return self._cut(slice(0, middle), first_N), self._cut(slice(middle, None), ~first_N)

    def _cut(self, rows: slice, scored_N: torch.Tensor) -> "_Batch":
        ids_BT = self.ids_BT[rows]
        return _Batch(
            ids_BT,
            self.row_N[scored_N] - rows.start,
            self.position_N[scored_N],
            self.target_N[scored_N],
            self.request_N[scored_N.numpy()],
            self.tokens * len(ids_BT) // len(self.ids_BT),
        )


class Continuations:
    """Requests made ready once, for any number of checkpoints.

    Args:
        requests: (context, continuation) as ids.
        max_positions: the most that the model takes at once; the last token is only a label.
    """

    def __init__(self, requests: Sequence[Pair], max_positions: int) -> None:
        self.count = len(requests)
        self._inputs: list[tuple[int, ...]] = []
        self._asked: list[list[tuple[int, int, int]]] = []
        self._batches: dict[int, list[_Batch]] = {}
        known: dict[tuple[int, ...], int] = {}
        for number, (context, continuation) in enumerate(requests):
            _check(number, context, continuation, max_positions)
            whole = (*context, *continuation)[-max_positions - 1 :]
            index = known.setdefault(whole[:-1], len(known))
            if index == len(self._inputs):
                self._inputs.append(whole[:-1])
                self._asked.append([])
            self._asked[index].append((number, len(whole) - len(continuation) - 1, whole[-1]))

    @property
    def tokens(self) -> int:
        """How many tokens go through the model, padding aside."""
        return sum(map(len, self._inputs))

    def of(
        self,
        model: Model,
        *,
        batch_tokens: int | Literal["auto"] = "auto",
        advance: Advance | None = None,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """`continuations` of these requests; `advance` is told of tokens that are done."""
        likelihoods = np.zeros(self.count)
        greedy = np.ones(self.count, np.bool_)
        limit = _batch_tokens(model) if batch_tokens == "auto" else batch_tokens
        if limit not in self._batches:
            self._batches = {limit: list(self._cut(limit))}
        todo = self._batches[limit][::-1]
        while todo:
            batch = todo.pop()
            try:
                scores = model.score_at(batch.ids_BT, batch.row_N, batch.position_N, batch.target_N)
            except torch.OutOfMemoryError:
                if len(batch.ids_BT) < 2:
                    raise
                todo += batch.halves()[::-1]
            else:
                nll_N = scores.nll.double().numpy(force=True)
                best_N = scores.argmax.cpu() == batch.target_N
                np.subtract.at(likelihoods, batch.request_N, nll_N)
                np.logical_and.at(greedy, batch.request_N, best_N.numpy())
                if advance is not None:
                    advance(batch.tokens)
                continue
            torch.cuda.empty_cache()  # behind the except: until there the error holds the tensors
        return likelihoods, greedy

    def _cut(self, batch_tokens: int) -> Iterator[_Batch]:
        """Batches of at most so many tokens, padding included; the longest sequences first."""
        order = sorted(range(len(self._inputs)), key=lambda i: (-len(self._inputs[i]), i))
        chosen: list[int] = []
        held = 0
        for index in order:
            length = len(self._inputs[index])
            if chosen:
                area = (len(chosen) + 1) * len(self._inputs[chosen[0]])
                padding = area - held - length
                sparse = area > SMALL_BATCH and padding > PADDING_SHARE * area
                if area > batch_tokens or sparse:
                    yield self._batch(chosen)
                    chosen, held = [], 0
            chosen.append(index)
            held += length
        if chosen:
            yield self._batch(chosen)

    def _batch(self, chosen: Sequence[int]) -> _Batch:
        inputs = [self._inputs[index] for index in chosen]
        ids_BT = torch.zeros(len(chosen), len(inputs[0]), dtype=torch.int64)
        scored: list[tuple[int, int, int, int]] = []
        for row, (index, ids) in enumerate(zip(chosen, inputs, strict=True)):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            for request, start, last in self._asked[index]:
                targets = (*ids[start + 1 :], last)
                scored += (
                    (row, position, target, request)
                    for position, target in enumerate(targets, start)
                )
        row_N, position_N, target_N, request_N = torch.tensor(scored).T.contiguous()
        tokens = sum(map(len, inputs))
        return _Batch(ids_BT, row_N, position_N, target_N, request_N.numpy(), tokens)


def _check(
    number: int, context: Sequence[int], continuation: Sequence[int], max_positions: int
) -> None:
    if not len(context) or not len(continuation):
        empty = "continuation" if len(context) else "context"
        raise ArgumentError(
            f"request {number} has a {empty} without tokens; an empty context is written as the "
            "end-of-text token"
        )
    if len(continuation) > max_positions:
        raise ArgumentError(
            f"request {number} has a continuation of {len(continuation)} tokens, but the model "
            f"takes {max_positions}"
        )


def _batch_tokens(model: Model) -> int:
    """What the model computes in one go anyway; on a GPU, what its activations may take."""
    if model.device.type == "cpu":
        return PASS_TOKENS if model.native is None else NATIVE_PASS_TOKENS
    a = model.architecture
    token_bytes = (a.width + a.intermediate) * model.dtype.itemsize
    return max(ACTIVATION_BYTES // token_bytes, a.max_positions)
