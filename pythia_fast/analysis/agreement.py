"""How well two judgements of the same sequences agree, with intervals."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pythia_fast.extras import require

Numbers = npt.NDArray[Any]

_MOST_PAIRS = 1_000_000  # of values, that are counted in a table
_ROUNDING = 1e-12
_FEW = 25  # sequences, fewer of which leave the spread unknown


class Estimate(NamedTuple):
    """A number and the ends of its interval; None where it cannot be told."""

    value: float | None
    low: float | None
    high: float | None


UNTOLD = Estimate(None, None, None)


def proportion(count: int, of: int, level: float) -> Estimate:
    """`count / of` with Wilson's interval."""
    if not of:
        return UNTOLD
    interval = require("statsmodels.stats.proportion").proportion_confint
    low, high = interval(count, of, alpha=1 - level, method="wilson")
    return Estimate(count / of, float(low), float(high))


def correlation(x: Numbers, y: Numbers, level: float) -> Estimate:
    """Pearson's correlation of two columns, [N] each; of flags it is the phi coefficient.

    The interval is Fisher's, on the scale of artanh, but with the standard error that the
    correlation has whatever the distribution (from its influence function): neither flags nor
    scores are normal, and of rarely shared flags Fisher's own is far too narrow. That error is
    itself an estimate, which says too little where few agree: of flags that go together (or go
    apart) less than `_FEW` times, the interval reaches as far as Wilson's for how many do.
    """
    x_values, x_code = _coded(x)
    y_values, y_code = _coded(y)
    if len(x_values) < 2 or len(y_values) < 2:
        return UNTOLD  # what never varies goes with nothing
    pair = x_code.astype(np.int64) * len(y_values) + y_code
    if len(x_values) * len(y_values) <= _MOST_PAIRS:
        counts = np.bincount(pair)
        pairs = np.flatnonzero(counts)
        counts = counts[pairs]
    else:
        pairs, counts = np.unique(pair, return_counts=True)
    both = np.stack([x_values[pairs // len(y_values)], y_values[pairs % len(y_values)]], 1)
    both = both.astype(np.float64)
    weighted = require("statsmodels.stats.weightstats").DescrStatsW(both, weights=counts)
    r = float(weighted.corrcoef[0, 1])
    n = int(counts.sum())
    if n < 4 or abs(r) > 1 - _ROUNDING:  # of those that agree in all there is no spread to go by
        return Estimate(float(np.clip(r, -1, 1)), None, None)
    z = (both - weighted.mean) / weighted.std
    influence = z[:, 0] * z[:, 1] - r / 2 * (z**2).sum(1)
    error = math.sqrt(float(np.average(influence**2, weights=counts)) / n) / (1 - r**2)
    low, high = np.tanh(require("scipy.stats").norm.interval(level, math.atanh(r), error)).tolist()
    if len(x_values) == len(y_values) == 2:
        cells = np.zeros(4, dtype=np.int64)
        cells[pairs] = counts
        rising = np.ix_(np.argsort(x_values), np.argsort(y_values))
        least, most = _of_few(cells.reshape(2, 2)[rising], level)
        low, high = min(low, least), max(high, most)
    return Estimate(r, low, high)


def _of_few(cells: Numbers, level: float) -> tuple[float, float]:
    """Between which values phi lies by the rarest of the four cells, the margins being known.

    The whole of what is possible turned around, (1, -1), where no cell is rare.
    """
    row, column = np.unravel_index(int(cells.argmin()), (2, 2))
    together = int(cells[row, column])
    if together >= _FEW:
        return 1.0, -1.0
    n, sides = int(cells.sum()), (int(cells[row].sum()), int(cells[:, column].sum()))
    fewer, more = min(sides), max(sides)
    confint = require("statsmodels.stats.proportion").proportion_confint
    low, high = confint(together, fewer, alpha=1 - level, method="wilson")
    scale = math.sqrt(fewer * (n - fewer)) * math.sqrt(more * (n - more))
    ends = [(max(end * fewer, fewer + more - n) * n - fewer * more) / scale for end in (low, high)]
    if row != column:  # these agree by being apart
        ends = [-end for end in reversed(ends)]
    return max(ends[0], -1.0), min(ends[1], 1.0)


def _coded(x: Numbers) -> tuple[Numbers, npt.NDArray[np.int32]]:
    """The distinct values, and for each of `x` which one it is. Without sorting millions."""
    encoded = pa.array(x).dictionary_encode()
    return encoded.dictionary.to_numpy(zero_copy_only=False), encoded.indices.to_numpy()
