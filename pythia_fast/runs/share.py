"""A part of a sweep's steps, for one of several processes that nobody coordinates."""

import json
import operator
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pythia_fast.errors import ArgumentError, FormatError
from pythia_fast.runs.folder import RunFolder
from pythia_fast.runs.job import Job
from pythia_fast.runs.plan import fingerprint
from pythia_fast.runs.survey import Survey

_SLURM = "SLURM_ARRAY_TASK_"
_PLAIN = "submit a plain range such as --array=1-16, or say which part it is, as 3/16"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """Part `index`, from 1 on, of `count`. ArgumentError if there is no such part."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ArgumentError(f"there is no share {self}: the first is 1, the last {self.count}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def share_of(worker: str | None) -> Share | None:
    """The share that `worker` names: "3/16", or "slurm" for that of this task of a Slurm array.

    None: no share, but all steps. ArgumentError where it names none, and where Slurm's variables
    are missing or do not name one.
    """
    if worker is None:
        return None
    if worker == "slurm":
        return share_of_slurm(os.environ)
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", worker) if isinstance(worker, str) else None
    if match is None:
        raise ArgumentError(f"worker is a share such as '3/16', or 'slurm', not {worker!r}")
    return Share(int(match[1]), int(match[2]))


def share_of_slurm(environment: Mapping[str, str]) -> Share:
    """The share of a task of a Slurm array, by the variables that Slurm gives it.

    SLURM_ARRAY_TASK_ID, _COUNT, _MIN and, where it is not 1, _STEP
    (https://slurm.schedmd.com/job_array.html). ArgumentError that names the variable.
    """
    task, count = _number(environment, "ID"), _number(environment, "COUNT")
    first, stride = _number(environment, "MIN"), _number(environment, "STEP", 1)
    place, rest = divmod(task - first, stride) if stride > 0 else (0, 1)
    if rest or not 0 <= place < count:
        raise ArgumentError(
            f"{_SLURM}ID={task} is not one of {count} tasks that count from {first} in strides of "
            f"{stride}, as {_SLURM}COUNT, _MIN and _STEP say: {_PLAIN}"
        )
    return Share(place + 1, count)


def deal(groups: Sequence[tuple[T, float]], count: int) -> list[list[T]]:
    """Cut things with costs into `count` parts.

    The most costly first, to and fro, so that of two parts neither has more than one thing more,
    nor costs more than the most costly thing more. The same for the same call, everywhere.
    """
    parts: list[list[T]] = [[] for _ in range(count)]
    for place, (thing, _) in enumerate(sorted(groups, key=lambda each: -each[1])):
        turn, seat = divmod(place, count)
        parts[count - 1 - seat if turn % 2 else seat].append(thing)
    return parts


def steps_of_share(share: Share, job: Job, survey: Survey, folder: RunFolder) -> tuple[int, ...]:
    """The steps of a job that are a share's, in order.

    Steps with the same weights stay together. The first process of all decides how the steps are
    cut, whatever is done already, and keeps it in the folder: a later one might find the Hub
    changed, and cut otherwise. FormatError if what is kept is no such cut.
    """
    groups = survey.same_weights(job.steps)
    parts = deal([(group, _cost(group, job)) for group in groups], share.count)
    cut = [sorted(step for group in part for step in group) for part in parts]
    digest = fingerprint({"steps": sorted(job.steps), "shares": share.count})[:16]
    path = folder.keep(f"shares/{digest}.json", (json.dumps({"shares": cut}) + "\n").encode())
    kept = _read(path)
    if len(kept) != share.count or sorted(chain(*kept)) != sorted(job.steps):
        raise FormatError(path, "it does not give each step to one share; remove it")
    own = set(kept[share.index - 1])
    return tuple(step for step in job.steps if step in own)


def read_shares(path: Path) -> list[list[list[int]]]:
    """How the steps of a run folder were cut, each time: the steps of each share. FormatError."""
    return [_read(file) for file in sorted((path / "shares").glob("*.json"))]


def _read(path: Path) -> list[list[int]]:
    """A cut that is kept. FormatError if it is none."""
    try:
        return [list(map(operator.index, part)) for part in json.loads(path.read_bytes())["shares"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(path, f"no cut into shares ({error!r}); remove it") from error


def _cost(group: Sequence[int], job: Job) -> int:
    """How many tokens are computed for steps with the same weights."""
    tokens = [job.tokens(step) for step in group]
    return max(tokens) if job.sharing else sum(tokens)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(_SLURM + name)
    if text is None and default is not None:
        return default
    if text is None:
        raise ArgumentError(
            f"{_SLURM}{name} is not set: 'slurm' is for the tasks of a Slurm array; {_PLAIN}"
        )
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ArgumentError(f"{_SLURM}{name} is {text!r}, which is no number: {_PLAIN}")
    return int(text)
