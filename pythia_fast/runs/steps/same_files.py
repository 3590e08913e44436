"""Steps of a folder with the same weights, found before anything is loaded.

A folder promises no digests. Files that are alike in size and in some samples are hashed, and no
others: of Pythia's steps that is the first two.
"""

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from pythia_fast.errors import PythiaFastError, ReadError
from pythia_fast.runs.steps.survey import Survey
from pythia_fast.series import Checkpoint, CheckpointSeries

_SAMPLES, _SAMPLE_BYTES = 8, 2**14


def with_digests(series: CheckpointSeries, found: Survey) -> Survey:
    """The same survey, with `weights_sha256` of the steps whose files seem to be alike.

    What cannot be opened is left as it is: whoever loads it is told.
    """
    alike: dict[object, list[int]] = {}
    for step, revision in found.revisions.items():
        if revision.error is None and revision.weights_sha256 is None:
            key = _of_step(series, step, _sampled)
            alike.setdefault(("step", step) if key is None else key, []).append(step)
    digests = {
        step: _of_step(series, step, _hashed)
        for steps in alike.values()
        if len(steps) > 1
        for step in steps
    }
    revisions = {
        step: replace(revision, weights_sha256=digests.get(step, revision.weights_sha256))
        for step, revision in found.revisions.items()
    }
    return replace(found, revisions=revisions)


def _of_step(series: CheckpointSeries, step: int, look: Callable[[Checkpoint], str]) -> str | None:
    try:
        with closing(series.open(step)) as checkpoint:
            return look(checkpoint)
    except PythiaFastError:
        return None


def _hashed(checkpoint: Checkpoint) -> str:
    return checkpoint.weights_sha256


def _sampled(checkpoint: Checkpoint) -> str:
    """A digest of the files' names, sizes, and pieces of them that lie at equal distances."""
    digest = hashlib.sha256()
    for file in checkpoint.files:
        digest.update(f"{file.name} {file.size}\n".encode())
        try:
            with file.path.open("rb") as opened:
                for sample in range(_SAMPLES):
                    opened.seek(file.size * (2 * sample + 1) // (2 * _SAMPLES))
                    digest.update(opened.read(_SAMPLE_BYTES))
        except OSError as error:
            raise ReadError(error.errno, f"cannot read {file.path}: {error.strerror}") from error
    return digest.hexdigest()
