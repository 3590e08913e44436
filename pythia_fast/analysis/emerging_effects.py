"""The statistics of emergence: how much more a cohort has changed than what nobody has seen."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pythia_fast.analysis.moments import Moments
from pythia_fast.extras import require

_FEW = 5  # flags that have changed


def effects(moments: Moments, level: float, *, flags: bool) -> Iterator[dict[str, Any]]:
    """A row for each cohort that has sequences, and each checkpoint but its baseline."""
    steps = moments.steps.tolist()
    for start in range(len(steps) - 1):
        cohort = slice(start + 1, start + 2)
        if not moments.count_K[cohort].sum():
            continue
        for end, step in enumerate(steps):
            if end != start:
                unseen = slice(max(start + 1, end) + 1, None)
                after, by = steps[start], steps[start + 1]
                row = {"seen_after": after, "seen_by": by, "step": step}
                row["since"] = step - (by if step >= by else after)
                found = _effect(moments, cohort, unseen, start, end, level)
                if flags and found["unseen"]:
                    ways = [moments.turned(each, start, end) for each in (cohort, unseen)]
                    if min(map(sum, ways)) < _FEW:
                        sizes = found["sequences"], found["unseen"]
                        found |= _effect_of_few(ways, sizes, level)
                yield row | found


def _effect(
    moments: Moments, cohort: slice, unseen: slice, start: int, end: int, level: float
) -> dict[str, Any]:
    count, change, deviation = moments.change(cohort, start, end)
    others, drift, spread = moments.change(unseen, start, end)
    row: dict[str, Any] = {"sequences": count, "unseen": others}
    row |= {"before": moments.level(cohort, start)[1], "after": moments.level(cohort, end)[1]}
    if not others:
        return row
    row["unseen_before"] = moments.level(unseen, start)[1]
    row["unseen_after"] = moments.level(unseen, end)[1]
    row["effect"] = change - drift
    if min(count, others) < 2:
        return row
    if not deviation + spread > 0:  # none of them has changed otherwise than the rest
        return row
    test = require("statsmodels.stats.weightstats").CompareMeans(
        _described(count, change, deviation), _described(others, drift, spread)
    )
    low, high = test.tconfint_diff(alpha=1 - level, usevar="unequal")
    row |= {"stderr": float(test.std_meandiff_separatevar), "low": float(low), "high": float(high)}
    return row | {"p": float(test.ttest_ind(usevar="unequal")[1])}


def _described(count: int, mean: float, deviation: float) -> Any:
    """What statsmodels says of so many values, of which only the moments are known.

    It is made of two values with weights, which have the same ones.
    """
    side = deviation * math.sqrt((count - 1) / count)
    values = np.array([mean - side, mean + side])
    return require("statsmodels.stats.weightstats").DescrStatsW(values, [count / 2] * 2)


def _effect_of_few(
    ways: Sequence[tuple[int, int]], sizes: tuple[int, int], level: float
) -> dict[str, Any]:
    """Of flags of which hardly any have become true, or false: in the cohort, in the unseen."""
    nothing = dict.fromkeys(("stderr", "low", "high", "p"))
    ups, downs = zip(*ways, strict=True)
    if any(ups) and any(downs):
        return nothing
    sign, counts = (-1, downs) if any(downs) else (1, ups)
    proportions = require("statsmodels.stats.proportion")
    pairs = [number for pair in zip(counts, sizes, strict=True) for number in pair]
    ends = proportions.confint_proportions_2indep(*pairs, method="newcomb", alpha=1 - level)
    low, high = sorted(sign * float(end) for end in ends)
    width = float(require("scipy.stats").norm.isf((1 - level) / 2))
    found = {"stderr": (high - low) / (2 * width), "low": low, "high": high}
    turned = [[count, size - count] for count, size in zip(counts, sizes, strict=True)]
    return found | {"p": float(require("scipy.stats").fisher_exact(turned).pvalue)}
