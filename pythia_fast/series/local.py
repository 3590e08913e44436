"""Checkpoints from a folder in the Hub's layout: `stepN/` with a config.json and weights."""

import contextlib
import functools
import hashlib
import logging
import platform
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pythia_fast.core import File
from pythia_fast.digest import Digests
from pythia_fast.errors import (
    FormatError,
    MissingCheckpointError,
    MissingTokensError,
    PythiaFastError,
    ReadError,
    WeightsError,
)
from pythia_fast.hub.files import HubFile
from pythia_fast.series.alike import outline
from pythia_fast.series.checkpoint import Checkpoint, CheckpointFile, open_checkpoint
from pythia_fast.series.layout import (
    CONFIG,
    INDEX_SUFFIX,
    SINGLE_FILES,
    TOKENIZER,
    WeightFiles,
    choose_weights,
    read_architecture,
)
from pythia_fast.series.revision import Revision
from pythia_fast.suite.architecture import Architecture
from pythia_fast.suite.model_spec import ModelSpec
from pythia_fast.suite.steps import unknown_step

NEOX_PREFIX = "global_step"
"""How GPT-NeoX names the folder of a step."""

_log = logging.getLogger("pythia_fast")


@dataclass(frozen=True, slots=True)
class AllHere:
    """The look-ahead of a folder, which has nothing to fetch."""

    received_bytes: int = 0
    waits_for_room: bool = False
    failed: Exception | None = None

    def extend(self, steps: Iterable[int]) -> None:
        """Nothing."""

    def drop(self, step: int) -> None:
        """Nothing."""


