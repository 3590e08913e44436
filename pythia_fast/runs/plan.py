"""A sweep on paper: which units of work there are, what each is called, what they depend on.

A unit is step × metric × shard of the data. Its name follows from these three alone, its values
from the specification, so that any process may compute any unit, in any order, at any time.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import Metric, identity, looked_at, min_tokens
from pythia_fast.quantities import counted
from pythia_fast.suite import ModelSpec
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.steps import seen

SHARD_SEQUENCES = 4096
"""Sequences in one unit: at most so many are lost when a process is killed."""

Sequences = int | slice | Literal["seen", "unseen"]
Rows = npt.NDArray[np.int64]
Fetching = Callable[[int, int], None]
"""Is told how many bytes of tokens have come, and how many are to."""


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """One piece of work: `metric` over `rows`, which are one of the step's `shards` shards."""

    step: int
    metric: Metric
    shard: int
    shards: int
    rows: Rows

    @property
    def path(self) -> str:
        """The name of its result, relative to the run folder."""
        return f"parts/step={self.step}/{self.metric.name}-{self.shard:05d}.parquet"


@dataclass(frozen=True)
class Plan:
    """What a sweep computes: `steps`, `metrics` and, for each step, the rows of the dataset.

    ArgumentError or TokenRangeError for sequences that the model or a metric does not take, unless
    they are `checked` already. Making one fetches the rows, where they are not here, and tells
    `fetching` of it.
    """

    spec: ModelSpec
    steps: tuple[int, ...]
    metrics: tuple[Metric, ...]
    dataset: TokenDataset
    sequences: Sequences
    dtype: str
    deterministic: bool
    checked: InitVar[bool] = False
    fetching: InitVar[Fetching | None] = None

    def __post_init__(self, checked: bool, fetching: Fetching | None) -> None:
        if not checked:
            # Of "seen" the last step has all rows, of "unseen" the first; else all have the same.
            step = max(self.steps) if self.sequences == "seen" else min(self.steps)
            self._check_rows(step, fetching)

    def in_dtype(self, dtype: str) -> "Plan":
        """The same in another dtype, for which no row need be looked at again."""
        return dataclasses.replace(self, dtype=dtype, checked=True, fetching=None)

    def rows(self, step: int) -> Rows:
        """The dataset's rows that are looked at in `step`, in order."""
        chosen = self.chosen(step)
        return np.arange(chosen.start, chosen.stop, chosen.step)

    def units(self, step: int) -> Iterator[Unit]:
        """The units of `step`, shard by shard; without rows, an empty one for each metric."""
        rows = self.rows(step)
        shards = np.split(rows, list(range(SHARD_SEQUENCES, len(rows), SHARD_SEQUENCES)))
        for shard, some_rows in enumerate(shards):
            for metric in self.metrics:
                yield Unit(step, metric, shard, len(shards), some_rows)

    def tokens_of(self, unit: Unit) -> int:
        """How many tokens the unit's metric looks at."""
        return int(looked_at(unit.metric, self.dataset.lengths_of(unit.rows)).sum())

    @cached_property
    def tokens(self) -> int:
        """How many tokens the metrics look at in all steps, taken together."""
        if isinstance(self.sequences, str):
            return sum(self.tokens_of(unit) for step in self.steps for unit in self.units(step))
        return sum(map(self.tokens_of, self.units(self.steps[0]))) * len(self.steps)

    @cached_property
    def specification(self) -> dict[str, Any]:
        """All that determines the values of the units, as plain JSON; the steps do not."""
        rows: Rows | None = None
        sequences: Any = self.sequences
        if not isinstance(sequences, str):
            rows, chosen = self.rows(self.steps[0]), self.chosen(self.steps[0])
            sequences = {"first": chosen.start, "count": len(chosen), "stride": chosen.step}
        return {
            "model": self.spec.name,
            "architecture": dataclasses.asdict(self.spec.architecture),
            "metrics": [identity(metric) for metric in self.metrics],
            "tokens": self._tokens(rows),
            "sequences": sequences,
            "dtype": self.dtype,
            "deterministic": self.deterministic,
            "shard_sequences": SHARD_SEQUENCES,
        } | self._branch()

    def _branch(self) -> dict[str, int]:
        """Where what an intervened model has "seen" ends, which not every version knew."""
        step = self.spec.branch_step
        return {"branch_step": step} if step is not None and self.sequences == "seen" else {}

    def _tokens(self, rows: Rows | None) -> str:
        """What `rows` are, or None for all, of which a data set on the Hub has too many to read."""
        if rows is None and self.dataset.is_remote:
            return self.dataset.source  # with its commit
        return self.dataset.fingerprint(rows)

    def chosen(self, step: int) -> range:
        """The rows of `step` as a range, the same one for a number and for its slice."""
        return chosen_rows(self.sequences, step, self.spec, len(self.dataset))

    def _check_rows(self, step: int, fetching: Fetching | None) -> None:
        rows = self.rows(step)
        if not len(rows) and not isinstance(self.sequences, str):
            raise ArgumentError(
                f"{_words(self.sequences)} selects none of the {len(self.dataset):,} sequences"
            )
        lengths = self.dataset.lengths_of(rows)
        for metric in self.metrics:
            short = np.flatnonzero(lengths < min_tokens(metric))
            if len(short):
                raise ArgumentError(
                    f"{self._told(rows, lengths, short[0])}, but {metric.name} needs "
                    f"{min_tokens(metric)}"
                )
            limit = self.spec.architecture.max_positions + 1
            long = np.flatnonzero(looked_at(metric, lengths) > limit)
            if len(long):
                raise ArgumentError(
                    f"{self._told(rows, lengths, long[0])}, but the model takes {limit - 1} and "
                    "one more as the last label: cut long texts into pieces"
                )
        self.dataset.fetch(rows, progress=fetching)
        self.dataset.check_ids(self.spec.architecture.vocab_rows, rows)

    def _told(
        self, rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], number: int
    ) -> str:
        place = self.dataset.place_of(int(rows[number]))
        return f"{place} has {counted(int(lengths[number]), 'token')}"


