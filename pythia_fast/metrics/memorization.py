"""Memorization: training sequences that the model continues word for word.

A sequence's prompt is its first P tokens, its continuation the C tokens after them; P = C = 32 in
the Pythia paper (arXiv:2304.01373, section 4.1; arXiv:2304.11158, section 2). A sequence is
memorized if greedy decoding from the prompt gives the continuation exactly; its score is the share
of positions at which the two agree.

Greedy decoding gives the continuation exactly if and only if, with the true tokens as input, the
arg max is right at every position: so the flags need no generation. An arg max whose margin over
the second best is a near tie, within the error of the arithmetic, is decided again in float32 (or,
where that is clear, in split-bf16), so that a flag depends neither on the data type nor on the
batch.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.panels import LANES
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.metrics.protocol import Batch, Column
from pythia_fast.model import Model, greedy_steps, sequences_at_once


@dataclass(frozen=True, slots=True)
class _Continuation:
    prompt: int = 32
    continuation: int = 32

    def __post_init__(self) -> None:
        for name in ("prompt", "continuation"):
            try:
                object.__setattr__(self, name, operator.index(getattr(self, name)))
            except TypeError as error:
                raise ArgumentError(f"{name} is a number of tokens, an int: {error}") from error
        if self.prompt < 1 or self.continuation < 1:
            raise ArgumentError(
                f"prompt and continuation are at least one token, got {self.prompt} and "
                f"{self.continuation}"
            )

    @property
    def max_tokens(self) -> int:
        """The tokens of a sequence that are looked at: prompt + continuation."""
        return self.prompt + self.continuation

    @property
    def min_tokens(self) -> int:
        """A shorter sequence has no such continuation."""
        return self.max_tokens


@dataclass(frozen=True, slots=True)
class Memorization(_Continuation):
    """Whether each sequence is memorized, by the teacher-forced test.

    Columns: `memorized`, `first_mismatch` (position in the continuation, null if there is none),
    `margin` (logits; the smallest lead of an arg max over the second best among the positions that
    were tested), `redecided` (near ties made `Model.decide` decide) and `nonfinite` (positions
    whose logits are NaN or infinite). Where a sequence is not `redecided`, its `first_mismatch`
    is that of the arithmetic in use. Of a step: `memorized_share`, then counts: `memorized`,
    `redecided`, `nonfinite`.
    """

    @property
    def name(self) -> str:
        """The metric's name in tables and file names."""
        return "memorization"

    @property
    def uses_scores(self) -> bool:
        """Arg maxes and margins are part of the scores."""
        return True

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, Column]:
        """Test the first positions of all, then more and more of those that passed so far."""
        ids_BT = batch.ids_BT[:, : self.max_tokens]
        decisions = _Decisions(len(ids_BT), self.continuation)
        alive = np.arange(len(ids_BT))
        unsure: npt.NDArray[np.bool_] = np.zeros(len(ids_BT), dtype=np.bool_)
        for length in self._looks():
            if not len(alive):
                break
            rows_B = torch.from_numpy(alive)
            seen_BT = ids_BT[rows_B, : self.prompt + length]
            scores = self._scores(model, batch, rows_B, length)
            margin = scores.margin.numpy(force=True)
            right = (scores.argmax == seen_BT[:, self.prompt :]).numpy(force=True)
            right &= np.isfinite(margin)  # the arg max of NaN is no guess of the model's
            decisions.record(alive, right, margin)
            tie = margin <= model.near_tie
            passed = (right | tie).all(1)
            alive, unsure = alive[passed], np.any(tie[passed], axis=1)
        if unsure.any():
            rows = alive[unsure]
            unsure_BT = ids_BT[torch.from_numpy(rows)]
            argmax_RC, margin_RC = model.decide(unsure_BT, start=self.prompt - 1)
            margin = margin_RC.numpy(force=True)
            right = (argmax_RC == unsure_BT[:, self.prompt :]).numpy(force=True)
            decisions.record(rows, right & np.isfinite(margin), margin)
            decisions.redecided[rows] = True
        return decisions.columns()

    def _looks(self) -> list[int]:
        """How many positions are tested before the failures are dropped, in rising order.

        As many as whole panels of `LANES` tokens decide, twice, then all. Most sequences that are
        not memorized fail at the first position, which a prompt that fills its panels decides, and
        few of the others pass sixteen more.
        """
        first = 1 + -self.prompt % LANES
        looks = (min(length, self.continuation) for length in (first, first + LANES))
        return sorted({*looks, self.continuation})

    def _scores(self, model: Model, batch: Batch, rows_B: torch.Tensor, length: int) -> TokenScores:
        """Scores of some rows' first `length` tokens of the continuation."""
        start = self.prompt - 1
        if batch.scores is None:
            return model.score(batch.ids_BT[rows_B, : self.prompt + length], start=start)
        return batch.scores.map(lambda x_BT: x_BT[rows_B, start : start + length])

    def summarize(self, sequences: pa.Table) -> dict[str, float]:
        """How many of the sequences are memorized, and which share."""
        return _counts(sequences)


