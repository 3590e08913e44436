"""Steps of a folder with the same weights, found before anything is loaded.

A folder promises no digests. Steps that are alike in names, sizes and samples are hashed, and no
others: of Pythia's steps that is the first two.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from pythia_fast.errors import PythiaFastError
from pythia_fast.runs.steps.survey import Survey
from pythia_fast.series import CheckpointSeries, LocalSeries


def with_digests(
    series: CheckpointSeries,
    found: Survey,
    steps: Collection[int],
    say: Callable[[str], None],
) -> Survey:
    """The same survey, with digests of those steps that seem to have the weights of one of `steps`.

    They are told first. What cannot be read is left as it is: whoever loads it is told.
    """
    if not isinstance(series, LocalSeries):
        return found
    revisions = dict(found.revisions)
    for group in found.alike(revisions):
        unknown = [step for step in group if revisions[step].digest is None]
        if len(group) < 2 or not unknown or not set(group) & set(steps):
            continue
        say(f"steps {_listed(group)} look alike: their weights are compared")
        for step in unknown:
            with suppress(PythiaFastError):
                revisions[step] = series.hashed(revisions[step])
    return replace(found, revisions=revisions)


def _listed(steps: Sequence[int]) -> str:
    *first, last = steps
    return f"{', '.join(map(str, first))} and {last}"
