"""The weights files of each step with their hashes: from the Hub's tree, or a folder's files."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from pythia_fast.core import File
from pythia_fast.digest import sha256
from pythia_fast.errors import MissingCheckpointError, PythiaFastError, ReadError
from pythia_fast.hub.files import HubFile
from pythia_fast.series import CheckpointSeries, LocalSeries
from pythia_fast.series.revision import Revision

MAIN = "main"

_WEIGHTS = re.compile(
    r"(pytorch_model|model)(-\d+-of-\d+)?\.(bin|safetensors)"
    r"|layer_\d+-model_\d+-model_states\.pt",
    re.ASCII,
)
_STEP_FOLDERS = ("step", "global_step")


@dataclass(frozen=True, slots=True)
class Listed:
    """The weights files of a step, or of the branch `main`, whose `step` is None.

    `files` are all of them, `read` the names of those that this package reads. With an `error` the
    step cannot be opened, and the rest says what is known.
    """

    step: int | None
    files: tuple[HubFile, ...]
    read: tuple[str, ...]
    commit: str | None = None
    error: PythiaFastError | None = None

    @property
    def read_bytes(self) -> int:
        """The size of what is read."""
        return sum(file.size for file in self.files if file.path in self.read)


class _Branches(Protocol):
    """What the Hub's series has beside that of any series."""

    def listing(self, branch: str) -> tuple[HubFile, ...]: ...


def list_steps(
    series: CheckpointSeries,
    steps: Sequence[int],
    *,
    threads: int,
    seen: Callable[[], None],
) -> list[Listed]:
    """Every step's files, ascending, and after them `main` where the series has one.

    A folder's files are hashed here, `threads` at a time; of the Hub's, no weights are fetched.
    `seen` is called for each step. HubError if the Hub does not answer.
    """
    revisions = series.survey(steps)
    if isinstance(series, LocalSeries):
        with ThreadPoolExecutor(threads, "pythia_fast-audit") as pool:
            return list(_local(series.folder, revisions, pool, seen))
    return list(_hub(cast(_Branches, series), revisions, seen))


def _hub(
    series: _Branches, revisions: Mapping[int, Revision], seen: Callable[[], None]
) -> Iterator[Listed]:
    for step, revision in revisions.items():
        try:
            listed = series.listing(f"step{step}")
        except MissingCheckpointError as error:
            yield Listed(step, (), (), error=revision.error or error)
        else:
            yield _merged(revision, listed)
        seen()
    try:
        main = series.listing(MAIN)
    except MissingCheckpointError:
        return
    yield Listed(None, tuple(file for file in main if _WEIGHTS.fullmatch(file.path)), ())


def _local(
    folder: Path,
    revisions: Mapping[int, Revision],
    pool: ThreadPoolExecutor,
    seen: Callable[[], None],
) -> Iterator[Listed]:
    for revision in revisions.values():
        try:
            yield _merged(revision, _hashes(folder, revision, pool))
        except PythiaFastError as error:
            yield Listed(revision.step, (), (), error=revision.error or error)
        seen()


def _hashes(folder: Path, revision: Revision, pool: ThreadPoolExecutor) -> tuple[HubFile, ...]:
    """The weights files in a step's folder. MissingCheckpointError, ReadError."""
    for name in _STEP_FOLDERS:
        inside = folder / f"{name}{revision.step}"
        if inside.is_dir():
            break
    else:
        raise MissingCheckpointError(f"{folder} has no folder of step {revision.step} any more")
    try:
        names = {entry.name for entry in inside.iterdir() if _WEIGHTS.fullmatch(entry.name)}
    except OSError as error:
        raise ReadError.of(inside, error, "list") from error
    names |= {file.path for file in revision.files}
    return tuple(pool.map(partial(_hashed, inside), sorted(names)))


def _hashed(folder: Path, name: str) -> HubFile:
    file = File(folder / name)
    return HubFile(name, file.size, sha256(file))


def _merged(revision: Revision, listed: Sequence[HubFile]) -> Listed:
    read = tuple(file.path for file in revision.files)
    files = tuple(file for file in listed if file.path in read or _WEIGHTS.fullmatch(file.path))
    return Listed(revision.step, files, read, revision.commit, revision.error)
