"""How callers choose rows: as NumPy takes indexes, and ranges without making millions of them."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import ArgumentError, RowIndexError

Rows: TypeAlias = slice | range | Sequence[int] | npt.NDArray[np.integer[Any]]


def chosen_rows(rows: Rows | None, count: int) -> range | npt.NDArray[np.int64]:
    """The rows meant of `count`, each in [0, count); None are all of them.

    A slice or a range stays a range. Numbers below 0 count from the end, as NumPy's do.
    RowIndexError for a row that is not there, ArgumentError for what are no rows.
    """
    if rows is None:
        return range(count)
    if isinstance(rows, slice):
        try:
            return range(count)[rows]
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"rows must be integers, and a step not 0: {rows}") from error
    if isinstance(rows, range) and rows:  # whose len() may be more than that can say
        _require_inside(rows, count)
        if min(rows[0], rows[-1]) >= 0:
            return rows
    try:
        index = np.asarray(rows)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"rows must be a slice or a vector of integers, got {type(rows).__name__} ({error})"
        ) from error
    if index.dtype == object and index.ndim == 1 and all(type(row) is int for row in index):
        beyond = [row for row in index if not -count <= row < count]
        if beyond:  # as there must be, if no integer type has them all
            raise _no_row(beyond[0], count)
    if index.ndim != 1 or (index.size > 0 and index.dtype.kind not in "iu"):
        raise ArgumentError(
            f"rows must be a slice or a vector of integers, got {index.dtype} of shape "
            f"{index.shape}"
        )
    wrong = (index < -count) | (index >= count)
    if wrong.any():
        raise _no_row(index[wrong][0], count)
    index = index.astype(np.int64)  # a copy: what follows must not reach the caller's array
    index[index < 0] += count
    return index


def row_vector(rows: range | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Chosen rows as contiguous int64, as the C++ code takes them."""
    if isinstance(rows, range):
        if len(rows) < 2:  # the step may be any
            return np.array(rows, dtype=np.int64)
        return np.arange(rows.start, rows.stop, rows.step, dtype=np.int64)
    return rows


def _require_inside(rows: range, count: int) -> None:
    """RowIndexError for the first row of some that is not in [-count, count)."""
    first, last, step = rows[0], rows[-1], rows.step
    if not -count <= first < count:
        raise _no_row(first, count)
    if not -count <= last < count:
        inside = -((first - count) // step) if step > 0 else (first + count) // -step + 1
        raise _no_row(rows[inside], count)


def _no_row(row: int, count: int) -> RowIndexError:
    return RowIndexError(f"row {row} of data with {count} rows")
