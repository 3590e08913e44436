"""A series of checkpoints, from a folder or from the Hub: what a sweep goes through."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, FormatError, UnknownModelError
from pythia_fast.hub.endpoint import check_endpoint
from pythia_fast.quantities import parse_bytes
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.gpt_neox import GptNeoxSeries
from pythia_fast.series.local import NEOX_PREFIX, LocalSeries, numbered_folders
from pythia_fast.series.revision import Revision
from pythia_fast.suite.model_spec import ModelSpec
from pythia_fast.suite.models import SUITE, spec


class Ahead(Protocol):
    """What is going on while the files of steps to come are fetched; cheap to ask."""

    @property
    def received_bytes(self) -> int:
        """What has come over the network since it began."""

    @property
    def waits_for_room(self) -> bool:
        """Whether the next checkpoint waits for the disk or for others, not for the network."""

    @property
    def failed(self) -> Exception | None:
        """Why the first step that could not be fetched could not; None if there was none yet."""

    def extend(self, steps: Iterable[int]) -> None:
        """Fetch these too, in this order, after those that are still to come.

        Who lets another thread open steps tells them here before that thread may open them. A step
        that is still to come stays where it is. After it was left, nothing.
        """

    def drop(self, step: int) -> None:
        """Nobody will open this step after all: what is under way for it ends, what came stays.

        A step that is being opened, was opened or never was in the list is left alone.
        """


class CheckpointSeries(Protocol):
    """Checkpoints of one training run."""

    @property
    def name(self) -> str:
        """As shown to the user: the model's name, or the folder's."""

    @property
    def source(self) -> str:
        """Where they come from: the folder's path or the repository's address."""

    @property
    def folder(self) -> Path:
        """Where the files are, or will be; it need not exist yet."""

    @property
    def spec(self) -> ModelSpec:
        """What is known of the model."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step there should be, ascending."""

    def identity(self, step: int) -> str:
        """A cheap text that changes when the step's weights may have changed."""

    def pin(self, commits: Mapping[int, str]) -> None:
        """Let these steps mean these commits from now on, wherever their branches are.

        A folder has no commits, and nothing to pin. UnknownStepError.
        """

    def survey(self, steps: Sequence[int]) -> Mapping[int, Revision]:
        """What is known of each step before the first byte of its weights is fetched.

        What is missing is the `error` of its step. UnknownStepError for a step that the series does
        not have, HubError if the Hub does not answer.
        """

    def ahead(self, steps: Sequence[int]) -> AbstractContextManager[Ahead]:
        """While entered, the files that `open` will need are fetched, in this order.

        Steps are to be opened in this order too: those before one that is opened are forgotten. A
        step that cannot be fetched fails when it is opened. Leaving it stops all that is under way,
        within about a second; an `open` that waits for it then raises HubError. ArgumentError if
        the disk budget is less than the largest of the steps needs, or a series of the Hub has been
        entered so already. A step that `extend` adds is held to the budget when it is opened.
        """

    def tokenizer_file(self, step: int) -> Path:
        """The path of the step's tokenizer.json, downloaded if need be.

        MissingTokensError if it has none, UnknownStepError, and the errors of the Hub.
        """

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of one step; its files are here, open and checked when this returns.

        Whoever is done with it closes it. UnknownStepError, MissingCheckpointError, FormatError,
        WeightsError, ChecksumError, HubError, ReadError, WriteError or ArgumentError.
        """


def names_of(
    model: str | Path | Iterable[str | Path],
) -> tuple[tuple[str | Path, ...], bool]:
    """The models that are meant, in order, and whether several were asked for, be it of one.

    "all", alone or among others, stands for the suite's sixteen. ArgumentError if it is nothing
    that names models.
    """
    if isinstance(model, str | Path):
        return (SUITE, True) if model == "all" else ((model,), False)
    try:
        given = tuple(model)
    except TypeError as error:
        raise ArgumentError(f"a model is a name or a folder, not {model!r}") from error
    for each in given:
        if not isinstance(each, str | Path):
            raise ArgumentError(f"a model is a name or a folder, not {each!r}")
    return tuple(name for each in given for name in (SUITE if each == "all" else (each,))), True


def open_series(
    model: str | Path,
    *,
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
) -> CheckpointSeries:
    """The series that `model` means: a folder of checkpoints, or a model of the suite by its name.

    The folder holds `stepN/` as on the Hub, or `global_stepN/` as GPT-NeoX itself saves them. A
    text is first a folder if it looks like a path (it has a separator, or begins with "." or "~"),
    otherwise first a model. `cache_dir` is where the Hub's files go, None for the usual place,
    `disk_budget` how many bytes of them may be there at a time ("500GB"), None for what the disk
    holds. UnknownModelError if it is neither, ArgumentError if the budget is no size, or if
    HF_ENDPOINT is no address.
    """
    budget_bytes = None if disk_budget is None else parse_bytes(disk_budget)
    folder = existing_folder(model)
    if isinstance(model, Path):
        if folder is None:
            raise UnknownModelError(f"there is no folder {model}; a model's name is given as a str")
        return local_series(folder)
    looks_like_path = os.sep in model or model.startswith((".", "~"))
    if looks_like_path and folder is not None:
        return local_series(folder)
    try:
        found = spec(model)
    except UnknownModelError as error:
        if folder is not None:
            return local_series(folder)
        if looks_like_path:
            raise UnknownModelError(f"{model!r} is no folder here, and {error}") from error
        raise
    check_endpoint()
    from pythia_fast.series.hub import HubSeries  # here: huggingface_hub takes long to import

    return HubSeries(found, cache_dir=cache_dir, disk_budget=budget_bytes)


def local_series(folder: str | Path) -> LocalSeries:
    """The checkpoints of a folder in either layout. FormatError if it holds both, and their errors.

    As LocalSeries, whose errors it raises too; a subclass of it for GPT-NeoX's own.
    """
    path = expanded(folder)
    if not numbered_folders(path, NEOX_PREFIX):
        return LocalSeries(path)
    if steps := numbered_folders(path, "step"):
        raise FormatError(
            path,
            f"step{steps[0]}/ as on the Hub and {NEOX_PREFIX}N/ of GPT-NeoX lie side by side; "
            "move one kind to a folder of its own, so that it is plain which are meant",
        )
    return GptNeoxSeries(path)


def existing_folder(model: str | Path) -> Path | None:
    """The folder that `model` is the path of, or None. ArgumentError if it is no text or path.

    None as well for what cannot be a path here: another user's home that is not there, or a name
    too long for the file system, such as a prompt in the model's place; and for an empty text,
    which is more likely a variable of the shell that is not set than this folder.
    """
    if not isinstance(model, (str, Path)):
        raise ArgumentError(f"a model is a name or the path of a folder, not {model!r}")
    if model == "":
        return None
    try:
        folder = expanded(model)
        return folder if folder.is_dir() else None
    except (ArgumentError, OSError, ValueError):
        return None
