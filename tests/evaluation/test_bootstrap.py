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

    values = np.array([1.0, 2.0, 5.0, 3.0])
    whole = module._means(values, 10)
    sizes = []
    original = np.random.default_rng

    class Counted:
        def __init__(self, seed):
            self.draw = original(seed)

        def integers(self, low, high, shape):
            sizes.append(shape)
            return self.draw.integers(low, high, shape)

    monkeypatch.setattr(np.random, "default_rng", Counted)
    monkeypatch.setattr(module, "_AT_ONCE", 12)
    parts = module._means(values, 10)
    assert sizes == [(3, 4), (3, 4), (3, 4), (1, 4)]
    np.testing.assert_array_equal(parts, whole)


def test_it_agrees_with_the_harness(monkeypatch):
    """With its own bootstrap, of other draws, in this process: its pool of processes prints."""
    from lm_eval.api import metrics

    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    values = np.random.default_rng(3).normal(-3, 1, 150).tolist()
    theirs = metrics.bootstrap_stderr(metrics.perplexity, values, 4000)
    ours = bootstrap_stderr(metrics.perplexity, values, 4000)
    assert abs(ours - theirs) < 0.06 * theirs
    theirs = metrics.bootstrap_stderr(metrics.median, values, 2000)
    ours = bootstrap_stderr(metrics.median, values, 2000)
    assert abs(ours - theirs) < 0.1 * theirs
