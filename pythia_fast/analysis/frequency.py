"""Whether a model reckons better with numbers that it has seen more often.

The suite's case study (arXiv:2304.01373, section 4.3), after Razeghi et al. (2022,
arXiv:2202.07206): each first number of the questions, 0 to 99, with its accuracy and the number of
times that it occurs in what the checkpoint has seen.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pythia_fast.analysis.answered import Answered, answered
from pythia_fast.analysis.frequency_figure import draw_frequency
from pythia_fast.analysis.study import Study
from pythia_fast.errors import ArgumentError
from pythia_fast.extras import require
from pythia_fast.runs import SweepResult
from pythia_fast.tokens.steps import integer
from pythia_fast.tokens.terms import TermCounts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 20
"""As many as the published figure has."""
_FEW = 3  # terms of which nothing can be told

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

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
    results: "SweepResult | pa.Table | Iterable[SweepResult | pa.Table]",
    counts: TermCounts | pa.Table,
    *,
    bins: int = BINS,
) -> Study:
    """Accuracy in arithmetic against how often the first number was seen.

    `results` are runs with the metric of `Questions`, or tables of evaluations with the tasks
    num_reasoning_arithmetic_…, as `published` reads them; one or several. `counts` are by
    `count_terms`, or its table (`step`, `term`, `count`), for every step of the results and every
    first number.

    `table`, a row for each model, step, operation and number of shots: `accuracy`, the mean over
    the `terms`; `spearman`, the rank correlation of a term's accuracy with its count; `slope`, by a
    logistic regression, the rise of the logarithm of the odds of a right answer for ten times the
    count (plus one), whose error allows for the questions of one number being alike; and, as in the
    paper's table, the `gap` between `top`, the tenth of the terms that were seen most, and the
    `bottom` one. What cannot be told, as where no answer is right, is null.

    `details`: "terms", every point; "bins", the points in at most `bins` parts of equal width on
    the logarithmic axis of counts (a term that was never seen is in none). `figure()`: these.

    ArgumentError for other results, for counts that lack a step or number, or for two results of
    the same model, step and question; and without scipy and statsmodels (extra: `analysis`).
    """
    if integer(bins, "bins") < 1:
        raise ArgumentError(f"bins is at least 1, got {bins}")
    require("scipy.stats")
    known = _known(counts)
    rows: list[dict[str, Any]] = []
    terms, parts = [_TERMS.empty_table()], [_BINS.empty_table()]
    for key, group in _groups(answered(results)):
        of_group = dict(zip((name for name, _ in _KEY), key, strict=True))
        points = _points(group, known, key[1])
        rows.append(of_group | _tests(points))
        terms.append(_told(_TERMS, of_group, points.columns))
        parts.append(_told(_BINS, of_group, _binned(points, bins)))
    details = {"terms": pa.concat_tables(terms), "bins": pa.concat_tables(parts)}

    def draw(table: pa.Table) -> "Figure":
        return draw_frequency(table, details["bins"])

    table = pa.Table.from_pylist(rows, schema=_TABLE)
    return Study("term frequency", table, _summary(table), draw, details)


@dataclass(frozen=True, slots=True)
class _Points:
    """The terms of one model, step, operation and number of shots, by rising count."""

    term: Ints
    seen: Ints  # that often
    questions: Ints
    correct: Ints

    @property
    def accuracy(self) -> Floats:
        """The share of a term's questions that was answered right."""
        return self.correct / self.questions

    @property
    def columns(self) -> dict[str, Any]:
        """As the table of terms has them."""
        return {
            "term": self.term,
            "count": self.seen,
            "questions": self.questions,
            "correct": self.correct,
            "accuracy": self.accuracy,
        }


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


def _known(counts: TermCounts | pa.Table) -> dict[int, dict[str, int]]:
    table = counts.table if isinstance(counts, TermCounts) else counts
    if not isinstance(table, pa.Table) or not {"step", "term", "count"} <= set(table.column_names):
        raise ArgumentError(
            "counts are a TermCounts, or a table with the columns step, term and count, got "
            f"{type(counts).__name__}"
        )
    known: dict[int, dict[str, int]] = {}
    for row in table.select(["step", "term", "count"]).to_pylist():
        known.setdefault(row["step"], {})[str(row["term"])] = row["count"]
    return known


