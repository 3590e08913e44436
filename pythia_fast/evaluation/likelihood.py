"""How likely continuations are, given their contexts, all as token ids.

What requests share goes through the model once: the context of a question's answers, the examples
before many questions, the beginning of a pair of sentences. Sorted, sequences with a common
beginning are neighbours, and a run of them is laid out in one row as a tree of tokens (see
`pythia_fast.kernels.tree`): each adds what it does not share with the one before. A sequence joins
a row where that pays, and a row that gets too long begins anew with all that its sequences share.

Rows are sorted by length and cut into batches with little padding; the vocabulary is multiplied
once for each token that is asked for in a place, which is half of a small model's work.
B rows, T places in a row, N scored tokens, M times that one is asked for, R requests.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.model import Model
from pythia_fast.model.scoring import pass_tokens
from pythia_fast.runs.measure import ACTIVATION_BYTES

PADDING_SHARE = 0.125
"""What part of a batch may be padding, unless the batch is small."""

SMALL_BATCH = 1024
"""Tokens below which a batch is filled up whatever the padding."""

SHARED_PART = 0.25
"""What part of a sequence a row must have already for the sequence to join it."""

SHORT_ROW = 256
"""Tokens that any row may have. A longer one has twice those of its longest sequence at most, since
attention's work, by torch, is that of the row's length."""

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
    """Rows [B, T], padded with 0 behind, and what is scored in them, [N] each.

    `end` says up to where each token is seen, None if each row is one sequence. `row` and `place`
    say whose logits, `target` of which id; `scored` and `request`, [M] each, who asks for which.
    """

    ids_BT: torch.Tensor
    end_BT: torch.Tensor | None
    row_N: torch.Tensor
    place_N: torch.Tensor
    target_N: torch.Tensor
    scored_M: npt.NDArray[np.int64]
    request_M: npt.NDArray[np.int64]
    tokens: int

    def halves(self) -> tuple["_Batch", "_Batch"]:
        """The rows before and behind the middle."""
        middle = len(self.ids_BT) // 2
        first_N = self.row_N < middle
        return self._cut(slice(0, middle), first_N), self._cut(slice(middle, None), ~first_N)

    def _cut(self, rows: slice, kept_N: torch.Tensor) -> "_Batch":
        ids_BT = self.ids_BT[rows]
        number_N = kept_N.numpy().cumsum() - 1
        kept_M = kept_N.numpy()[self.scored_M]
        return _Batch(
            ids_BT,
            None if self.end_BT is None else self.end_BT[rows],
            self.row_N[kept_N] - rows.start,
            self.place_N[kept_N],
            self.target_N[kept_N],
            number_N[self.scored_M[kept_M]],
            self.request_M[kept_M],
            self.tokens * len(ids_BT) // len(self.ids_BT),
        )


class _Row:
    """Sequences in one row, each with a beginning in common with the one before, depth first."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.ends: list[int] = []
        self.sequences: list[tuple[int, list[int]]] = []
        """Their numbers, and where their tokens lie."""
        self.longest = 0

    def add(self, number: int, ids: tuple[int, ...], shared: int) -> None:
        """One sequence more, whose first `shared` tokens are those of the last."""
        places = self.sequences[-1][1] if self.sequences else []
        for place in places[shared:]:
            self.ends[place] = len(self.ids)
        added = range(len(self.ids), len(self.ids) + len(ids) - shared)
        self.sequences.append((number, [*places[:shared], *added]))
        self.ids += ids[shared:]
        self.ends += [-1] * len(added)
        self.longest = max(self.longest, len(ids))

    def ends_within(self, length: int) -> list[int]:
        """Up to where each token is seen in a row of `length`.

        Nobody sees the padding, which itself sees the first token only: with the last sequence
        before it, it would have a position beyond the last.
        """
        own = len(self.ids)
        seen = [own if end < 0 else end for end in self.ends]
        return [length, *seen[1:], *range(own + 1, length + 1)]


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
        self._order = sorted(range(len(self._inputs)), key=self._inputs.__getitem__)
        self._shared = [0] * len(self._inputs)
        for before, index in pairwise(self._order):
            self._shared[index] = _common(self._inputs[before], self._inputs[index])
        self._added = self._tokens_added()

    @property
    def tokens(self) -> int:
        """How many tokens go through the model, padding aside, if batches have room for rows."""
        return sum(self._added)

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
                scores = model.score_at(
                    batch.ids_BT, batch.row_N, batch.place_N, batch.target_N, batch.end_BT
                )
            except torch.OutOfMemoryError:
                if len(batch.ids_BT) < 2:
                    raise
                todo += batch.halves()[::-1]
            else:
                nll_N = scores.nll.double().numpy(force=True)
                best_N = (scores.argmax.cpu() == batch.target_N).numpy()
                np.subtract.at(likelihoods, batch.request_M, nll_N[batch.scored_M])
                np.logical_and.at(greedy, batch.request_M, best_N[batch.scored_M])
                if advance is not None:
                    advance(batch.tokens)
                continue
            torch.cuda.empty_cache()  # behind the except: until there the error holds the tensors
        return likelihoods, greedy

    def _runs(self, most: int) -> Iterator[list[int]]:
        """The sequences of each row, of at most so many tokens if it has more than one."""
        run: list[int] = []
        held = longest = 0
        for index in self._order:
            length, shared = len(self._inputs[index]), self._shared[index]
            room = min(most, max(SHORT_ROW, 2 * max(longest, length)))
            if not run or shared < SHARED_PART * length or held + length - shared > room:
                if run:
                    yield run
                run, held, longest, shared = [], 0, 0, 0
            run.append(index)
            held += length - shared
            longest = max(longest, length)
        if run:
            yield run

    def _tokens_added(self) -> list[int]:
        """How many tokens each sequence adds to its row, where rows are as long as they may be."""
        added = [len(ids) - shared for ids, shared in zip(self._inputs, self._shared, strict=True)]
        for first, *_ in self._runs(sys.maxsize):
            added[first] = len(self._inputs[first])
        return added

    def _rows(self, most: int) -> Iterator[_Row]:
        for run in self._runs(most):
            row = _Row()
            for index in run:
                row.add(index, self._inputs[index], self._shared[index] if row.ids else 0)
            yield row

    def _cut(self, batch_tokens: int) -> Iterator[_Batch]:
        """Batches of at most so many tokens, padding included; the longest rows first."""
        chosen: list[_Row] = []
        held = 0
        for row in sorted(self._rows(batch_tokens), key=lambda row: -len(row.ids)):
            length = len(row.ids)
            if chosen:
                area = (len(chosen) + 1) * len(chosen[0].ids)
                padding = area - held - length
                sparse = area > SMALL_BATCH and padding > PADDING_SHARE * area
                if area > batch_tokens or sparse:
                    yield self._batch(chosen)
                    chosen, held = [], 0
            chosen.append(row)
            held += length
        if chosen:
            yield self._batch(chosen)

    def _batch(self, chosen: Sequence[_Row]) -> _Batch:
        length = len(chosen[0].ids)
        ids_BT = torch.zeros(len(chosen), length, dtype=torch.int64, device="cpu")
        wanted: dict[tuple[int, int, int], int] = {}
        asking: list[tuple[int, int]] = []
        tokens = 0
        for number, row in enumerate(chosen):
            ids_BT[number, : len(row.ids)] = _tensor(row.ids)
            for index, places in row.sequences:
                tokens += self._added[index]
                for request, start, last in self._asked[index]:
                    targets = (*self._inputs[index][start + 1 :], last)
                    for place, target in zip(places[start:], targets, strict=True):
                        scored = wanted.setdefault((number, place, target), len(wanted))
                        asking.append((scored, request))
        end_BT = None
        if any(len(row.sequences) > 1 for row in chosen):
            end_BT = _tensor([row.ends_within(length) for row in chosen])
        row_N, place_N, target_N = _tensor(list(wanted)).T.contiguous()
        scored_M, request_M = np.array(asking).T
        return _Batch(ids_BT, end_BT, row_N, place_N, target_N, scored_M, request_M, tokens)


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


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


def _tensor(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, device="cpu")  # whatever the default is


def _batch_tokens(model: Model) -> int:
    """What the model computes in one go anyway; on a GPU, what its activations may take."""
    if model.device.type == "cpu" or model.kernels is not None:
        return pass_tokens(model)
    a = model.architecture
    token_bytes = (a.width + a.intermediate) * model.dtype.itemsize
    return max(ACTIVATION_BYTES // token_bytes, a.max_positions)