@dataclass(frozen=True, slots=True)
class MemorizationScore(_Continuation):
    """The share of the continuation that free-running greedy decoding gets right.

    Columns: `score` (0 to 1), then those of `Memorization`: `memorized` is score = 1, `margin` is
    the smallest lead among the decoded tokens, `redecided` says that `Model.decide` settled a near
    tie. Of a step: `score` (mean), `memorized_share`, `memorized`, `redecided`, `nonfinite`.
    """

    @property
    def name(self) -> str:
        """The metric's name in tables and file names."""
        return "memorization-score"

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, Column]:
        """Decode the continuation of every sequence and compare it with the true one.

        Deciding near ties as they come would take a float32 pass for each step. Instead a sequence
        is decoded to its end and one pass looks at all its near ties; where that overrules one, the
        sequence is decoded again with the first such token in place.
        """
        ids_BT = batch.ids_BT[:, : self.max_tokens]
        B, P = len(ids_BT), self.prompt
        decisions = _Decisions(B, self.continuation)
        decoded_BC = torch.zeros_like(ids_BT[:, P:])
        margin_BC = torch.zeros_like(decoded_BC, dtype=torch.float32)
        decided_B = torch.zeros_like(ids_BT[:, 0])  # so many tokens of the continuation stand
        step_C = torch.arange(self.continuation, device=ids_BT.device)
        rows_R = torch.arange(B, device=ids_BT.device)
        while len(rows_R):
            known_RC, decided_R = decoded_BC[rows_R], decided_B[rows_R]
            decoded_RC, margin_RC = self._decode(model, ids_BT[rows_R, :P], known_RC, decided_R)
            decoded_BC[rows_R], margin_BC[rows_R] = decoded_RC, margin_RC
            tie_RC = (margin_RC <= model.near_tie) & (step_C >= decided_R[:, None])
            tied_R = tie_RC.any(1)
            rows_R, tie_RC = rows_R[tied_R], tie_RC[tied_R]
            if not len(rows_R):
                break
            decisions.redecided[rows_R.numpy(force=True)] = True
            seen_RT = torch.cat([ids_BT[rows_R, :P], decoded_BC[rows_R]], 1)
            exact_RC, _ = model.decide(seen_RT, start=P - 1)
            wrong_RC = tie_RC & (exact_RC != decoded_BC[rows_R])
            overruled_R = wrong_RC.any(1)
            rows_R, first_R = rows_R[overruled_R], wrong_RC[overruled_R].int().argmax(1)
            decoded_BC[rows_R, first_R] = exact_RC[overruled_R, first_R]
            decided_B[rows_R] = first_R + 1
        margin = margin_BC.numpy(force=True)
        right = (decoded_BC == ids_BT[:, P:]).numpy(force=True)
        right &= np.isfinite(margin)
        decisions.record(np.arange(B), right, margin)
        return {"score": right.mean(1), **decisions.columns()}

    def _decode(
        self,
        model: Model,
        prompt_BP: torch.Tensor,
        known_BC: torch.Tensor,
        decided_B: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and margins [B, C]; the first `decided_B` tokens are those that are known."""
        each = sequences_at_once(model, self.max_tokens)
        if len(prompt_BP) > each:
            parts = (torch.split(x, each) for x in (prompt_BP, known_BC, decided_B))
            done = [self._decode(model, *part) for part in zip(*parts, strict=True)]
            tokens_BC, margin_BC = (torch.cat(some) for some in zip(*done, strict=True))
            return tokens_BC, margin_BC

        def follow(
            context_BT: torch.Tensor, token_B: torch.Tensor, _margin_B: torch.Tensor
        ) -> torch.Tensor:
            step = context_BT.shape[1] - self.prompt
            return torch.where(decided_B > step, known_BC[:, step], token_B)

        steps = greedy_steps(model, prompt_BP, self.continuation, decide=follow)
        tokens, margins = zip(*steps, strict=True)
        return torch.stack(tokens, 1), torch.stack(margins, 1)

    def summarize(self, sequences: pa.Table) -> dict[str, float]:
        """The mean score, and what `Memorization` says."""
        score = pc.mean(sequences["score"]).as_py()
        return {"score": float("nan") if score is None else score, **_counts(sequences)}


class _Decisions:
    """What was decided of each of B sequences at each of C positions."""

    def __init__(self, sequences: int, continuation: int) -> None:
        self.continuation = continuation
        self.first_mismatch = np.full(sequences, continuation)
        self.decided = np.zeros(sequences, dtype=np.int64)
        self.margin = np.full(sequences, np.inf, dtype=np.float32)
        self.nonfinite = np.zeros(sequences, dtype=np.int64)
        self.redecided = np.zeros(sequences, dtype=bool)

    def record(
        self,
        rows: npt.NDArray[np.int64],
        right: npt.NDArray[np.bool_],
        margin: npt.NDArray[np.float32],
    ) -> None:
        """Note the first positions of some rows; what was noted of them before is replaced."""
        wrong = ~right
        none_wrong = right.all(1)
        self.first_mismatch[rows] = np.where(none_wrong, self.continuation, wrong.argmax(1))
        self.decided[rows] = right.shape[1]
        self.margin[rows] = margin.min(1)
        self.nonfinite[rows] = (~np.isfinite(margin)).sum(1)

    def columns(self) -> dict[str, Column]:
        """One value per sequence; a sequence is memorized if all C positions were right."""
        all_right = self.first_mismatch == self.continuation
        return {
            "memorized": all_right & (self.decided == self.continuation),
            "first_mismatch": pa.array(self.first_mismatch, pa.int32(), mask=all_right),
            "margin": self.margin,
            "redecided": self.redecided,
            "nonfinite": self.nonfinite,
        }


def _counts(sequences: pa.Table) -> dict[str, float]:
    memorized = pc.sum(sequences["memorized"]).as_py() or 0
    return {
        "memorized_share": memorized / len(sequences) if len(sequences) else float("nan"),
        "memorized": memorized,
        "redecided": pc.sum(sequences["redecided"]).as_py() or 0,
        "nonfinite": pc.sum(sequences["nonfinite"]).as_py() or 0,
    }
