"""The statistics of the study of term frequency, for the terms of one group."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_fast.extras import require

_FEW = 3  # terms of which nothing can be told

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Points:
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


def tests_of(points: Points) -> dict[str, Any]:
    """A row of the study's table, by column; what cannot be told is left out."""
    accuracy = points.accuracy
    found: dict[str, Any] = {"terms": len(accuracy), "accuracy": float(accuracy.mean())}
    varied = len(accuracy) >= _FEW and np.ptp(accuracy) > 0 and np.ptp(points.seen) > 0
    if varied:
        stats = require("scipy.stats")
        spearman, p_spearman = stats.spearmanr(points.seen, accuracy)
        found |= {"spearman": float(spearman), "p_spearman": float(p_spearman)}
        found |= _partial(points)
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


def _partial(points: Points) -> dict[str, float]:
    """Spearman's correlation of accuracy and count with the number itself held fixed.

    From the regression of the ranks: t² / (t² + degrees of freedom) is its square.
    """
    rank = require("scipy.stats").rankdata
    sm = require("statsmodels.api")
    seen, accuracy, term = map(rank, (points.seen, points.accuracy, points.term))
    design = sm.add_constant(np.stack([seen, term], axis=1))
    if np.linalg.matrix_rank(design) < design.shape[1] or len(seen) <= design.shape[1]:
        return {}  # the counts are in the order of the numbers: the two cannot be told apart
    fit = sm.OLS(accuracy, design).fit()
    t = float(fit.tvalues[1])
    if not math.isfinite(t):
        return {}
    partial = math.copysign(math.sqrt(t * t / (t * t + fit.df_resid)), t)
    return {"partial": partial, "p_partial": float(fit.pvalues[1])}


def _logistic(points: Points) -> dict[str, float]:
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


def _separated(points: Points) -> bool:
    """Whether some count lies between all right answers and all wrong ones."""
    wrong = points.questions - points.correct
    right_at, wrong_at = points.seen[points.correct > 0], points.seen[wrong > 0]
    if not len(right_at) or not len(wrong_at):
        return True
    return bool(right_at.min() >= wrong_at.max() or wrong_at.min() >= right_at.max())


def common_edges(groups: Sequence[Points], bins: int) -> Floats | None:
    """The bins' edges, the same for all; None where no term was seen."""
    seen = np.concatenate([np.zeros(0, np.int64), *(each.seen for each in groups)])
    seen = seen[seen > 0]
    return np.geomspace(seen.min(), seen.max(), bins + 1) if len(seen) else None


def binned(points: Points, edges: Floats | None) -> dict[str, list[Any]]:
    """Means over the terms between two counts."""
    seen = points.seen > 0
    found: dict[str, list[Any]] = {
        name: [] for name in ("low", "high", "count", "terms", "accuracy", "stderr")
    }
    if edges is None or not seen.any():
        return found
    count, accuracy = points.seen[seen], points.accuracy[seen]
    bins = len(edges) - 1
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
