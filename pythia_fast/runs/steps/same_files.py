"""Steps of a folder with the same weights, found before anything is loaded.

A folder promises no digests. Steps that are alike in names, sizes and samples are hashed, and no
others: of Pythia's steps that is the first two.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from pythia_fast.errors import PythiaFastError
from pythia_fast.runs.steps.survey import Survey
from pythia_fast.series import CheckpointSeries, LocalSeries, Revision
from pythia_fast.words import listed


def with_digests(
    series: CheckpointSeries,
    found: Survey,
    steps: Collection[int],
    say: Callable[[str], None],
    known: Mapping[int, str],
) -> Survey:
    """The same survey, with digests of those steps that seem to have the weights of one of `steps`.

    They are told first. What cannot be read is left as it is: whoever loads it is told. `known` are
    the fingerprints of weights that were computed already.
    """
    if not isinstance(series, LocalSeries):
        return found
    revisions = dict(found.revisions)
    for group in found.alike(revisions):
        unknown = [step for step in group if revisions[step].digest is None]
        if len(group) < 2 or not unknown or not set(group) & set(steps):
            continue
        say(f"steps {listed(group)} look alike: their weights are compared")
        merged = False
        for step in sorted(unknown, key=known.__contains__):
            if step in known and not merged:
                revisions[step] = replace(revisions[step], weights_sha256=known[step])
                continue
            with suppress(PythiaFastError):
                identity = series.identity(step)
                revisions[step] = replace(series.hashed(revisions[step]), identity=identity)
                merged = merged or revisions[step].parts_sha256 is not None
    return replace(found, revisions=revisions)


def has_changed(series: CheckpointSeries, compared: Revision, sha256: str) -> bool:
    """Whether a step may be of other weights, with this digest, than when it was compared."""
    if compared.weights_sha256 is not None or compared.identity is None:
        return compared.weights_sha256 not in (None, sha256)
    try:
        return series.identity(compared.step) != compared.identity
    except PythiaFastError:  # it has gone
        return True
