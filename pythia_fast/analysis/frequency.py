"""Whether a model reckons better with numbers that it has seen more often.

The suite's case study (arXiv:2304.01373, section 4.3), after Razeghi et al. (2022,
arXiv:2202.07206): each first number of the questions, 0 to 99, with its accuracy and the number of
times that it occurs in what the checkpoint has seen.

Small numbers are both frequent and easy to reckon with: a count that falls with the number goes
with accuracy whether or not frequency matters. `partial` therefore allows for the number itself.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pythia_fast.analysis.answered import Answered, answered
from pythia_fast.analysis.frequency_figure import draw_frequency
from pythia_fast.analysis.frequency_points import Points, binned, common_edges, tests_of
from pythia_fast.analysis.multiple import holm
from pythia_fast.analysis.study import Study
from pythia_fast.errors import ArgumentError, UnknownModelError
from pythia_fast.extras import require
from pythia_fast.quantities import integer
from pythia_fast.runs import SweepResult, SweepResults
from pythia_fast.suite import spec
from pythia_fast.tokens.passes.terms import TermCounts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 20
"""As many as the published figure has."""

_KEY = [
    ("model", pa.string()),
    ("step", pa.int64()),
    ("operation", pa.string()),
    ("shots", pa.int64()),
]
_TABLE = pa.schema(
    [
        *_KEY,
        ("terms", pa.int64()),
        ("accuracy", pa.float64()),
        ("spearman", pa.float64()),
        ("p_spearman", pa.float64()),
        ("partial", pa.float64()),
        ("p_partial", pa.float64()),
        ("p_holm", pa.float64()),
        ("slope", pa.float64()),
        ("slope_stderr", pa.float64()),
        ("p_slope", pa.float64()),
        ("top", pa.float64()),
        ("bottom", pa.float64()),
        ("gap", pa.float64()),
        ("gap_stderr", pa.float64()),
    ]
)
_TERMS = pa.schema(
    [
        *_KEY,
        ("term", pa.int64()),
        ("count", pa.int64()),
        ("questions", pa.int64()),
        ("correct", pa.int64()),
        ("accuracy", pa.float64()),
    ]
)
_BINS = pa.schema(
    [
        *_KEY,
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("count", pa.float64()),
        ("terms", pa.int64()),
        ("accuracy", pa.float64()),
        ("stderr", pa.float64()),
    ]
)


def term_frequency(
    results: "SweepResult | SweepResults | pa.Table | Iterable[SweepResult | pa.Table]",
    counts: TermCounts | pa.Table,
    *,
    bins: int = BINS,
) -> Study:
    """Accuracy in arithmetic against how often the first number was seen.

    `results` are runs with the metric of `Questions`, or tables of evaluations with the tasks
    num_reasoning_arithmetic_…, as `published` reads them; one or several, but of models that were
    trained on one corpus. `counts` are by `count_terms` from that corpus, or its table (`step`,
    `term`, `count`), for every step of the results and every first number.

    `table`, a row for each model, step, operation and number of shots: `accuracy`, the mean over
    the `terms`; `spearman`, the rank correlation of a term's accuracy with its count; `partial`,
    the same for numbers of like size (ranks regressed on those of count and number), with
    `p_partial` and `p_holm`, corrected for the number of rows; `slope`, by a logistic regression,
    the rise of the logarithm of the odds of a right answer for ten times the count (plus one),
    whose error allows for the questions of one number being alike; and, as in the paper's table,
    the `gap` between `top`, the tenth of the terms that were seen most, and the `bottom` one. What
    cannot be told, as where no answer is right, is null.

    `details`: "terms", every point; "bins", the points in at most `bins` parts of equal width on
    the logarithmic axis of counts (a term that was never seen is in none). `figure()`: these.

    ArgumentError for other results, for counts that lack a step or number, for two results of
    the same model, step and question, for models of two corpora; and without scipy and
    statsmodels (extra: `analysis`).
    """
    if integer(bins, "bins") < 1:
        raise ArgumentError(f"bins is at least 1, got {bins}")
    require("scipy.stats")
    counted = counts.table if isinstance(counts, TermCounts) else counts
    known = _known(counted)
    found = answered(results)
    _check_corpora({row.model for row in found.rows})
    groups = [
        (dict(zip((name for name, _ in _KEY), key, strict=True)), _points(group, known, key[1]))
        for key, group in _groups(found.rows)
    ]
    edges = common_edges([points for _, points in groups], bins)
    rows: list[dict[str, Any]] = [key | tests_of(points) for key, points in groups]
    for row, p in zip(rows, holm([row.get("p_partial") for row in rows]), strict=True):
        row["p_holm"] = p
    terms = [_TERMS.empty_table(), *(_told(_TERMS, key, each.columns) for key, each in groups)]
    parts = [
        _BINS.empty_table(),
        *(_told(_BINS, key, binned(each, edges)) for key, each in groups),
    ]
    details = {"terms": pa.concat_tables(terms), "bins": pa.concat_tables(parts)}

    def draw(table: pa.Table) -> "Figure":
        return draw_frequency(table, details["bins"])

    table = pa.Table.from_pylist(rows, schema=_TABLE)
    summary = _summary(table) | _origin(counted)
    if found.left_out:
        summary["left out"] = f"{found.left_out} rows that are doubtful, repeated or not finite"
    return Study("term frequency", table, summary, draw, details)


_Key = tuple[str, int, str, int]


def _groups(rows: Sequence[Answered]) -> list[tuple[_Key, list[Answered]]]:
    groups: dict[_Key, dict[int, Answered]] = {}
    for row in rows:
        group = groups.setdefault((row.model, row.step, row.operation, row.shots), {})
        if row.first in group:
            raise ArgumentError(
                f"two results have the questions {row.first} {row.operation} … of {row.model} at "
                f"step {row.step}, {row.shots} shots: give one of them"
            )
        group[row.first] = row
    models = list(dict.fromkeys(row.model for row in rows))
    order = sorted(groups, key=lambda key: (models.index(key[0]), *key[1:]))
    return [(key, list(groups[key].values())) for key in order]


def _known(table: pa.Table) -> dict[int, dict[str, int]]:
    if not isinstance(table, pa.Table):
        raise ArgumentError(f"counts are a TermCounts or its table, got {type(table).__name__}")
    missing = [name for name in ("step", "term", "count") if name not in table.column_names]
    if missing:
        raise ArgumentError(
            f"the table of counts has no {' and no '.join(missing)}; it has "
            f"{', '.join(table.column_names)}"
        )
    known: dict[int, dict[str, int]] = {}
    for row in table.select(["step", "term", "count"]).to_pylist():
        known.setdefault(row["step"], {})[str(row["term"])] = row["count"]
    return known


def _check_corpora(models: set[str]) -> None:
    """One table of counts cannot be right for models that have read different texts."""
    corpora: dict[str, str] = {}
    for model in sorted(models):
        try:
            corpus = spec(model).corpus
        except UnknownModelError:
            continue  # a folder of one's own
        if corpus is not None:
            corpora[corpus] = model
    if len(corpora) > 1:
        what = " and ".join(f"{model} on {corpus}" for corpus, model in corpora.items())
        raise ArgumentError(f"the counts are of one corpus, but {what}: study them one by one")


def _origin(counts: pa.Table) -> dict[str, float | int | str]:
    """What the counts say of themselves; a table that was made by hand says nothing."""
    names = [name for name in ("source", "rule", "batch") if name in counts.column_names]
    told = {name: ", ".join(map(str, counts[name].unique().to_pylist())) for name in names}
    if not told:
        return {}
    return {"counts": "; ".join(f"{name} {value}" for name, value in told.items())}


def _points(group: list[Answered], known: dict[int, dict[str, int]], step: int) -> Points:
    if step not in known:
        there = ", ".join(map(str, sorted(known))) or "none"
        raise ArgumentError(f"terms were not counted for step {step}; they were for {there}")
    missing = [row.first for row in group if str(row.first) not in known[step]]
    if missing:
        raise ArgumentError(f"the number {missing[0]} was not counted for step {step}")
    rows = sorted((known[step][str(row.first)], row.first, row) for row in group)
    term, count, questions, correct = (
        np.array(values, np.int64)
        for values in zip(
            *((first, seen, row.questions, row.correct) for seen, first, row in rows), strict=True
        )
    )
    return Points(term, count, questions, correct)


def _told(schema: pa.Schema, key: dict[str, Any], columns: dict[str, Any]) -> pa.Table:
    count = len(next(iter(columns.values())))
    repeated = {name: [value] * count for name, value in key.items()}
    return pa.table(repeated | columns, schema=schema)


def _summary(table: pa.Table) -> dict[str, float | int | str]:
    if not len(table):
        return {"groups": 0, "note": "no answered question was found, so nothing can be told"}
    rows = table.to_pylist()
    told = [row for row in rows if row["spearman"] is not None]
    summary: dict[str, float | int | str] = {"groups": len(rows)}
    if not told:
        summary["note"] = "accuracy or counts do not vary, so that they cannot be correlated"
        return summary
    summary |= {
        "rising with frequency": sum(row["spearman"] > 0 for row in told),
        "rising among numbers of like size": sum((row["partial"] or 0) > 0 for row in told),
        "of these at 5% after Holm": sum(
            (row["partial"] or 0) > 0 and row["p_holm"] < 0.05 for row in told
        ),
    }
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in told:
        key = row["model"], row["operation"]
        if key not in latest or _when(row) > _when(latest[key]):
            latest[key] = row
    for (model, operation), row in latest.items():
        summary[f"{model}, {operation}"] = (
            f"step {row['step']:,}, {row['shots']} shots: spearman {row['spearman']:.2f}, "
            f"{_partly(row)}, gap {row['gap']:.3f}"
        )
    summary["note"] = (
        "small numbers are both frequent and easy: what the number itself explains is in spearman "
        "and gap, and not in partial"
    )
    return summary


def _when(row: dict[str, Any]) -> tuple[int, int]:
    return row["step"], row["shots"]


def _partly(row: dict[str, Any]) -> str:
    if row["partial"] is None:
        return "among numbers of like size not to be told"
    return f"among numbers of like size {row['partial']:.2f} (p {row['p_partial']:.2g})"
