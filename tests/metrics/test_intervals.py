"""Confidence intervals against what resampling the sequences gives, and against coverage."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import METRICS, Perplexity, summarize
from pythia_fast.metrics.intervals import interval

N = 300


def of(metric: str, table: pa.Table, level: float = 0.95) -> tuple[float, float] | None:
    numbers = summarize(METRICS.get(metric), table)
    name, value = next(iter(numbers.items()))
    return interval(METRICS.get(metric), table, name, value, level)


def losses(seed: int, count: int = N) -> pa.Table:
    """Sequences of many lengths, whose loss depends on the length: the ratio is no mean of means"""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 200, count)
    nll = tokens * (3 + 0.004 * tokens + rng.normal(0, 0.5, count))
    return pa.table({"nll": nll, "tokens": tokens, "nonfinite": np.zeros(count, int)})


def shares(seed: int, share: float = 0.1, count: int = N) -> pa.Table:
    rng = np.random.default_rng(seed)
    flags = rng.random(count) < share
    zeros = np.zeros(count, int)
    return pa.table({"memorized": flags, "redecided": zeros > 0, "nonfinite": zeros})


def scores(seed: int, count: int = N) -> pa.Table:
    rng = np.random.default_rng(seed)
    table = shares(seed, count=count)
    return table.append_column("score", pa.array(rng.beta(0.5, 2, count)))


def bootstrap(metric: str, table: pa.Table, resamples: int = 2000) -> tuple[float, float]:
    """Percentiles of the step's value over resampled sequences, by the metric's own rule."""
    rng = np.random.default_rng(7)
    values = []
    for _ in range(resamples):
        some = table.take(pa.array(rng.integers(0, len(table), len(table))))
        values.append(next(iter(summarize(METRICS[metric], some).values())))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize(
    ("metric", "table"),
    [
        ("perplexity", losses(1)),
        ("memorization", shares(2, 0.3)),
        ("memorization-score", scores(3)),
    ],
)
def test_an_interval_is_what_resampling_gives(metric: str, table: pa.Table) -> None:
    found, wanted = of(metric, table), bootstrap(metric, table)
    assert found is not None
    width = wanted[1] - wanted[0]
    assert found == pytest.approx(wanted, abs=0.1 * width)


def test_perplexity_weighs_tokens_and_its_ends_are_exp_of_the_loss() -> None:
    table = losses(4)
    low, high = of("perplexity", table)
    nll, tokens = table["nll"].to_numpy(), table["tokens"].to_numpy()
    # The ratio estimator is the weighted regression through the origin's robust error.
    loss = nll.sum() / tokens.sum()
    influence = (nll - loss * tokens) / tokens.mean()
    error = influence.std(ddof=1) / math.sqrt(N)
    reach = stats.t.ppf(0.975, N - 1) * error
    assert (math.log(low), math.log(high)) == pytest.approx((loss - reach, loss + reach), rel=1e-9)


def test_a_share_has_wilsons_interval() -> None:
    table = shares(5)
    count = sum(table["memorized"].to_pylist())
    wanted = stats.binomtest(count, N).proportion_ci(0.9, method="wilson")
    assert of("memorization", table, 0.9) == pytest.approx((wanted.low, wanted.high), rel=1e-9)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_none_or_all_is_not_sure(share: float) -> None:
    low, high = of("memorization", shares(6, share, count=20))
    assert (low, high) == (
        (0.0, pytest.approx(0.1611, abs=1e-4))
        if share == 0
        else (pytest.approx(0.8389, abs=1e-4), 1)
    )


def test_a_mean_score_has_students_interval_within_0_and_1() -> None:
    table = scores(7)
    values = table["score"].to_numpy()
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert of("memorization-score", table) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    few = scores(8, count=2)
    low, high = of("memorization-score", few)
    assert low >= 0
    assert high <= 1


@pytest.mark.parametrize(("metric", "make"), [("perplexity", losses), ("memorization", shares)])
def test_intervals_cover_the_truth_as_often_as_they_say(metric: str, make: object) -> None:
    """200 samples of one distribution; its truth is the value of a very large sample."""
    truth = next(iter(summarize(METRICS[metric], make(0, count=200_000)).values()))
    hits = 0
    for seed in range(200):
        low, high = of(metric, make(seed + 1, count=100), 0.9)
        hits += low <= truth <= high
    # Binomial(200, 0.9): 170 to 190 hold all but 1% of it; the t is approximate for a ratio.
    assert 168 <= hits <= 192


def test_a_users_metric_has_one_if_its_number_is_a_mean() -> None:
    values = np.random.default_rng(9).normal(3, 1, N)
    flags = values > 3
    table = pa.table({"distance": values, "far": flags, "sequence": np.arange(N)})
    low, high = interval(None, table, "distance", float(values.mean()), 0.95)
    wanted = stats.t.interval(0.95, N - 1, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(wanted, rel=1e-9)
    share = interval(None, table, "far", float(flags.mean()), 0.95)
    ci = stats.binomtest(int(flags.sum()), N).proportion_ci(0.95, method="wilson")
    assert share == pytest.approx((ci.low, ci.high), rel=1e-9)
    assert interval(None, table, "distance", float(np.median(values)), 0.95) is None
    assert interval(None, table, "unknown", 1.0, 0.95) is None
    words = pa.table({"word": ["a", "b"]})
    assert interval(None, words, "word", 1.0, 0.95) is None


def test_without_two_finite_sequences_there_is_none() -> None:
    assert of("perplexity", losses(1, count=1)) is None
    broken = losses(1).set_column(0, "nll", pa.array([math.nan, *[1.0] * (N - 1)]))
    assert interval(Perplexity(), broken, "perplexity", math.nan, 0.95) is None
    assert of("memorization-score", scores(1, count=1)) is None
    nulls = pa.table({"x": pa.array([None, None, 1.0])})
    assert interval(None, nulls, "x", 1.0, 0.95) is None


def test_equal_sequences_have_an_interval_of_no_width() -> None:
    table = pa.table({"nll": [6.0, 6.0], "tokens": [2, 2], "nonfinite": [0, 0]})
    assert of("perplexity", table) == pytest.approx((math.exp(3), math.exp(3)))


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan, True, "0.9", None])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(ArgumentError, match=r"0\.95"):
        of("perplexity", losses(1), level)


def test_the_ends_of_none_and_of_all_are_exact() -> None:
    for count in (3, 50, 143):
        none = pa.table({"memorized": [False] * count, "redecided": [False] * count})
        none = none.append_column("nonfinite", pa.array([0] * count))
        every = none.set_column(0, "memorized", pa.array([True] * count))
        low, high = of("memorization", none)
        assert low == 0.0 < high
        low, high = of("memorization", every)
        assert low < high == 1.0
