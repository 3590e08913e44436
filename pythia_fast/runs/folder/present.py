"""Who works in a run folder, as `presence` tells it: for display alone."""

import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_fast.errors import FormatError
from pythia_fast.identity import Identity, is_dead
from pythia_fast.quantities import counted, duration
from pythia_fast.runs.folder.parts import read_record

FOLDER = "working"
PRESENCE_FORMAT = 1
SILENT_BEATS = 6  # so many missed ones, and a process counts as silent; network file systems lag
_MARK_DIGITS = 24


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker does: the first of `steps` for `since_s` seconds; without any it is idle."""

    name: str
    steps: tuple[int, ...]
    since_s: float

    def words(self, age_s: float) -> str:
        """What it did `age_s` seconds ago, and does still as far as is known."""
        if not self.steps:
            return "no step"
        first, *others = self.steps
        held = f", then {', '.join(map(str, others))}" if others else ""
        return f"step {first} for {duration(self.since_s + age_s)}{held}"


@dataclass(frozen=True, slots=True)
class Present:
    """A process that works in a run folder, or did when it was last heard of.

    Attributes:
        share: the part of the steps that is its own ("3/16"), None for all of them.
        elapsed_s: how long it had worked when it last said so, `age_s` seconds ago.
        begins: whether its time has not begun: it is about to tell when it does.
        heard: when that was, by the clock of the file system, in seconds since 1970.
        every_s: how often it means to.
        runs: whether the process runs; None if that cannot be seen from here.
        workers: those that are at work, in the order of their numbers; none while it waits until
            what it computes before, such as other models, is done.
        done: how many steps of `of`, its own, were finished.
    """

    id: str
    engine: str
    host: str
    pid: int
    share: str | None
    elapsed_s: float
    begins: bool
    heard: float
    age_s: float
    every_s: float
    runs: bool | None
    workers: tuple[WorkerState, ...]
    done: int
    of: int

    @property
    def silent(self) -> bool:
        """Whether it has ended without a word, or not been heard of for several beats."""
        return self.runs is False or self.age_s > SILENT_BEATS * self.every_s

    def lines(self) -> list[str]:
        """In words: the process and, where it has several workers, a line for each."""
        who = f"{self.host}, process {self.pid}"
        if self.share is not None:
            who += f", share {self.share}"
        if self.engine != "local":
            who += f", {self.engine}"
        if self.runs is False:
            return [f"{who}: has ended without a word, {duration(self.age_s)} ago"]
        if self.silent:
            return [f"{who}: silent for {duration(self.age_s)}"]
        who += f": {self.done} of {counted(self.of, 'step')} finished"
        if self.age_s > self.every_s:
            who += f", last heard of {duration(self.age_s)} ago"
        if not self.workers:
            return [f"{who}; waits its turn"]
        workers = [f"{each.name}: {each.words(self.age_s)}" for each in self.workers]
        return (
            [f"{who}; {workers[0]}"] if len(workers) == 1 else [who, *(f"  {w}" for w in workers)]
        )


def read_presences(path: Path) -> tuple[tuple[Present, ...], tuple[FormatError, ...]]:
    """The processes that say that they work in a run folder, in the order of their shares.

    Those that were killed are among them until another process begins there. Beside them what is
    wrong with records that are none.
    """
    found, damaged = [], []
    for file in record_files(path):
        try:
            present = read_present(file)
        except FormatError as error:
            damaged.append(error)
        else:
            if present is not None:
                found.append(present)
    found.sort(key=lambda each: (_order(each.share or ""), each.id))
    return tuple(found), tuple(damaged)


def record_files(path: Path) -> list[Path]:
    """The files in which processes say that they work in a run folder."""
    folder = path / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(file for file in folder.glob("*.json") if not file.is_symlink())


def read_present(file: Path) -> Present | None:
    """A process by its record; None if it has ended meanwhile. FormatError if that is none."""

    def parse(record: Any) -> Present:
        if record["format"] != PRESENCE_FORMAT:
            raise ValueError(f"format {record['format']!r}")
        share, heard = record["share"], file.stat().st_mtime
        workers = [
            WorkerState(str(each["name"]), tuple(map(int, each["steps"])), float(each["since_s"]))
            for each in record["workers"]
        ]
        return Present(
            id=file.stem,
            engine=str(record["engine"]),
            host=str(record["host"]),
            pid=int(record["pid"]),
            share=None if share is None else str(share),
            elapsed_s=float(record["elapsed_s"]),
            begins=bool(record.get("begins", False)),
            heard=heard,
            age_s=max(0.0, time.time() - heard),
            every_s=float(record["every_s"]),
            runs=_runs(record),
            workers=tuple(sorted(workers, key=lambda each: _order(each.name))),
            done=int(record["done"]),
            of=int(record["of"]),
        )

    return read_record(file, parse, "record of a process at work")


def _order(name: str) -> tuple[tuple[str, int], ...]:
    """Names with numbers in the order of these: worker 2, worker 10."""
    parts = re.findall(r"(\D*)(\d{0,18})", name)
    return tuple((text, int(number or -1)) for text, number in parts)


def _runs(record: dict[str, Any]) -> bool | None:
    """Whether the process of a record runs; None if that cannot be seen from here."""
    identity = Identity.from_record(record)
    if identity is None:
        return None
    runs, place = identity.runs(), record.get("mark")
    if runs is None and identity.host == platform.node() and isinstance(place, str):
        # Before this machine was started again.
        return False if len(place) == _MARK_DIGITS and is_dead(identity.pid, place) else None
    return runs
