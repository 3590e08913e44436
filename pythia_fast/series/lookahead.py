"""Checkpoints fetched before they are asked for, in the order in which they will be."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from pythia_fast.errors import HubError
from pythia_fast.futures import result_of
from pythia_fast.hub.download import PATIENCE_S, Downloader
from pythia_fast.series.fetching import Begun, Fetched
from pythia_fast.store import Stopped, Waiting

DEEPEST = 8
WITHOUT_BUDGET = 4

Item = TypeVar("Item")
Result = TypeVar("Result")

Begin = Callable[[int, Waiting, Downloader], Begun]
Finish = Callable[[Begun], Fetched]
Abandon = Callable[[Begun], None]


def depth(budget_bytes: int | None, largest_bytes: int) -> int:
    """How many checkpoints may be on their way or wait, beside the two at work."""
    if budget_bytes is None or not largest_bytes:
        return WITHOUT_BUDGET
    return min(DEEPEST, max(1, budget_bytes // largest_bytes - 2))


@dataclass(slots=True)
class _Entry:
    """One step: fetched when its future is done; `begun` from when it has a place in the queue."""

    future: Future[Fetched] = field(default_factory=Future)
    begun: bool = False
    awaited: bool = False
    dropped: bool = False


class LookAhead:
    """Fetches `steps` in turn, at most `depth` at a time that have not been taken.

    `begin` claims a step's files and lets them come, one step after the other; `finish` waits for
    them, in a thread of its own; `abandon` undoes `begin` where there can be no such thread.
    Nothing happens before `start`, and `close` ends it; until then steps may be added.
    """

    def __init__(
        self,
        steps: Sequence[int],
        depth: int,
        begin: Begin,
        finish: Finish,
        abandon: Abandon,
        *,
        first_patience_s: float = PATIENCE_S,
    ) -> None:
        self.downloader = Downloader(first_patience_s=first_patience_s)
        self._entries = {step: _Entry() for step in steps}  # those not taken, in order
        self._depth = depth
        self._begin, self._finish, self._abandon = begin, finish, abandon
        self._changed = threading.Condition()
        self._stopped = False
        self._claims = False
        self._failed: Exception | None = None
        self._shed: threading.Event | None = None
        self._pool = ThreadPoolExecutor(depth + DEEPEST, "pythia-fast-ahead")
        self._thread = threading.Thread(target=self._go, name="pythia-fast-ahead", daemon=True)

    def start(self) -> None:
        """Begin to fetch."""
        self._thread.start()

    @property
    def received_bytes(self) -> int:
        """What has come over the network since it began."""
        return self.downloader.received_bytes

    @property
    def waits_for_room(self) -> bool:
        """Whether nothing more is asked of the network now: the next checkpoint is being claimed.

        It waits for room on the disk or for another process that fetches it, or, for a moment only,
        for the Hub's listing of it.
        """
        return self._claims

    @property
    def failed(self) -> Exception | None:
        """Why the first step that could not be fetched could not; None if there was none yet."""
        return self._failed

    @property
    def stopped(self) -> bool:
        """Whether it has been left."""
        return self._stopped

    def extend(self, steps: Iterable[int]) -> None:
        """Fetch these too, in this order, after those that are still to come.

        A step that is still to come stays where it is; after `close`, nothing.
        """
        with self._changed:
            if self._stopped:
                return  # nobody would fetch it, and who takes it would wait for ever
            for step in steps:
                self._entries.setdefault(step, _Entry())
            self._changed.notify_all()

    def drop(self, step: int) -> None:
        """Fetch this one no longer, and give back what came of it; one being taken stays."""
        with self._changed:
            entry = self._entries.get(step)
            if entry is not None and not entry.awaited:
                self._drop(step)

    def take(self, step: int) -> Fetched | None:
        """The files of a step, once they are here; None if it is not, or no longer, in the list.

        Steps before it are given up. The step's own error if it could not be fetched.
        """
        with self._changed:
            entry = self._entries.get(step)
            if entry is None:
                return None
            for earlier in list(self._entries):
                if earlier == step:
                    break
                self._drop(earlier)
            entry.awaited = True
            self._changed.notify_all()
        try:
            return result_of(entry.future)
        except BaseException:  # the step's own error, or an interrupt
            entry.dropped = True
            entry.future.add_done_callback(_give_back)
            raise
        finally:
            with self._changed:
                if self._entries.get(step) is entry:  # not one that was added since
                    del self._entries[step]
                self._changed.notify_all()

    def shed(self) -> bool:
        """Give up the step that would be needed last of those that have room; False if none has.

        One at a time: the next only by a call that comes after the room was seen without this one.
        """
        with self._changed:
            if self._shed is not None:
                if self._shed.is_set():
                    self._shed = None
                return True
            for step, entry in reversed(self._entries.items()):
                if entry.begun and not entry.awaited:
                    self._drop(step)
                    self._shed = _given_back(entry.future)
                    return True
        return False

    def close(self) -> None:
        """Stop all that is under way, and give back what nobody has taken."""
        with self._changed:
            self._stopped = True
            for step in list(self._entries):
                if not self._entries[step].awaited:
                    self._drop(step)
            self._changed.notify_all()
        self.downloader.close()
        if self._thread.ident is not None:
            self._thread.join()
        self._pool.shutdown(wait=True)

    def _drop(self, step: int) -> None:
        """Nobody will take this step: what came of it, or will, is given back."""
        entry = self._entries.pop(step)
        entry.dropped = True
        if entry.begun:
            entry.future.add_done_callback(_give_back)
        elif entry.awaited:
            self._fail(entry, Stopped())  # nobody else would tell whoever waits for it
        self._changed.notify_all()

    def _go(self) -> None:
        while (following := self._next()) is not None:
            self._start(*following)
            del following  # it leads to open files, which would keep their place on the disk
        with self._changed:
            for entry in self._entries.values():
                if not entry.begun:
                    entry.future.set_exception(self._told(Stopped()))

    def _start(self, step: int, entry: _Entry) -> None:
        waiting = Waiting(
            stopped=lambda: self._stopped or entry.dropped,
            urgent=lambda: entry.awaited,
            closes=True,
        )
        begun = None
        try:
            self._claims = True
            begun = self._begin(step, waiting, self.downloader)
            self._pool.submit(self._complete, entry, begun)
        except BaseException as error:
            if begun is not None:  # there is no thread for it
                self._abandon(begun)
            self._fail(entry, error)
        finally:
            self._claims = False

    def _next(self) -> tuple[int, _Entry] | None:
        """The next step once there is one, and a place for it; None if it is over."""
        with self._changed:
            while not self._stopped:
                waiting = [each for each in self._entries.items() if not each[1].begun]
                at_work = len(self._entries) - len(waiting)
                if waiting and (at_work < self._depth or waiting[0][1].awaited):
                    waiting[0][1].begun = True
                    return waiting[0]
                self._changed.wait()
            return None

    def _complete(self, entry: _Entry, begun: Begun) -> None:
        try:
            fetched = self._finish(begun)
        except BaseException as error:
            self._fail(entry, error)
        else:
            entry.future.set_result(fetched)

    def _fail(self, entry: _Entry, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):  # a thread was found for it after all
            entry.future.set_exception(self._told(error))

    def _told(self, error: BaseException) -> BaseException:
        if self._stopped:
            return HubError("the checkpoint is not fetched any more: its look-ahead was left")
        if isinstance(error, Stopped):
            return HubError(
                "the checkpoint is not fetched any more: it was given up, or a later one opened"
            )
        if self._failed is None and isinstance(error, Exception):
            self._failed = error
        return error


def _given_back(future: Future[Fetched]) -> threading.Event:
    """Set once all is done that was to follow the future; not the future, which has open files."""
    given_back = threading.Event()
    future.add_done_callback(lambda _: given_back.set())
    return given_back


def _give_back(future: Future[Fetched]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().hold.close()


def in_daemons(work: Callable[[Item], Result], items: Sequence[Item], count: int) -> list[Result]:
    """`work` of each item, in order, in `count` threads; the first error ends it.

    Unlike those of an executor, threads that still wait for an answer then are not waited for,
    neither by an interrupt nor at the end of the process.
    """
    futures: list[Future[Result]] = [Future() for _ in items]
    tasks = iter(list(zip(futures, items, strict=True)))
    taking = threading.Lock()
    over = threading.Event()

    def go() -> None:
        while not over.is_set():
            with taking:
                task = next(tasks, None)
            if task is None:
                return
            future, item = task
            try:
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)

    for _ in range(min(count, len(items))):
        threading.Thread(target=go, name="pythia-fast-survey", daemon=True).start()
    try:
        return [result_of(future) for future in futures]
    finally:
        over.set()
