"""A part of a sweep's steps, for one of several processes that nobody coordinates."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pythia_fast.errors import ArgumentError, FormatError
from pythia_fast.runs.folder.parts import read_record, steps_in
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.job import Job
from pythia_fast.runs.plan import fingerprint
from pythia_fast.runs.steps.survey import Survey

_SLURM = "SLURM_ARRAY_TASK_"
_PLAIN = "submit a plain range such as --array=1-16, or say which part it is, as 3/16"
T = TypeVar("T")

MOST_SHARES = 100_000
"""More than there can be steps, and what a run folder keeps of the cut stays small."""


@dataclass(frozen=True, slots=True)
class Share:
    """Part `index`, from 1 on, of `count`. ArgumentError if there is no such part, or too many."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ArgumentError(f"there is no share {self}: the first is 1, the last {self.count}")
        if self.count > MOST_SHARES:
            raise ArgumentError(f"{self} is a share of more than {MOST_SHARES} processes")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class Dealt:
    """What of a call is dealt out already: so many models, of whose steps so many groups.

    A group are steps with the same weights.
    """

    models: int = 0
    groups: int = 0

    def and_a_model(self, groups: int) -> "Dealt":
        """The same with a model more, of so many groups."""
        return Dealt(self.models + 1, self.groups + groups)


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

    SLURM_ARRAY_TASK_ID, _COUNT, _MIN, _MAX and, where it is not 1, _STEP
    (https://slurm.schedmd.com/job_array.html). ArgumentError that names the variable, in every task
    of an array that is no range, such as --array=1,2,5: some would find no share of theirs, when
    the others have computed for hours.
    """
    task, count = _number(environment, "ID"), _number(environment, "COUNT")
    first, last = _number(environment, "MIN"), _number(environment, "MAX")
    stride = _number(environment, "STEP", 1)
    if stride < 1 or last != first + (count - 1) * stride:
        raise ArgumentError(
            f"{_SLURM}MIN={first}, _MAX={last}, _STEP={stride} and _COUNT={count} are not those of "
            f"a range: {_PLAIN}"
        )
    place, rest = divmod(task - first, stride)
    if rest or not 0 <= place < count:
        raise ArgumentError(
            f"{_SLURM}ID={task} is not one of {count} tasks from {first} to {last} in strides of "
            f"{stride}, as {_SLURM}COUNT, _MIN, _MAX and _STEP say: {_PLAIN}"
        )
    return Share(place + 1, count)


def deal(
    groups: Sequence[tuple[T, float]], count: int, *, first: int = 0, rest: int = 0
) -> list[list[T]]:
    """Cut things with costs into `count` parts.

    The most costly first, to and fro, so that of two parts neither has more than one thing more,
    nor costs more than the most costly thing more. The same for the same call, everywhere.

    The part `first`, modulo their number, gets the first thing, and of those that are left when all
    parts have the same number of things `rest` gets the first: who deals several times lets both go
    round.
    """
    parts: list[list[T]] = [[] for _ in range(count)]
    for place, (thing, _) in enumerate(sorted(groups, key=lambda each: -each[1])):
        turn, seat = divmod(place, count)
        if turn == len(groups) // count:
            seat += rest
        else:
            seat = first + (count - 1 - seat if turn % 2 else seat)
        parts[seat % count].append(thing)
    return parts


def steps_of_share(
    share: Share, job: Job, survey: Survey, folder: RunFolder, before: Dealt
) -> tuple[int, ...]:
    """The steps of a job that are a share's, in order; `before` them others were dealt out.

    Steps with the same weights stay together, and those of a folder that look alike, unless these
    are more than two and more than an equal part. The first process of all decides how the steps
    are cut, whatever is done already, and keeps it in the folder: a later one might find the Hub
    changed, or be asked for other models, and cut otherwise. FormatError if what is kept is no such
    cut.
    """
    groups = [(group, _cost(group, job)) for group in _groups(job, survey, share.count)]
    parts = deal(groups, share.count, first=before.models, rest=before.groups)
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
    """A cut that is kept; without shares if it is gone. FormatError if it is none."""
    cut = read_record(path, lambda record: list(map(steps_in, record["shares"])), "cut into shares")
    return cut or []


def _groups(job: Job, survey: Survey, count: int) -> Iterator[tuple[int, ...]]:
    most = max(2, -(-len(job.steps) // count))
    for group in survey.alike(job.steps):
        known = survey.revisions[group[0]].digest is not None
        size = len(group) if known else most  # of what only looks alike not all to one share
        for first in range(0, len(group), size):
            yield group[first : first + size]


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
