"""All that the page shows, as plain JSON."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pythia_fast.plots import COLOURS, LABELS
from pythia_fast.report.packed import plain
from pythia_fast.report.record import memorizing
from pythia_fast.report.run import Run
from pythia_fast.report.sequences import MOST_LOSSES, sequences_of
from pythia_fast.report.texts import Texts

LOGARITHMIC = ("perplexity",)
"""Numbers that are drawn on a logarithmic axis at first."""
LEVEL = 0.95
"""Of the confidence intervals, over the sequences."""
_OURS = frozenset({"run", "low", "high"})
"""Columns of the page's table that a run's own has not."""
_COUNTS = frozenset({"nonfinite", "tokens"})


def document(runs: Sequence[Run], texts: Sequence[Texts], *, version: str, made: str) -> Any:
    """The page's data: what is common, the runs, and one table with the rows of all of them."""
    labels = _labels(runs)
    most = MOST_LOSSES // len(runs)
    return plain(
        {
            "version": version,
            "made": made,
            "palette": COLOURS,
            "axis_titles": LABELS,
            "logarithmic": LOGARITHMIC,
            "level": LEVEL,
            "runs": [
                _run(run, label, of_run, most)
                for run, label, of_run in zip(runs, labels, texts, strict=True)
            ],
            "table": _table(runs, labels),
        }
    )


def _run(run: Run, label: str, texts: Texts, most_losses: int) -> dict[str, Any]:
    record = run.record
    memory = memorizing(run)
    name = None if memory is None else memory["metric"]
    specification = record["specification"]
    return {
        "label": label,
        "path": str(run.path),
        "hash": record["hash"],
        "specification": specification,
        "record": {key: record.get(key) for key in ("sources", "versions", "machine", "command")},
        "metrics": [str(metric["name"]) for metric in specification["metrics"]],
        "numbers": _numbers(_renamed(run.table)),
        "vocabulary": (specification.get("architecture") or {}).get("vocab_rows"),
        "continuation": memory,
        "knows_asked": any((run.path / "asked").glob("*.json")),
        "gaps": [{"step": g.step, "metric": g.metric, "reason": g.reason} for g in run.gaps],
        "failures": [
            {"step": each.step, "error": each.error, "message": each.message}
            for each in run.failures
        ],
        "remarks": {step: list(remarks) for step, remarks in run.remarks.items()},
        "times": run.times.to_pydict(),
        "sequences": sequences_of(run, texts, most_losses, name),
    }


def _labels(runs: Sequence[Run]) -> list[str]:
    """Each run's name: its model's, with the folder's, or a number, where that is not enough."""
    models = [str(run.record["specification"].get("model", run.path.name)) for run in runs]
    twice = {name for name, count in Counter(models).items() if count > 1}
    labels = [
        f"{model} ({run.path.name})" if model in twice else model
        for model, run in zip(models, runs, strict=True)
    ]
    again = {name for name, count in Counter(labels).items() if count > 1}
    return [f"{each} #{i}" if each in again else each for i, each in enumerate(labels, start=1)]


def _numbers(table: pa.Table) -> dict[str, list[str]]:
    """Which numbers each metric has, "value" first: the columns that are not all null for it."""
    words = ("model", "step", "metric", "status", "duplicate_of", "sequences")
    names = [
        field.name
        for field in table.schema
        if field.name not in words
        and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    ]
    found: dict[str, list[str]] = {}
    for row in table.to_pylist():
        known = found.setdefault(row["metric"], [])
        known += [name for name in names if name not in known and row[name] is not None]
    return {
        metric: sorted(known, key=lambda name: (name in _COUNTS, names.index(name)))
        for metric, known in found.items()
    }


def _renamed(table: pa.Table) -> pa.Table:
    """A run's table, in which no number of a metric bears the name of one of our columns."""
    names: list[str] = []
    for name in table.column_names:
        own = name
        while own in _OURS or own in names:
            own = f"own {own}"
        names.append(own)
    return table.rename_columns(names)


def _table(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """The rows of all runs, with the run's label in front; a column that one lacks is null.

    Beside the value the ends of its confidence interval, if any row has one.
    """
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    for run, label in zip(runs, labels, strict=True):
        table = _renamed(run.table)
        names += [name for name in table.column_names if name not in names]
        ends = {
            (each["step"], each["metric"]): {"low": each["low"], "high": each["high"]}
            for each in run.intervals(LEVEL).to_pylist()
        }
        rows += [
            row | {"run": label} | ends.get((row["step"], row["metric"]), {})
            for row in table.to_pylist()
        ]
    if any(row.get("low") is not None for row in rows):
        at = names.index("value") + 1
        names[at:at] = ["low", "high"]
    columns = ["run", *names]
    return {"columns": columns, "rows": [[row.get(name) for name in columns] for row in rows]}
