"""One step of a sweep to come: what is known of it before it is begun."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.runs.steps.survey import Survey


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One checkpoint of a sweep to come.

    `format` is "torch", "safetensors" or "GPT-NeoX", None if it is not known; `files` are those
    that will be read, with their sizes, `sha256` their digests, None for a folder's. With
    `missing`, the reason, the step cannot be had. `duplicate_of` is an earlier step of the sweep
    with the same weights; `anomalies` are known.
    """

    step: int
    commit: str | None
    format: str | None
    files: Mapping[str, int]
    sha256: Mapping[str, str | None]
    here_bytes: int
    download_bytes: int
    duplicate_of: int | None
    missing: str | None
    anomalies: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """What its files take on the disk."""
        return sum(self.files.values())


def planned_step(step: int, found: Survey, groups: Sequence[tuple[int, ...]]) -> PlannedStep:
    """What the survey has found of a step; `groups` are the steps with the same weights."""
    revision = found.revisions[step]
    first = next((group[0] for group in groups if step in group), step)
    duplicate = first != step
    return PlannedStep(
        step=step,
        commit=revision.commit,
        format=_format([file.path for file in revision.files]),
        files={file.path: file.size for file in revision.files},
        sha256={file.path: file.sha256 for file in revision.files},
        here_bytes=revision.here_bytes,
        download_bytes=0 if duplicate or revision.error else revision.download_bytes,
        duplicate_of=first if duplicate else None,
        missing=None if revision.error is None else str(revision.error),
        anomalies=found.remarks(step),
    )


def _format(names: Sequence[str]) -> str | None:
    suffixes = {Path(name).suffix for name in names}
    return {".bin": "torch", ".safetensors": "safetensors", ".pt": "GPT-NeoX"}.get(
        suffixes.pop() if len(suffixes) == 1 else ""
    )
