"""A series of checkpoints, from a folder or from the Hub: what a sweep goes through."""

import os
from pathlib import Path
from typing import Protocol

from pythia_fast.errors import UnknownModelError
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.hub import HubSeries
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
    folder = Path(model).expanduser()
    if isinstance(model, Path):
        if not folder.is_dir():
            raise UnknownModelError(f"there is no folder {model}; a model's name is given as a str")
        return LocalSeries(folder)
    looks_like_path = os.sep in model or model.startswith((".", "~"))
    if looks_like_path and folder.is_dir():
        return LocalSeries(folder)
    try:
        found = spec(model)
    except UnknownModelError as error:
        if folder.is_dir():
            return LocalSeries(folder)
        if looks_like_path:
            raise UnknownModelError(f"{model!r} is no folder here, and {error}") from error
        raise
    return HubSeries(found, cache_dir=cache_dir)
