"""Confidence intervals of a step's value over its sequences (extra: `analysis`).

They say how far the value might lie from that of all sequences of which these are a sample. They
say nothing of how it would change with another training run.
"""

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pythia_fast.errors import ArgumentError
from pythia_fast.extras import require
from pythia_fast.metrics.memorization import Memorization, MemorizationScore
from pythia_fast.metrics.perplexity import Perplexity
from pythia_fast.metrics.protocol import Metric

Interval = tuple[float, float] | None
Floats = npt.NDArray[np.float64]


def interval(
    metric: Metric | None, sequences: pa.Table, name: str, value: float, level: float
) -> Interval:
    """The confidence interval of a step's headline number `value`, which is called `name`.

    `sequences` are all of the step's; `metric` None is one that nothing is known of. Perplexity:
    exp of the interval of the loss, a ratio of sums over sequences. Shares of sequences: Wilson's
    score interval. Scores and the means of other metrics' columns: Student's t. None where there
    is no interval: fewer than two sequences, values that are not finite, or a number of another
    metric that is not the mean of the column of its name. ArgumentError unless 0 < `level` < 1.
    """
    check_level(level)
    if isinstance(metric, Perplexity):
        loss = _of_ratio(_column(sequences, "nll"), _column(sequences, "tokens"), level)
        with np.errstate(over="ignore"):
            return None if loss is None else (float(np.exp(loss[0])), float(np.exp(loss[1])))
    if isinstance(metric, Memorization):
        return _of_share(_column(sequences, "memorized"), level)
    if isinstance(metric, MemorizationScore):
        found = _of_mean(_column(sequences, "score"), level)
        return None if found is None else (max(found[0], 0.0), min(found[1], 1.0))
    if name not in sequences.column_names or not _is_number(sequences.schema.field(name).type):
        return None
    column = _column(sequences, name)
    if not len(column) or not math.isclose(column.mean(), value, rel_tol=1e-9, abs_tol=1e-12):
        return None
    is_share = pa.types.is_boolean(sequences.schema.field(name).type)
    return (_of_share if is_share else _of_mean)(column, level)


def check_level(level: float) -> None:
    """ArgumentError unless it is the level of a confidence interval."""
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ArgumentError(f"level is between 0 and 1, such as 0.95, not {level!r}")


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind))


def _column(sequences: pa.Table, name: str) -> Floats:
    """A column without its nulls, as floats."""
    column = sequences[name].drop_null().cast(pa.float64())
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _of_mean(values: Floats, level: float) -> Interval:
    """Student's t interval of a mean."""
    stats = require("scipy.stats")
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    return _around(float(values.mean()), float(stats.sem(values)), len(values), level)


def _of_ratio(above: Floats, below: Floats, level: float) -> Interval:
    """Of sum(above) / sum(below): the ratio estimator (Cochran, Sampling Techniques, 6.4)."""
    total = float(below.sum())
    if len(above) < 2 or not total or not np.isfinite(above).all():
        return None
    ratio = float(above.sum()) / total
    count = len(above)
    spread = float(np.square(above - ratio * below).sum())
    return _around(ratio, math.sqrt(count / (count - 1) * spread) / total, count, level)


def _of_share(values: Floats, level: float) -> Interval:
    """Wilson's interval of a share, which also holds where it is 0 or 1."""
    if not len(values):
        return None
    confint = require("statsmodels.stats.proportion").proportion_confint
    count, total = float(values.sum()), len(values)
    low, high = confint(count, total, alpha=1 - level, method="wilson")
    # Of none and of all one end is exact, which the sum comes near to only.
    return (0.0 if count == 0 else float(low)), (1.0 if count == total else float(high))


def _around(centre: float, stderr: float, count: int, level: float) -> Interval:
    reach = float(require("scipy.stats").t.ppf((1 + level) / 2, count - 1)) * stderr
    return centre - reach, centre + reach
