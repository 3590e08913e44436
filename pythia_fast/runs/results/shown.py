"""A run as a notebook shows it: a line for each metric, what is missing, and the table."""

import math
from collections.abc import Iterable, Sequence

import pyarrow as pa

from pythia_fast.markup import escaped, html_arrow, html_sparkline
from pythia_fast.quantities import counted
from pythia_fast.runs.results.gaps import Gap
from pythia_fast.words import listed

_SEVERAL = 10
_STEPS_SHOWN = 8


def run_html(table: pa.Table, gaps: Sequence[Gap], *, title: str, leave_out: Iterable[str]) -> str:
    """`table` is that of results; columns that are empty or `leave_out` are not shown."""
    return f"<p>{escaped(title)}</p>{_course(table, gaps)}{_rows(table, leave_out)}"


def runs_html(
    table: pa.Table,
    models: Iterable[tuple[str, pa.Table, Sequence[Gap]]],
    *,
    title: str,
    leave_out: Iterable[str],
) -> str:
    """Several models: each by its name, `table` and gaps as in `run_html`, and all in one table."""
    lines = [f"<p>{escaped(title)}</p>"]
    lines += [f"<p>{escaped(name)}</p>{_course(of_it, gaps)}" for name, of_it, gaps in models]
    return "".join(lines) + _rows(table, leave_out)


def _course(table: pa.Table, gaps: Sequence[Gap]) -> str:
    """A line for each metric of one model, and what is missing."""
    lines = [_metric(table, name) for name in dict.fromkeys(table["metric"].to_pylist())]
    if gaps:
        lines.append(f"<p>{escaped(missing_words(gaps))}</p>")
    return "".join(lines)


def _rows(table: pa.Table, leave_out: Iterable[str]) -> str:
    names = [
        name
        for name in table.column_names
        if name not in set(leave_out) and table[name].null_count < len(table)
    ]
    return html_arrow(table, names=names)


def _metric(table: pa.Table, name: str) -> str:
    """The metric's course, over the steps' logarithms, as the first change fastest."""
    rows = [
        row
        for row in table.select(["step", "metric", "value"]).to_pylist()
        if row["metric"] == name
    ]
    steps = [row["step"] for row in rows]
    values = [row["value"] for row in rows]
    told = f"{name}: {_number(values[0])} at step {steps[0]}"
    if len(rows) > 1:
        told += f", {_number(values[-1])} at step {steps[-1]}"
    line = html_sparkline([math.log1p(step) for step in steps], _scaled(values), label=told)
    return f"<p>{line} {escaped(told)}</p>"


def _scaled(values: Sequence[float | None]) -> Sequence[float | None]:
    """Their logarithms if they are of several orders, as perplexities are."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite or min(finite) <= 0 or max(finite) < _SEVERAL * min(finite):
        return values
    return [math.log(value) if value is not None and value > 0 else None for value in values]


def missing_words(gaps: Sequence[Gap]) -> str:
    """How many steps have gaps, which the first are, and the reason of one; `gaps` are some."""
    steps = sorted({gap.step for gap in gaps})
    return (
        f"{counted(len(steps), 'step')} without all results: {listed(steps, _STEPS_SHOWN)}. "
        f"Step {gaps[0].step}: {gaps[0].reason}"
    )


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
