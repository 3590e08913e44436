"""Which rows of data in training order a training step saw, and which step saw a row.

Training step s, counted from 1, sees the rows [batch·(s - 1), batch·s); checkpoint stepN has seen
the rows [0, batch·N). All rows are ranges, which cost nothing, however many they are.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from pythia_fast.errors import ArgumentError, RowIndexError
from pythia_fast.quantities import integer
from pythia_fast.suite import SEQUENCES_PER_STEP
from pythia_fast.tokens.ahead import ahead

if TYPE_CHECKING:
    from collections.abc import Generator

    from pythia_fast.tokens.dataset import TokenDataset


class Position(NamedTuple):
    """Where training met a row: the step, counted from 1, and the place in its batch, from 0."""

    step: int
    position: int


def rows_of_step(step: int, batch: int = SEQUENCES_PER_STEP) -> range:
    """The rows that training step `step` saw. ArgumentError below 1: checkpoint 0 saw nothing."""
    step, batch = integer(step, "step"), _batch(batch)
    if step < 1:
        raise ArgumentError(
            f"training steps are counted from 1, got {step}: the first sees rows 0 to {batch - 1:,}"
        )
    return range(batch * (step - 1), batch * step)


def rows_between(first: int, last: int, batch: int = SEQUENCES_PER_STEP) -> range:
    """What the model saw between checkpoints step`first` and step`last`.

    That is the rows of training steps first + 1 to last. ArgumentError unless 0 <= first <= last.
    """
    first, last, batch = integer(first, "first"), integer(last, "last"), _batch(batch)
    if not 0 <= first <= last:
        raise ArgumentError(
            f"between two checkpoints the earlier comes first, and none is negative: got {first} "
            f"and {last}"
        )
    return range(batch * first, batch * last)


def seen(step: int, batch: int = SEQUENCES_PER_STEP) -> range:
    """The rows that checkpoint step`step` has seen; none at step 0."""
    return rows_between(0, step, batch)


def position_of(row: int, batch: int = SEQUENCES_PER_STEP) -> Position:
    """Which training step saw a row, and where in its batch. ArgumentError if it is negative."""
    row, batch = integer(row, "row"), _batch(batch)
    if row < 0:
        raise ArgumentError(f"rows are counted from 0, got {row}")
    return Position(row // batch + 1, row % batch)


def whole_steps(rows: int, batch: int = SEQUENCES_PER_STEP) -> int:
    """How many training steps data of so many rows lasts for."""
    return integer(rows, "rows") // _batch(batch)


def require_rows(wanted: range, rows: int, batch: int, asked: str) -> range:
    """`wanted`, if data of so many rows has them all.

    Else RowIndexError, which says how many whole steps the data has.
    """
    if wanted and wanted.stop > rows:
        whole = whole_steps(rows, batch)
        rest = rows - whole * batch
        more = f", and {rest:,} rows of step {whole + 1}" if rest else ""
        raise RowIndexError(
            f"{asked} means rows {wanted.start:,} to {wanted.stop - 1:,}, but the data has "
            f"{rows:,}: {whole:,} whole steps of {batch:,} rows{more}"
        )
    return wanted


def batches(
    dataset: "TokenDataset",
    steps: Iterable[int],
    *,
    batch: int,
    columns: slice | None,
    dtype: npt.DTypeLike,
    prefetch: int,
) -> "Generator[tuple[int, npt.NDArray[Any]], None, None]":
    """See `TokenDataset.batches`."""

    def gathered(step: int) -> tuple[int, npt.NDArray[Any]]:
        return step, dataset.step(step, batch=batch, columns=columns, dtype=dtype)

    batch, prefetch = _batch(batch), integer(prefetch, "prefetch")
    if prefetch < 0:
        raise ArgumentError(f"prefetch is how many batches are gathered ahead, got {prefetch}")
    if not isinstance(steps, Iterable):
        raise ArgumentError(f"steps must be training steps, as a range or list, got {steps!r}")
    dataset.gather([], columns=columns, dtype=dtype)  # an argument that is wrong is told at once
    if isinstance(steps, range) and steps:
        for step in (steps[0], steps[-1]):
            require_rows(rows_of_step(step, batch), len(dataset), batch, f"training step {step}")
    return ahead(gathered, steps, prefetch)


def _batch(batch: int) -> int:
    batch = integer(batch, "batch")
    if batch < 1:
        raise ArgumentError(
            f"batch is the number of rows that a step sees, at least 1: got {batch}"
        )
    return batch
