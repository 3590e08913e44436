"""Who works in a run folder at this moment: told for whoever looks, relied on by nobody."""

import json
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pythia_fast.errors import FormatError
from pythia_fast.identity import Identity, is_dead, mark
from pythia_fast.quantities import duration
from pythia_fast.runs.folder import RunFolder

EVERY_S = 10.0
"""How often a process says that it still works."""

SILENT_BEATS = 6  # so many missed ones, and a process counts as silent; network file systems lag
FORGOTTEN_S = 3600.0  # silent for so long, it is cleared away; if it lives, it comes back
_FIRST_WAIT_S = 1.0
_FORMAT = 1
_FOLDER = "working"
_MARK_DIGITS = 24


class Work(Protocol):
    """The steps of one worker: which it computes now, and how many it has finished."""

    steps: tuple[int, ...]
    now: int | None
    finished: int


class Presence:
    """Says in a run folder that this process works there, until it is left.

        with Presence(folder, "local", say=progress.say) as presence:
            presence.at("gpu 0", [1000, 2000])  # computes step 1000, holds 2000
            presence.count(done=1, of=154)

    A thread writes `working/<host>-<pid>-<hex>.json` at once, and again every `every_s` seconds
    (sooner in the beginning); leaving removes it. Where that fails it is said once, by `say`, and
    the work goes on. All its methods may be called from any thread, also before it is entered.
    `share` is the part of the steps that is this process's ("3/16"), None for all.
    """

    def __init__(
        self,
        folder: RunFolder,
        engine: str,
        *,
        share: str | None = None,
        say: Callable[[str], None] | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._folder, self._engine, self._share = folder, engine, share
        self._say, self._every_s = say, every_s
        self._identity = Identity.of_this_process()
        host = re.sub(r"[^A-Za-z0-9.-]+", "-", self._identity.host) or "unknown"
        self._id = f"{host}-{self._identity.pid}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._workers: dict[str, tuple[tuple[int, ...], float]] = {}
        self._done = self._of = self._beat = 0
        self._began, self._began_s = time.time(), time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="pythia_fast-presence", daemon=True)

    def __enter__(self) -> "Presence":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def at(self, worker: str, steps: Sequence[int]) -> None:
        """A worker computes the first of these steps and holds the others; none: it is idle."""
        with self._lock:
            before = self._workers.get(worker)
            same = before is not None and before[0][:1] == tuple(steps[:1])
            since_s = before[1] if same and before is not None else time.monotonic()
            self._workers[worker] = (tuple(steps), since_s)

    def gone(self, worker: str) -> None:
        """A worker is no longer there."""
        with self._lock:
            self._workers.pop(worker, None)

    def count(self, *, done: int, of: int) -> None:
        """How many steps of how many are finished, of those that are this process's."""
        with self._lock:
            self._done, self._of = done, of

    def follow(self, worker: str, work: Work) -> None:
        """Tell what the only worker does, and how far it is."""
        self.at(worker, [] if work.now is None else [work.now])
        self.count(done=work.finished, of=len(work.steps))

    def _tell(self) -> None:
        """The thread: write at once and every `every_s`, and remove it in the end."""
        name = f"{_FOLDER}/{self._id}.json"
        told, wait_s = False, _FIRST_WAIT_S
        self._clear_away()
        while True:
            try:
                self._folder.post(name, json.dumps(self._record()).encode())
            except OSError as error:
                if self._say is not None and not told:
                    self._say(f"others are not told what is computed here: {error}")
                told = True
            if self._over.wait(min(wait_s, self._every_s)):
                break
            wait_s *= 2
        with suppress(OSError):
            self._folder.take_down(name)

    def _clear_away(self) -> None:
        """Remove the records of those that have ended without a word, or been silent for long."""
        for path in _records(self._folder.path):
            with suppress(FormatError, OSError):
                other = _present(path)
                if other.runs is False or (other.silent and other.age_s > FORGOTTEN_S):
                    self._folder.take_down(f"{_FOLDER}/{path.name}")

    def _record(self) -> dict[str, Any]:
        now_s = time.monotonic()
        with self._lock:
            self._beat += 1
            workers = [
                {"name": name, "steps": list(steps), "since_s": now_s - since_s}
                for name, (steps, since_s) in self._workers.items()
            ]
            return {
                "format": _FORMAT,
                "id": self._id,
                "engine": self._engine,
                **self._identity.to_record(),
                "mark": mark(),
                "share": self._share,
                "began": self._began,
                "elapsed_s": now_s - self._began_s,
                "beat": self._beat,
                "every_s": self._every_s,
                "workers": workers,
                "done": self._done,
                "of": self._of,
            }


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
        heard: when that was, by the clock of the file system, in seconds since 1970.
        every_s: how often it means to.
        runs: whether the process runs; None if that cannot be seen from here.
        done: how many steps of `of`, its own, were finished.
    """

    id: str
    engine: str
    host: str
    pid: int
    share: str | None
    elapsed_s: float
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
        who += f": {self.done} of {self.of} steps finished"
        workers = [f"{each.name}: {each.words(self.age_s)}" for each in self.workers]
        return (
            [f"{who}; {workers[0]}"] if len(workers) == 1 else [who, *(f"  {w}" for w in workers)]
        )


def read_presences(path: Path) -> tuple[Present, ...]:
    """The processes that say that they work in a run folder, in the order of their shares.

    Those that were killed are among them until another process begins there. FormatError for a
    record that is none.
    """
    found = []
    for file in _records(path):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            found.append(_present(file))
    return tuple(sorted(found, key=lambda each: (_share_order(each.share), each.id)))


def _records(path: Path) -> Iterable[Path]:
    folder = path / _FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return ()
    return sorted(file for file in folder.glob("*.json") if not file.is_symlink())


def _share_order(share: str | None) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d{1,9}", share or "")))


def _present(file: Path) -> Present:
    """A record, checked. FormatError, FileNotFoundError."""
    try:
        record = json.loads(file.read_bytes())
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']!r}")
        share, heard = record["share"], file.stat().st_mtime
        return Present(
            id=file.stem,
            engine=str(record["engine"]),
            host=str(record["host"]),
            pid=int(record["pid"]),
            share=None if share is None else str(share),
            elapsed_s=float(record["elapsed_s"]),
            heard=heard,
            age_s=max(0.0, time.time() - heard),
            every_s=float(record["every_s"]),
            runs=_runs(record),
            workers=tuple(
                WorkerState(
                    str(each["name"]), tuple(map(int, each["steps"])), float(each["since_s"])
                )
                for each in record["workers"]
            ),
            done=int(record["done"]),
            of=int(record["of"]),
        )
    except FileNotFoundError:
        raise
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FormatError(file, f"no record of a process at work ({error!r}); remove it") from error


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