def chosen_rows(sequences: Sequences, step: int, spec: ModelSpec, rows: int) -> range:
    """Which of the `rows` of the data a step looks at.

    Of an intervened model, "seen" ends at its branch: what it saw after that were other texts.
    ArgumentError for "seen" and "unseen" where the model's order is not known.
    """
    every = range(rows)
    if isinstance(sequences, int):
        return every[:sequences]
    if isinstance(sequences, slice):
        return every[sequences]
    if spec.batch_tokens is None or not spec.suite_order:
        raise ArgumentError(
            f"{_words(sequences)} needs to know in which order {spec.name} saw its data, which is "
            "published for the suite's main models only; give a number, or the first and the one "
            "behind the last: slice(0, 512), --sequences 0:512"
        )
    if sequences == "seen":
        return every[: seen(spec.unaltered(step)).stop]
    return every[seen(step).stop :]


def _words(sequences: Sequences) -> str:
    """The choice as it is typed: "sequences 5:2"."""
    if not isinstance(sequences, slice):
        return f"sequences {sequences}"
    ends = (sequences.start, sequences.stop, *([] if sequences.step is None else [sequences.step]))
    return f"sequences {':'.join('' if end is None else str(end) for end in ends)}"


def fingerprint(specification: Mapping[str, Any]) -> str:
    """The sha256 of a specification's canonical JSON, in hex."""
    canonical = json.dumps(specification, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def batches(lengths: npt.NDArray[np.int64], batch_tokens: int) -> Iterator[slice]:
    """Cut consecutive sequences into batches of at most `batch_tokens`, padding included.

    A sequence longer than that makes a batch of its own.
    """
    start, longest = 0, 0
    for i, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if i > start and (i + 1 - start) * longest > batch_tokens:
            yield slice(start, i)
            start, longest = i, length
    if start < len(lengths):
        yield slice(start, len(lengths))


def sequences_argument(sequences: object) -> Sequences:
    """Check the argument `sequences`. ArgumentError if it is none of what `sweep` takes."""
    if isinstance(sequences, slice):
        try:
            sequences.indices(0)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"sequences={sequences!r} is no slice of rows: {error}") from error
        return sequences
    if isinstance(sequences, np.integer):
        sequences = int(sequences)
    if isinstance(sequences, str) and sequences in ("seen", "unseen"):
        return "seen" if sequences == "seen" else "unseen"
    if isinstance(sequences, int) and not isinstance(sequences, bool) and sequences > 0:
        return sequences
    raise ArgumentError(
        f"sequences is a positive number, a slice, 'seen' or 'unseen', not {sequences!r}"
    )