def _points(group: list[Answered], known: dict[int, dict[str, int]], step: int) -> _Points:
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
    return _Points(term, count, questions, correct)


def _tests(points: _Points) -> dict[str, Any]:
    accuracy = points.accuracy
    found: dict[str, Any] = {"terms": len(accuracy), "accuracy": float(accuracy.mean())}
    varied = len(accuracy) >= _FEW and np.ptp(accuracy) > 0 and np.ptp(points.seen) > 0
    if varied:
        stats = require("scipy.stats")
        spearman, p_spearman = stats.spearmanr(points.seen, accuracy)
        found |= {"spearman": float(spearman), "p_spearman": float(p_spearman)}
        found |= _logistic(points)
    tenth = max(1, round(len(accuracy) / 10))
    if len(accuracy) >= 2 * tenth:
        bottom, top = accuracy[:tenth], accuracy[-tenth:]
        found |= {
            "top": float(top.mean()),
            "bottom": float(bottom.mean()),
            "gap": float(top.mean() - bottom.mean()),
            "gap_stderr": None,
        }
        if tenth > 1:
            variance = (top.var(ddof=1) + bottom.var(ddof=1)) / tenth
            found["gap_stderr"] = math.sqrt(variance)
    return found


def _logistic(points: _Points) -> dict[str, float]:
    """The slope of log odds per tenfold count; nothing where the terms separate without a rest."""
    sm = require("statsmodels.api")
    tools = require("statsmodels.tools.sm_exceptions")
    tens = np.log10(points.seen + 1.0)
    if _separated(points):
        return {}
    outcomes = np.stack([points.correct, points.questions - points.correct], axis=1)
    model = sm.GLM(outcomes, sm.add_constant(tens), family=sm.families.Binomial())
    try:
        fit = model.fit(cov_type="HC0")
    except (tools.PerfectSeparationError, np.linalg.LinAlgError):
        return {}
    slope, error, p = (float(each[1]) for each in (fit.params, fit.bse, fit.pvalues))
    return {"slope": slope, "slope_stderr": error, "p_slope": p} if fit.converged else {}


def _separated(points: _Points) -> bool:
    """Whether some count lies between all right answers and all wrong ones."""
    wrong = points.questions - points.correct
    right_at, wrong_at = points.seen[points.correct > 0], points.seen[wrong > 0]
    if not len(right_at) or not len(wrong_at):
        return True
    return bool(right_at.min() >= wrong_at.max() or wrong_at.min() >= right_at.max())


def _binned(points: _Points, bins: int) -> dict[str, list[Any]]:
    """Means over the terms between two counts; edges are the same tenths of a power everywhere."""
    seen = points.seen > 0
    found: dict[str, list[Any]] = {name: [] for name in _BINS.names[len(_KEY) :]}
    if not seen.any():
        return found
    count, accuracy = points.seen[seen], points.accuracy[seen]
    edges = np.geomspace(count.min(), count.max(), bins + 1)
    place = np.clip(np.searchsorted(edges, count, side="right") - 1, 0, bins - 1)
    for each in np.unique(place).tolist():
        here = accuracy[place == each]
        spread = float(here.std(ddof=1)) / math.sqrt(len(here)) if len(here) > 1 else None
        values = (
            *(float(edges[each]), float(edges[each + 1])),
            *(float(np.exp(np.log(count[place == each]).mean())), len(here)),
            *(float(here.mean()), spread),
        )
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    return found


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
    last = max(told, key=lambda row: (row["step"], row["shots"]))
    what = f"{last['model']}, step {last['step']:,}, {last['operation']}, {last['shots']} shots"
    summary |= {
        "rising with frequency": sum(row["spearman"] > 0 for row in told),
        "at 5%": sum(row["spearman"] > 0 and row["p_spearman"] < 0.05 for row in told),
        f"spearman ({what})": last["spearman"],
        f"gap ({what})": last["gap"],
    }
    return summary
