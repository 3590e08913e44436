"""Whether raw data, read in the order of training, is what was published already shuffled."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import OrderMismatchError
from pythia_fast.tokens.dataset import TokenDataset
from pythia_fast.tokens.rows import Rows, chosen_rows


def verify(
    raw_in_order: TokenDataset,
    preshuffled: TokenDataset,
    *,
    rows: Rows | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Compare rows, by default all of `preshuffled`; return how many there were.

    `progress` is called with the rows that are the same so far, and with all.

    OrderMismatchError for the first that differs, with its row, column and the two ids;
    RowIndexError for a row that one of the two does not have.
    """
    narrow = raw_in_order.dtype == preshuffled.dtype == "uint16"
    dtype = np.uint16 if narrow else np.int64
    compared, total = 0, len(chosen_rows(rows, len(preshuffled)))
    if progress is not None:
        progress(0, total)
    for index_n in preshuffled.blocks(rows):
        found_nL = raw_in_order.gather(index_n, dtype=dtype, threads=threads)
        expected_nL = preshuffled.gather(index_n, dtype=dtype, threads=threads)
        ends = raw_in_order.lengths_of(index_n), preshuffled.lengths_of(index_n)
        if np.array_equal(*ends) and np.array_equal(found_nL, expected_nL):
            compared += len(index_n)
            if progress is not None:
                progress(compared, total)
            continue
        for place, row in enumerate(index_n):
            found, expected = (
                found_nL[place, : ends[0][place]],
                expected_nL[place, : ends[1][place]],
            )
            if not np.array_equal(found, expected):
                raise _mismatch(int(row), found, expected, compared + place)
    return compared


def _mismatch(
    row: int, found: npt.NDArray[Any], expected: npt.NDArray[Any], rows: int
) -> OrderMismatchError:
    both = min(len(found), len(expected))
    differs = found[:both] != expected[:both]
    column = int(differs.argmax()) if differs.any() else both
    here, there = (int(ids[column]) if column < len(ids) else None for ids in (found, expected))
    return OrderMismatchError(row, column, here, there, rows)
