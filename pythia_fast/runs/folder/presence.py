"""Saying in a run folder who works there: for whoever looks (`present`), relied on by nobody.

Whoever comes later begins elsewhere, which saves work; where nobody is seen, all is done as well.
"""

import json
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from pythia_fast.errors import FormatError
from pythia_fast.futures import LOOK_UP_S
from pythia_fast.identity import Identity, mark
from pythia_fast.runs.folder.present import (
    FOLDER,
    PRESENCE_FORMAT,
    Present,
    read_presences,
    read_present,
    record_files,
)
from pythia_fast.runs.folder.run_folder import RunFolder

EVERY_S = 10.0
"""How often a process says that it still works."""

AT_ONCE_S = 0.02
"""Who began within this time of each other began at once: the times of files tell no better."""

SEEN_WITHIN_S = 10.0
"""So long a process that begins waits for its own record, and for those of others that begin."""

FORGOTTEN_S = 3600.0  # silent for so long, it is cleared away; if it lives, it comes back
_LEAST_S = 1.0  # what has changed is told at once, but not more often


class Progressed(Protocol):
    """How far the only worker is: the step that it computes now, and how many are finished."""

    steps: tuple[int, ...]
    now: int | None
    finished: int


class Presence:
    """Says in a run folder that this process works there, until it is left.

        with Presence(folder, "local", say=progress.say) as presence:
            presence.at("gpu 0", [1000, 2000])  # computes step 1000, holds 2000
            presence.count(done=1, of=154)

    A thread writes `working/<host>-<pid>-<hex>.json` at once, when a worker begins a step, at most
    once a second, and every `every_s` seconds; leaving removes it. Where that fails it is said
    once, by `say`, and the work goes on. All its methods may be called from any thread, also before
    it is entered. `share` is the part of the steps that is this process's ("3/16"), None for all.
    Without workers the process waits its turn here, such as while it computes other models.
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
        self._name = f"{FOLDER}/{self._id}.json"
        self._lock = threading.Condition()
        self._news = self._over = self._said = False
        self._workers: dict[str, tuple[tuple[int, ...], float]] = {}
        self._done = self._of = self._beat = 0
        self._began, self._began_s = time.time(), time.monotonic()
        self._begins = True
        self._tried = threading.Event()
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
        self.leave()

    def leave(self) -> None:
        """Take it back, before it is left or then."""
        with self._lock:
            self._over = True
            self._lock.notify_all()
        self._thread.join()

    def at(self, worker: str, steps: Sequence[int]) -> None:
        """A worker computes the first of these steps and holds the others; none: it is idle."""
        with self._lock:
            before = self._workers.get(worker)
            same = before is not None and before[0][:1] == tuple(steps[:1])
            since_s = before[1] if same and before is not None else time.monotonic()
            self._workers[worker] = (tuple(steps), since_s)
            if not same:
                self._changed()

    def gone(self, worker: str) -> None:
        """A worker is no longer there."""
        with self._lock:
            if self._workers.pop(worker, None) is not None:
                self._changed()

    def count(self, *, done: int, of: int) -> None:
        """How many steps of how many are finished, of those that are this process's."""
        with self._lock:
            self._done, self._of = done, of

    def beginning(self) -> float:
        """Where among the steps to begin, as a part of them, so that nobody here does the same.

        At 0 for who is the first here, at 1/2 for the second, then 1/4, 3/4, 1/8 and so on; each
        goes on from there, and leaves out what it finds done. Only those count that have this
        process's share, and are heard of. First come, first served: who comes is seen, as one that
        begins, before its time is taken. So whoever reads the records a little after its own time
        sees all that came before, and waits for the time of those that are about to tell it.
        """
        until_s = time.monotonic() + SEEN_WITHIN_S
        if self._thread.ident is not None:
            while not self._tried.wait(LOOK_UP_S) and time.monotonic() < until_s:
                pass
            time.sleep(max(0.0, self._began_s + 2 * AT_ONCE_S - time.monotonic()))
        here = self._here()
        while any(each.begins for each in here) and time.monotonic() < until_s:
            time.sleep(AT_ONCE_S)
            here = self._here()
        began = {each.id: each.heard - each.elapsed_s for each in here}
        mine = began.pop(self._id, math.inf)
        number = sum(
            since < mine - AT_ONCE_S or (since < mine + AT_ONCE_S and other < self._id)
            for other, since in began.items()
        )
        return sum(
            2.0 ** -(1 + digit) for digit in range(number.bit_length()) if number >> digit & 1
        )

    def _here(self) -> list[Present]:
        """Those that are heard of, and have this process's share; it is among them."""
        present, _ = read_presences(self._folder.path)
        return [each for each in present if each.share == self._share and not each.silent]

    def follow(self, worker: str, work: Progressed) -> None:
        """Tell what the only worker does, and how far it is."""
        self.count(done=work.finished, of=len(work.steps))
        self.at(worker, [] if work.now is None else [work.now])

    def _changed(self) -> None:
        """Have the thread write soon."""
        self._news = True
        self._lock.notify_all()

    def _tell(self) -> None:
        """The thread: write at once, on news and every `every_s`, and remove it in the end."""
        try:
            self._clear_away()
            self._post()
            with self._lock:
                self._begins = False
                self._began, self._began_s = time.time(), time.monotonic()
            self._post()
        finally:
            self._tried.set()
        while True:
            least_s = min(_LEAST_S, self._every_s)
            with self._lock:
                if self._lock.wait_for(lambda: self._over, least_s):
                    break
                self._lock.wait_for(lambda: self._over or self._news, self._every_s - least_s)
                if self._over:
                    break
            self._post()
        with suppress(OSError):
            self._folder.take_down(self._name)

    def _post(self) -> None:
        """Write the record; that it failed is said once."""
        try:
            self._folder.post(self._name, json.dumps(self._record()).encode())
        except OSError as error:
            if self._say is not None and not self._said:
                self._say(f"others are not told what is computed here: {error}")
            self._said = True

    def _clear_away(self) -> None:
        """Remove the records of those that have ended without a word, or been silent for long."""
        for path in record_files(self._folder.path):
            with suppress(FormatError, OSError):
                other = read_present(path)
                if other is None:
                    continue
                if other.runs is False or (other.silent and other.age_s > FORGOTTEN_S):
                    self._folder.take_down(f"{FOLDER}/{path.name}")

    def _record(self) -> dict[str, Any]:
        now_s = time.monotonic()
        with self._lock:
            self._beat += 1
            self._news = False
            workers = [
                {"name": name, "steps": list(steps), "since_s": now_s - since_s}
                for name, (steps, since_s) in self._workers.items()
            ]
            return {
                "format": PRESENCE_FORMAT,
                "id": self._id,
                "engine": self._engine,
                **self._identity.to_record(),
                "mark": mark(),
                "share": self._share,
                "began": self._began,
                "begins": self._begins,
                "elapsed_s": now_s - self._began_s,
                "beat": self._beat,
                "every_s": self._every_s,
                "workers": workers,
                "done": self._done,
                "of": self._of,
            }
