"""Standard errors by resampling, for metrics that are no plain means."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ITERATIONS = 1000
"""Resamples: they give a standard error within about 2%."""

_AT_ONCE = 1 << 22  # values drawn at a time


def bootstrap_stderr(
    metric: Callable[[Sequence[Any]], float], values: Sequence[Any], iters: int
) -> float:
    """The standard deviation of `metric` over `iters` resamples of `values`, with replacement.

    The same values give the same result. Metrics that are functions of a mean of numbers, of which
    perplexity is the one in common use, are resampled as arrays.
    """
    if getattr(metric, "__name__", "") == "perplexity":
        return float(np.std(np.exp(-_means(np.asarray(values, float), iters)), ddof=1))
    draw = random.Random(0)
    found = [metric(draw.choices(values, k=len(values))) for _ in range(iters)]
    return float(np.std(np.asarray(found, float), ddof=1)) if iters > 1 else math.nan


def _means(values_N: Any, iters: int) -> Any:
    draw = np.random.default_rng(0)
    at_once = max(1, _AT_ONCE // max(1, len(values_N)))
    return np.concatenate(
        [
            values_N[draw.integers(0, len(values_N), (min(at_once, iters - done), len(values_N)))]
            .mean(1)
            for done in range(0, iters, at_once)
        ]
    )  # fmt: skip