class LocalSeries:
    """The checkpoints of a folder; its name is the series' name.

    A step's config.json lies in its folder or, for all steps alike, beside the step folders. The
    folder's listing is taken once; files are looked into by `survey` and `open`. A link that leads
    nowhere, named as the folder of a step, is a step that is missing. What is left out, a file of
    such a name or step0100, is said in the log. A pickle takes along the path, the listing and the
    digests of files that were hashed, and looks at nothing: where the folder is not there, that is
    the error of each step.
    """

    _prefix: ClassVar[str] = "step"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().resolve()
        if not numbered_folders(self.folder, self._prefix):
            raise _no_series(self.folder)
        steps = _steps_of(self.folder, self._prefix)
        architecture = self._first_architecture(steps)
        self.spec = ModelSpec.local(self.folder.name, architecture, steps)
        self._digests = Digests()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.spec.name

    @property
    def source(self) -> str:
        """The folder's full path."""
        return str(self.folder)

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step that has a folder, ascending."""
        return self.spec.steps

    def step_folders(self) -> tuple[Path, ...]:
        """Where each step lies, in their order."""
        return tuple(self._step_folder(step) for step in self.steps)

    def identity(self, step: int) -> str:
        """Name, size and mtime of every file of the step, hashed; no file is read.

        As long as it is the same, nothing suggests that the weights have changed. It is kept for
        days and compared on other machines: a copy with its times is the same, as is a file that a
        backup has linked. UnknownStepError, MissingCheckpointError, ReadError.
        """
        folder = self._step_folder(step)
        lines = []
        for name in sorted(file_names(folder)):
            try:
                status = (folder / name).stat()
            except OSError as error:
                raise ReadError(f"{folder / name} cannot be read: {error.strerror}") from error
            lines.append(f"{name} {status.st_size} {status.st_mtime_ns}\n")
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def pin(self, commits: Mapping[int, str]) -> None:
        """Nothing: a folder has no commits."""

    def survey(self, steps: Sequence[int]) -> Mapping[int, Revision]:
        """The names and sizes of each step's weights, and whether they can be opened.

        Headers and config.json are read, as `open` does, and of the weights some samples, so no
        digest is known. UnknownStepError. What is missing or malformed is the `error` of its step.
        """
        return {step: self._survey(step) for step in steps}

    def hashed(self, revision: Revision) -> Revision:
        """The same with a digest that only steps of the same weights have: all bytes are read.

        The errors of `open`.
        """
        return replace(revision, weights_sha256=self.open(revision.step).weights_sha256)

    @contextlib.contextmanager
    def ahead(self, steps: Sequence[int]) -> Iterator[AllHere]:
        """Nothing: the files are here."""
        yield AllHere()

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of one step.

        UnknownStepError if the folder has none of that name, MissingCheckpointError if it is
        incomplete, WeightsError if its tensors are not the architecture's, or the architecture not
        that of the other steps; FormatError and ReadError for malformed and unreadable files.
        """
        return self._opened(step)

    def _opened(self, step: int) -> Checkpoint:
        folder = self._step_folder(step)
        weights = _weights(folder)
        opened = []
        for name in weights.names:
            file = File(folder / name)
            opened.append((CheckpointFile(name, folder / name, file.size, None), file))
        return open_checkpoint(
            weights,
            opened,
            step=step,
            source=str(folder),
            commit=None,
            architecture=self._architecture(step, folder),
            digests=self._digests,
        )

    def tokenizer_file(self, step: int) -> Path:
        """The tokenizer.json in the step's folder, or else the one beside the steps.

        UnknownStepError, MissingTokensError, ReadError.
        """
        places = (self._step_folder(step) / TOKENIZER, self.folder / TOKENIZER)
        for place in places:
            try:
                if place.is_file():
                    return place
            except OSError as error:  # a folder that may not be looked into
                raise ReadError(error.errno, error.strerror, str(place)) from error
        raise MissingTokensError(
            f"{self.name} has no tokenizer: neither {places[0]} nor {places[1]} is there; put one "
            "there, or give its path (tokenizer=, --tokenizer)"
        )

    def weight_files(self, step: int) -> tuple[Path, ...]:
        """The files that a step's weights lie in, which may have to be merged.

        UnknownStepError, MissingCheckpointError, ReadError.
        """
        folder = self._step_folder(step)
        return tuple(folder / name for name in self._files(folder))

    def _survey(self, step: int) -> Revision:
        folder = self._step_folder(step)
        try:
            files = tuple(
                HubFile(name, File(folder / name).size, None) for name in self._files(folder)
            )
        except PythiaFastError as error:
            return Revision(step, error=error)
        revision = Revision(step, files=files, here_bytes=sum(file.size for file in files))
        try:
            return replace(revision, outline=self._look_into(step))
        except PythiaFastError as error:
            return replace(revision, error=error)

    def _look_into(self, step: int) -> str | None:
        """The outline of a step's weights. The errors of `open`, for less than it may take."""
        checkpoint = self._opened(step)
        return outline(checkpoint.files, list(checkpoint.tensors.values()))

    def _step_folder(self, step: int) -> Path:
        if step not in self.steps:
            raise unknown_step(step, self.steps, series=self.name)
        return self.folder / f"{self._prefix}{step}"

    def _files(self, folder: Path) -> tuple[str, ...]:
        """The names of a step's weights files. MissingCheckpointError if some are not there."""
        return _weights(folder).names

    def _first_architecture(self, steps: Sequence[int]) -> Architecture:
        """The model that the first config.json there is describes."""
        for step in steps:
            if (path := self._config(step)) is not None:
                return read_architecture(path)
        raise MissingCheckpointError(
            f"{self.folder} has no {CONFIG}, neither in step{steps[0]} nor beside it; "
            "without it the model's shape is unknown"
        )

    def _config(self, step: int) -> Path | None:
        own = self.folder / f"{self._prefix}{step}" / CONFIG
        shared = self.folder / CONFIG
        return own if own.exists() else shared if shared.exists() else None

    def _architecture(self, step: int, folder: Path) -> Architecture:
        path = self._config(step)
        if path is None:
            raise MissingCheckpointError(f"{folder} has no {CONFIG}, and {self.folder} neither")
        architecture = read_architecture(path)
        if architecture != self.spec.architecture:
            raise WeightsError(
                f"{path} describes another model than the rest of the series: "
                f"{architecture.difference(self.spec.architecture)}"
            )
        return architecture


