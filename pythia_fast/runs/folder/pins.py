"""Which commit each step of a run is from, so that a branch that moves cannot mix two states.

    commits/step=N.json     {"commit", "weights_sha256"}

Written when a run first touches a step, and never changed: of two processes the first one wins, and
the other goes by what it finds.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.errors import FormatError, ReadError, RunMismatchError
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.series.revision import Revision

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pin:
    """What a run folder holds of where a step is from."""

    commit: str
    weights_sha256: str | None


def pin(
    folder: RunFolder, revisions: Mapping[int, Revision], place: Callable[[int], Path]
) -> dict[int, str]:
    """Keep the commits of these revisions in the folder, as far as it does not hold any yet.

    Returns the commits to go on with where a branch has moved since, but its weights are the same.
    RunMismatchError, before anything is downloaded, where they are others; it says which files to
    remove, among them the step's results, whose `place` is asked for.
    """
    moved = {}
    for step, revision in revisions.items():
        if revision.commit is None or revision.error is not None:
            continue
        path = folder.keep(_name(step), _record(revision))
        pinned = read_pin(path)
        if pinned.commit == revision.commit:
            continue
        if pinned.weights_sha256 is None or pinned.weights_sha256 != revision.weights_sha256:
            raise RunMismatchError(
                f"the weights of step {step} have changed on the Hub since this run began: they "
                f"were at commit {pinned.commit[:12]} then, and its branch is at "
                f"{revision.commit[:12]} now. To go on with the new ones, remove {path} and "
                f"{place(step)}; to keep the old results apart, give another `out` (--out)"
            )
        moved[step] = pinned.commit
    return moved


def pin_path(folder: RunFolder, step: int) -> Path:
    """Where the commit of a step is kept."""
    return folder.path / _name(step)


def _name(step: int) -> str:
    return f"commits/step={step}.json"


def read_pin(path: Path) -> Pin:
    """A file of `commits/`. FormatError if it is none."""
    try:
        record = json.loads(path.read_bytes())
        commit, sha256 = record["commit"], record["weights_sha256"]
        if not _COMMIT.fullmatch(commit) or not isinstance(sha256, str | None):
            raise ValueError("its commit or sha256 makes no sense")
    except OSError as error:
        raise ReadError.of(path, error) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(path, f"no record of a commit ({error!r}); remove it") from error
    return Pin(commit, sha256)


def _record(revision: Revision) -> bytes:
    record = {"commit": revision.commit, "weights_sha256": revision.weights_sha256}
    return (json.dumps(record, indent=2) + "\n").encode()
