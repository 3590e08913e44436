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
        return range(count)[rows]
    if isinstance(rows, range) and (len(rows) == 0 or min(rows[0], rows[-1]) >= 0):
        if len(rows) > 0 and max(rows[0], rows[-1]) >= count:
            inside = max(0, -((rows[0] - count) // rows.step)) if rows.step > 0 else 0
            raise _no_row(rows[inside], count)
        return rows
    index = np.asarray(rows)
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
        return np.arange(rows.start, rows.stop, rows.step, dtype=np.int64)
    return rows


def _no_row(row: int, count: int) -> RowIndexError:
    return RowIndexError(f"row {row} of data with {count} rows")
