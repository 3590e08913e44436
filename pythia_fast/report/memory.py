"""What a run memorized, gained and lost from step to step.

Legend: n sequences, S steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.report.read import Reading

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run memorized: for every sequence that ever was, when.

    `rows_n` are the sequences, by their first step and then their number; `counts_S`, `gained_S`
    and `lost_S` how many were memorized at each step, and newly and no more since each was last
    looked at. None where nothing is known: a sequence that no step before looked at is neither.
    """

    rows_n: Rows
    counts_S: list[int | None]
    gained_S: list[int | None]
    lost_S: list[int | None]


def memory_of(reading: Reading, steps: Iterable[int]) -> Memory:
    """Of the sequences that each step looked at."""
    first: dict[int, int] = {}
    counts: list[int | None] = []
    gained: list[int | None] = []
    lost: list[int | None] = []
    ever = known = np.array([], np.int64)  # looked at before; memorized when last looked at
    for step in steps:
        tables = [table for table in reading.tables(step) if "memorized" in table.column_names]
        looked = _rows(tables)
        now = _rows([t.filter(pc.fill_null(t["memorized"], fill_value=False)) for t in tables])
        is_known = bool(len(looked))
        again = looked if np.array_equal(looked, ever) else among(looked, ever)
        is_change = bool(len(again))
        counts.append(len(now) if is_known else None)
        new = without(now, known)
        gained.append(len(among(new, again)) if is_change else None)
        gone = without(among(known, looked), now)
        lost.append(len(gone) if is_change else None)
        for row in new.tolist():
            first.setdefault(row, step)
        known = np.sort(np.concatenate([without(known, looked), now]))
        ever = ever if len(again) == len(looked) else np.union1d(ever, looked)
    order = sorted(first, key=lambda row: (first[row], row))
    return Memory(np.array(order, np.int64), counts, gained, lost)


def among(rows: Rows, others: Rows) -> Rows:
    """Those of `rows` that are among `others`, which ascend."""
    return rows[_is_among(rows, others)]


def without(rows: Rows, others: Rows) -> Rows:
    """Those of `rows` that are not among `others`, which ascend."""
    return rows[~_is_among(rows, others)]


def _is_among(rows: Rows, others: Rows) -> npt.NDArray[np.bool_]:
    """By halving, so that a few rows do not cost a look at all others."""
    if not len(others):
        return np.zeros(len(rows), np.bool_)
    at = np.searchsorted(others, rows)
    return np.asarray(others[np.minimum(at, len(others) - 1)] == rows)


def _rows(tables: list[pa.Table]) -> Rows:
    """Which sequences these tables are about, each once, ascending."""
    if not tables:
        return np.array([], np.int64)
    found = np.concatenate([table["sequence"].to_numpy() for table in tables])
    return found if np.all(found[1:] > found[:-1]) else np.unique(found)
