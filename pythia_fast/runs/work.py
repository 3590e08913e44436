"""How much arithmetic a sweep is, counted from its shapes.

L layers, D width, F feed-forward width, V vocabulary rows, T input positions of a sequence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pythia_fast.metrics import Metric, looked_at
from pythia_fast.runs.measure import together
from pythia_fast.runs.plan import Sequences, chosen_rows
from pythia_fast.suite import Architecture, ModelSpec
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.remote.pile import ROW_TOKENS, ROWS

LOOKED_AT = 65_536
"""Sequences whose lengths say how long they usually are."""


def forward_flops(architecture: Architecture, positions: int) -> int:
    """Floating-point operations of one sequence's forward pass with all its logits.

        T (L (8D² + 4DF) + 2DV) + 4LDT²

    A multiply-add counts as two. With F = 4D this is 24TLD² (1 + T/6D + V/12LD), the forward part
    of Narayanan et al. 2021 (arXiv:2104.04473, appendix). Only matrix products count; attention is
    a full square, as torch counts it, of which a causal kernel computes half.
    """
    d, f, t = architecture.width, architecture.intermediate, positions
    blocks = architecture.layers * (8 * d * d + 4 * d * f)
    return t * (blocks + 2 * d * architecture.vocab_rows) + 4 * architecture.layers * d * t * t


@dataclass(frozen=True, slots=True)
class Data:
    """What is known of the tokens before they are read: how many sequences, and how long they are.

    `dataset` None is the training data on the Hub: rows of 2049 tokens, of which nothing is
    fetched to know this.
    """

    dataset: TokenDataset | None

    @property
    def rows(self) -> int:
        """All sequences."""
        return ROWS if self.dataset is None else len(self.dataset)

    def lengths(self, rows: range) -> tuple[npt.NDArray[np.int64], int]:
        """(lengths, times): the sequences' lengths, each of which stands for so many sequences."""
        if self.dataset is None:
            return np.array([ROW_TOKENS], np.int64), len(rows)
        return self.dataset.lengths_of(np.arange(rows.start, rows.stop, rows.step)), 1


def sweep_flops(
    spec: ModelSpec,
    steps: Iterable[int],
    metrics: Sequence[Metric],
    data: Data,
    sequences: Sequences,
) -> int:
    """The operations of all steps: a forward pass over what each metric looks at.

    Metrics that share scores share the pass. A metric that stops early, or scores only the end of
    what it looks at, does less; near ties that are decided again come on top.
    """
    known: dict[range, int] = {}
    total = 0
    for step in steps:
        rows = chosen_rows(sequences, step, spec, data.rows)
        if rows not in known:
            known[rows] = _flops(spec.architecture, metrics, data, rows)
        total += known[rows]
    return total


def usual_positions(
    spec: ModelSpec, step: int, metrics: Sequence[Metric], data: Data, sequences: Sequences
) -> int:
    """How many positions a sequence's pass has: the mean over a step's first sequences.

    Of none at all, as many as the model can have.
    """
    rows = chosen_rows(sequences, step, spec, data.rows)[:LOOKED_AT]
    if not rows:
        return spec.architecture.max_positions
    lengths, _ = data.lengths(rows)
    return max(1, round(np.mean([looked_at(metric, lengths) for metric in metrics])) - 1)


def _flops(architecture: Architecture, metrics: Sequence[Metric], data: Data, rows: range) -> int:
    if not rows:
        return 0
    lengths, times = data.lengths(rows)
    total = 0
    for group in together(metrics, lengths):
        looked = np.max([looked_at(metric, lengths) for metric in group], axis=0)
        each, counts = np.unique(np.maximum(looked - 1, 1), return_counts=True)
        total += sum(
            forward_flops(architecture, positions) * count
            for positions, count in zip(each.tolist(), counts.tolist(), strict=True)
        )
    return total * times
