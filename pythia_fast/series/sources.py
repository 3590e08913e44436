"""A series of checkpoints, from a folder or from the Hub: what a sweep goes through."""

import os
from pathlib import Path
from typing import Protocol

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, UnknownModelError
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.local import LocalSeries
from pythia_fast.suite.model_spec import ModelSpec
from pythia_fast.suite.models import spec


class CheckpointSeries(Protocol):
    """Checkpoints of one training run."""

    @property
    def name(self) -> str:
        """As shown to the user: the model's name, or the folder's."""

    @property
    def source(self) -> str:
        """Where they come from: the folder's path or the repository's address."""

    @property
    def spec(self) -> ModelSpec:
        """What is known of the model."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step there should be, ascending."""

    def identity(self, step: int) -> str:
        """A cheap text that changes when the step's weights may have changed."""

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of one step; its files are here, open and checked when this returns.

        UnknownStepError, MissingCheckpointError, FormatError, WeightsError, ChecksumError,
        HubError or ReadError.
        """


def open_series(model: str | Path, *, cache_dir: str | Path | None = None) -> CheckpointSeries:
    """The series that `model` means: a folder with `stepN/`, or a model of the suite by its name.

    A text is first a folder if it looks like a path (it has a separator, or begins with "." or
    "~"), otherwise first a model. `cache_dir` is where the Hub's files go, None for its usual
    cache. UnknownModelError if it is neither.
    """
    folder = existing_folder(model)
    if isinstance(model, Path):
        if folder is None:
            raise UnknownModelError(f"there is no folder {model}; a model's name is given as a str")
        return LocalSeries(folder)
    looks_like_path = os.sep in model or model.startswith((".", "~"))
    if looks_like_path and folder is not None:
        return LocalSeries(folder)
    try:
        found = spec(model)
    except UnknownModelError as error:
        if folder is not None:
            return LocalSeries(folder)
        if looks_like_path:
            raise UnknownModelError(f"{model!r} is no folder here, and {error}") from error
        raise
    from pythia_fast.series.hub import HubSeries  # here: huggingface_hub takes long to import

    return HubSeries(found, cache_dir=cache_dir)


def existing_folder(model: str | Path) -> Path | None:
    """The folder that `model` is the path of, or None. ArgumentError if it is no text or path.

    None as well for what cannot be a path here: another user's home that is not there, or a name
    too long for the file system, such as a prompt in the model's place.
    """
    if not isinstance(model, (str, Path)):
        raise ArgumentError(f"a model is a name or the path of a folder, not {model!r}")
    try:
        folder = expanded(model)
        return folder if folder.is_dir() else None
    except (ArgumentError, OSError, ValueError):
        return None
