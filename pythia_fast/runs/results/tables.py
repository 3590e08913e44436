"""The tables of a result: rows of metrics put together, sequences side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pythia_fast.errors import ArgumentError

KEYS = ("model", "step", "metric")
ORIGIN = ("commit", "weights_sha256", "dtype", "device", "tokens_fingerprint", "version")
RESERVED = frozenset((*KEYS, *ORIGIN, "value", "status", "sequences", "duplicate_of", "sequence"))
"""Names that a metric's own columns and summaries may not take."""


def result_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows with different keys to one table: keys in order, numbers before the origin's words."""
    own = [key for row in rows for key in row if key not in RESERVED]
    names = [*KEYS, "value", *dict.fromkeys(own), "status", "sequences", "duplicate_of", *ORIGIN]
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    counts = {"step", "sequences", "duplicate_of"}
    words = {*KEYS, "status", *ORIGIN} - counts
    for name, column in columns.items():
        if pa.types.is_null(column.type):
            kind = pa.string() if name in words else pa.int64() if name in counts else pa.float64()
            columns[name] = column.cast(kind)
    return pa.table(columns)


def metric_words(metric: str, run: Path) -> str:
    """One metric of one of perhaps several runs, for an error."""
    return f"the metric {metric!r} in {run}"


def checked_numbers(whose: str, numbers: dict[str, float]) -> dict[str, float]:
    """The numbers of a step as they are. ArgumentError for a reserved name, or for no number.

    `whose` is the metric in words.
    """
    for name, value in numbers.items():
        if name in RESERVED:
            raise ArgumentError(f"{whose} may not name a number {name!r}")
        if value is not None and not isinstance(value, (int, float, np.number, np.bool_)):
            raise ArgumentError(f"{whose} gave {value!r} as {name!r}, no number")
    return numbers


def stacked(tables: Sequence[pa.Table], whose: str = "a metric") -> pa.Table:
    """One table after the other; a column may be of integers in one and of floats in the next.

    ArgumentError for kinds that do not go together, in which `whose` says what gave them.
    """
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ArgumentError(f"{whose} gave values of several kinds: {error}") from error


def side_by_side(left: pa.Table, right: pa.Table) -> pa.Table:
    """Join two metrics' rows of the same sequences; of equal names the left column stays."""
    if not left["sequence"].equals(right["sequence"]):
        extra = [n for n in right.column_names if n not in left.column_names]
        return left.join(right.select(["sequence", *extra]), "sequence", join_type="full outer")
    for name in right.column_names:
        if name not in left.column_names:
            left = left.append_column(name, right[name])
    return left
