import math

import numpy as np
from scipy.stats import bootstrap

from pythia_fast.evaluation.bootstrap import bootstrap_stderr


def perplexity(values):
    return math.exp(-np.mean(values))


def test_perplexity_is_that_of_scipy():
    values = np.random.default_rng(1).normal(-3, 1, 400)
    expected = bootstrap(
        (values,), lambda x, axis: np.exp(-np.mean(x, axis)), n_resamples=4000, rng=0
    ).standard_error
    found = bootstrap_stderr(perplexity, values.tolist(), 4000)
    assert abs(found - expected) < 0.06 * expected


def test_any_metric_is_resampled():
    values = list(np.random.default_rng(2).normal(0, 2, 200))
    expected = bootstrap((values,), np.median, n_resamples=2000, rng=0).standard_error
    found = bootstrap_stderr(np.median, values, 2000)
    assert abs(found - expected) < 0.1 * expected
    assert bootstrap_stderr(np.median, values, 2000) == found


def test_memory_is_bounded_by_parts(monkeypatch):
    from pythia_fast.evaluation import bootstrap as module

    values = [1.0, 2.0, 5.0, 3.0]
    monkeypatch.setattr(module, "_AT_ONCE", 12)
    assert len(module._means(np.array(values), 10)) == 10
