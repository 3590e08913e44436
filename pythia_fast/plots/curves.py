"""Learning curves: one metric over the steps, a line for each model."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pythia_fast.errors import ArgumentError
from pythia_fast.plots.lines import Line, StepAxis, draw
from pythia_fast.plots.style import legend, new_figure, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "perplexity": "perplexity",
    "memorization": "share of sequences memorized",
    "memorization-score": "memorization score",
    "loss": "loss (nats per token)",
}
"""What stands on the axis for a metric's name; another metric's name stands for itself."""
_LOGARITHMIC = ("perplexity", "ppl")  # also as the last word of a task's metric


def plot(
    table: pa.Table,
    metric: str | None = None,
    *,
    steps: StepAxis = "log",
    gaps: Mapping[str, Sequence[int]] | None = None,
) -> "Figure":
    """A metric's value over the steps, one line for each model in `table`.

    `table` is that of one `SweepResult`, or of several, concatenated; where it has the columns
    `low` and `high`, they are drawn as a band. `metric` None is the first in it. Steps are on a
    logarithmic axis that begins with 0, or on a linear one. `gaps` are steps of a model that have
    no values: they are marked, and no line leads across them. ArgumentError if the table has no
    such metric, or no rows. Values that are not finite cannot be drawn; a note says how many.
    """
    chosen = chosen_metric(table, metric)
    points: dict[str, dict[int, Mapping[str, Any]]] = {}
    ends = [name for name in ("low", "high") if name in table.column_names]
    for row in table.select(["model", "step", "metric", "value", *ends]).to_pylist():
        if row["metric"] == chosen:
            points.setdefault(row["model"], {})[row["step"]] = row
    lines = [_line(model, rows, (gaps or {}).get(model, ())) for model, rows in points.items()]
    return curves(lines, chosen, steps=steps)


def curves(lines: Sequence[Line], metric: str, *, steps: StepAxis = "log") -> "Figure":
    """A figure with one panel for these lines; `metric` names the axis of the values.

    ArgumentError if no line has any value, which also says how many steps are incomplete.
    """
    if not any(line.steps for line in lines):
        gaps = len({step for line in lines for step in line.gaps})
        raise ArgumentError(
            f"no step has a value of {metric}, so there is nothing to plot"
            + (f": {gaps} {'step is' if gaps == 1 else 'steps are'} incomplete" if gaps else "")
        )
    figure = new_figure()
    (axes,) = figure.axes
    logarithmic = metric.rpartition(":")[2].strip().rpartition("_")[2] in _LOGARITHMIC
    draw(axes, lines, LABELS.get(metric, metric), logarithmic=logarithmic, steps=steps)
    if len(lines) == 1:
        title(axes, lines[0].label)
    else:
        legend(axes)
    return figure


def chosen_metric(table: pa.Table, metric: str | None) -> str:
    """The metric asked for, or the first. ArgumentError if the table has none, or not this one."""
    names = list(dict.fromkeys(table["metric"].to_pylist()))
    if not names:
        raise ArgumentError("the table has no rows, so there is nothing to plot")
    if metric is None:
        return str(names[0])
    if metric not in names:
        near = difflib.get_close_matches(metric, names, n=5)
        raise ArgumentError(
            f"the table has no metric {metric!r}; "
            + (f"near it are {', '.join(near)}" if near and len(names) > 8 else "")
            + ("" if near and len(names) > 8 else f"it has {', '.join(names)}")
        )
    return metric


def _line(model: str, rows: Mapping[int, Mapping[str, Any]], gaps: Sequence[int]) -> Line:
    steps = sorted(rows)
    values, low, high = (
        [math.nan if rows[step].get(key) is None else rows[step][key] for step in steps]
        for key in ("value", "low", "high")
    )
    return Line(model, steps, values, low, high, gaps)
