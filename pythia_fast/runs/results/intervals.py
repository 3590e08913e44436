"""How sure the values of a run are, and the lines to be drawn of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pythia_fast.metrics import Metric, summarize
from pythia_fast.metrics.intervals import check_level, interval
from pythia_fast.plots import Line

INTERVALS = pa.schema(
    [
        ("model", pa.string()),
        ("step", pa.int64()),
        ("metric", pa.string()),
        *((name, pa.float64()) for name in ("value", "low", "high", "level")),
        ("sequences", pa.int64()),
    ]
)


def interval_table(
    each: Iterable[tuple[int, str, Mapping[str, Any], pa.Table]],
    metrics: Mapping[str, Metric],
    level: float | None,
) -> pa.Table:
    """A row for each step, metric, origin and its sequences; no ends where `level` is None.

    ArgumentError unless `level` is between 0 and 1.
    """
    if level is not None:
        check_level(level)
    rows = []
    for step, name, origin, sequences in each:
        metric = metrics.get(name)
        numbers = summarize(metric, sequences)
        headline, value = next(iter(numbers.items()), ("", None))
        number = math.nan if value is None else float(value)
        ends = None
        if level is not None and math.isfinite(number):
            ends = interval(metric, sequences, headline, number, level)
        low, high = ends or (None, None)
        row = {"model": origin["model"], "step": step, "metric": name}
        row |= {"value": None if value is None else number, "low": low, "high": high}
        rows.append(row | {"level": level, "sequences": len(sequences)})
    return pa.Table.from_pylist(rows, schema=INTERVALS)


def line_of(table: pa.Table, gaps: Sequence[int], label: str) -> Line:
    """The rows of `interval_table` that are of one metric, as a line with a band."""
    rows = table.to_pylist()
    return Line(
        label=str(rows[0]["model"] if rows else label),
        steps=[row["step"] for row in rows],
        values=[math.nan if row["value"] is None else row["value"] for row in rows],
        low=[row["low"] for row in rows],
        high=[row["high"] for row in rows],
        gaps=gaps,
    )