def numbered_folders(folder: Path, prefix: str) -> tuple[int, ...]:
    """The numbers N of the folders named `prefix` and N in `folder`, ascending."""
    if not folder.is_dir():
        raise MissingCheckpointError(f"there is no folder {folder}")
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    return tuple(sorted(number for name in names if (number := _number(name, prefix)) is not None))


def _steps_of(folder: Path, prefix: str) -> tuple[int, ...]:
    """As `numbered_folders`, and the links that should be folders and lead nowhere."""
    steps = []
    for entry in sorted(_entries(folder)):
        digits = entry.name.removeprefix(prefix)
        if digits == entry.name or not digits.isdecimal():
            continue
        step = _number(entry.name, prefix)
        if step is None:
            _tell_left_out(entry, f"the folder of a step is named as {prefix}1000 is")
        elif entry.is_dir() or (entry.is_symlink() and not entry.exists()):
            steps.append(step)
        else:
            _tell_left_out(entry, "it is no folder with a checkpoint in it")
    return tuple(sorted(steps))


@functools.cache  # once in a process, however often the folder is opened
def _tell_left_out(path: Path, reason: str) -> None:
    _log.warning("%s is left out: %s", path, reason)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise ReadError(f"{folder} cannot be listed: {error.strerror}") from error


def _number(name: str, prefix: str) -> int | None:
    match = re.fullmatch(re.escape(prefix) + r"(0|[1-9]\d{0,17})", name, re.ASCII)
    return int(match[1]) if match else None


def _no_series(folder: Path) -> PythiaFastError:
    """The error that says what is there instead of folders of steps."""
    if numbered_folders(folder, NEOX_PREFIX):
        return FormatError(
            folder,
            "checkpoints in GPT-NeoX's own layout (global_stepN/), not the Hub's; "
            "open_series reads both",
        )
    if any((folder / (name + end)).exists() for name in SINGLE_FILES for end in ("", INDEX_SUFFIX)):
        return MissingCheckpointError(
            f"{folder} is one checkpoint, not a series; move it to a folder named after its step, "
            "as in mymodel/step1000/, and give mymodel"
        )
    return MissingCheckpointError(
        f"{folder} has no checkpoints: no folder named step0, step1, … or global_step0, …"
    )


def _weights(folder: Path) -> WeightFiles:
    """The weights files of a step's folder, none of them half written."""
    names = file_names(folder)
    refuse_unfinished(folder, names)
    return choose_weights(names, lambda name: folder / name, str(folder))


def refuse_unfinished(folder: Path, names: Collection[str]) -> None:
    """MissingCheckpointError if one of the names says that a file is still being written."""
    if unfinished := sorted(name for name in names if name.endswith(".incomplete")):
        raise MissingCheckpointError(
            f"{folder} is half written: {unfinished[0]} says that a writer or a download is "
            "still at work or was cut; finish it, or remove that file if nothing is missing"
        )


def file_names(folder: Path) -> set[str]:
    """The files in a step's folder. MissingCheckpointError if it is gone or none, ReadError."""
    try:
        return {entry.name for entry in folder.iterdir() if entry.is_file()}
    except FileNotFoundError as error:
        if not folder.parent.exists():
            raise MissingCheckpointError(
                f"there is no folder {folder.parent} on {platform.node()}: every machine that is "
                "to work on a series of checkpoints needs its folder under the same path"
            ) from error
        what = (
            "a link that leads nowhere"
            if folder.is_symlink()
            else "gone since the series was opened"
        )
        raise MissingCheckpointError(f"{folder} is {what}") from error
    except OSError as error:
        raise ReadError(f"{folder} cannot be listed: {error.strerror}") from error
