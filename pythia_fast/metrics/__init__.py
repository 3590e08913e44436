"""What is asked of every checkpoint: perplexity, memorization, and a user's own metrics."""

from collections.abc import Mapping, Sequence

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics.memorization import Memorization, MemorizationScore
from pythia_fast.metrics.perplexity import Perplexity
from pythia_fast.metrics.protocol import (
    Batch,
    Metric,
    identity,
    looked_at,
    min_tokens,
    summarize,
)
from pythia_fast.words import nearest

__all__ = [
    "METRICS",
    "Batch",
    "Memorization",
    "MemorizationScore",
    "Metric",
    "Perplexity",
    "canonical_order",
    "identity",
    "looked_at",
    "min_tokens",
    "resolve",
    "summarize",
]

METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in (Perplexity(), Memorization(), MemorizationScore())
}
"""The metrics that a name stands for."""
LONGEST_NAME = 100
"""Of a metric: with what stands around it, a file's name may have 255 bytes."""


def canonical_order(name: str) -> tuple[int, str]:
    """The key that sorts metrics' names: the built-in ones first, then by the alphabet."""
    return (list(METRICS).index(name) if name in METRICS else len(METRICS), name)


def resolve(metrics: str | Metric | Sequence[str | Metric]) -> tuple[Metric, ...]:
    """Names, in whatever case, and objects to metrics.

    ArgumentError for an unknown or a repeated name, and for a built-in one on another metric.
    """
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        metrics = (metrics,)
    resolved = tuple(_one(metric) for metric in metrics)
    if not resolved:
        raise ArgumentError("no metric given: name at least one, such as 'perplexity'")
    names = [metric.name for metric in resolved]
    if len(set(names)) < len(names):
        raise ArgumentError(f"each metric needs a name of its own, got {', '.join(names)}")
    return tuple(sorted(resolved, key=lambda metric: canonical_order(metric.name)))


def _one(metric: str | Metric) -> Metric:
    if isinstance(metric, str):
        bare = metric.strip().lower()
        if bare not in METRICS:
            raise ArgumentError(f"there is {nearest('metric', metric, METRICS)}")
        return METRICS[bare]
    name = getattr(metric, "name", None)
    if not callable(metric) or not isinstance(name, str) or isinstance(metric, type):
        raise ArgumentError(
            f"{metric!r} is no metric: give an object with a `name` and a `__call__(model, batch)`"
        )
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise ArgumentError(f"a metric's name holds letters, digits, - and _ only, not {name!r}")
    if len(name) > LONGEST_NAME:
        raise ArgumentError(
            f"a metric's name is part of file names, and has {LONGEST_NAME} characters at most; "
            f"{name[:40]}… has {len(name)}"
        )
    if name in METRICS and not isinstance(metric, type(METRICS[name])):
        raise ArgumentError(
            f"{name!r} is the name of a built-in metric, by which its results are read: give "
            f"{type(metric).__name__} another `name`, or derive it from "
            f"{type(METRICS[name]).__name__}"
        )
    return metric
