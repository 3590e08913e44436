"""Checkpoint after checkpoint into the arenas, ahead of who computes with them."""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from pythia_fast.errors import ReadError
from pythia_fast.model import LoadReport, Weights
from pythia_fast.model.streams import Event
from pythia_fast.series import Checkpoint, CheckpointSeries
from pythia_fast.series.sources import Ahead
from pythia_fast.streaming.times import LoadTimes

TELL_EVERY_S = 1.0
"""How often somebody who waits for a checkpoint is told of it."""

Waiting = Callable[[int, Ahead], None]
"""Called now and then with the step that is waited for, and what is going on meanwhile."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in its arena, ready to compute with.

    `weights_sha256` is "" where it was not asked for. The checkpoint stays open until the next one
    is asked for.
    """

    step: int
    weights: Weights
    checkpoint: Checkpoint
    report: LoadReport
    weights_sha256: str
    identity: str
    times: LoadTimes


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A checkpoint that could not be loaded, and why."""

    step: int
    error: Exception


def prefetch(
    series: CheckpointSeries,
    steps: deque[int],
    arenas: Sequence[Weights],
    *,
    hashed: bool,
    poured_into: Weights | None = None,
    waiting: Waiting | None = None,
    entered: Callable[[Ahead], None] | None = None,
) -> Generator[Loaded | NotLoaded, None, None]:
    """Load the steps in turn, each into the next free arena: ahead by as many as there are but one.

    Where that is more than one they are opened and read one after the other, in the order in which
    they are fetched, and hashed side by side.

    A step is taken from the left of `steps` when its loading begins; what is appended meanwhile is
    loaded too. Another thread may append, and take back from the right what has not begun. It ends
    when nothing is left; what is appended after that stays in `steps`.

    All that are in it at the start are fetched ahead in this order. `entered` is then called with
    what fetches them: whoever appends a step later tells it first (`Ahead.extend`), and whoever
    has taken one back does so afterwards (`Ahead.drop`).

    A step that cannot be loaded comes with its error, and the next is gone on with. What was
    yielded may be used until the next is asked for: then its checkpoint is closed, before anything
    is waited for, so that its place on the disk is free for the next. The last one stays open.
    Closing the generator stops all downloads, and closes what was loaded in vain.
    `hashed` also computes the weights' sha256.

    With `poured_into` the arenas are the host's, and what is loaded comes poured into that one of
    the GPU. Its use, and that of arenas of a GPU, is over when what the calling thread has given to
    the GPU until it asks for the next is done: loading waits for that, this thread does not.
    """
    free = deque(arenas)
    pending: deque[tuple[int, Weights, Future[Loaded | NotLoaded]]] = deque()
    threads = max(1, len(arenas) - 1)
    with ThreadPoolExecutor(threads, "pythia_fast-load") as pool:
        loading = _Loading(pool, series, hashed)

        def begin(following: Sequence[int]) -> None:
            for step in following:
                arena = free.popleft()
                pending.append((step, arena, loading.begin(step, arena)))

        try:
            first = _now_in(steps)
            with series.ahead(first) as ahead:
                _catch_up(ahead, first, _now_in(steps))
                if entered is not None:
                    entered(ahead)
                last: Loaded | NotLoaded | None = None
                while (following := _taken(steps, len(free))) or pending:
                    if isinstance(last, Loaded):
                        last.checkpoint.close()
                    begin(following)
                    step, arena, future = pending[0]
                    last = _awaited(future, waiting and partial(waiting, step, ahead))
                    pending.popleft()
                    if poured_into is not None:
                        last = _poured(last, poured_into)
                        free.append(arena)
                    begin(_taken(steps, len(free)))  # what has come while this one was waited for
                    yield last
                    if poured_into is None:
                        free.append(arena)
        finally:
            for *_, future in pending:
                if not future.cancel():
                    future.add_done_callback(_close)


def _now_in(steps: deque[int]) -> tuple[int, ...]:
    """What is in the deque at one moment, whoever changes it."""
    while True:
        try:
            return tuple(steps)
        except RuntimeError:  # it was changed in the middle of this
            continue


def _taken(steps: deque[int], count: int) -> list[int]:
    """Take so many from the left, or as many as there are; others may take from the right."""
    taken: list[int] = []
    with suppress(IndexError):
        while len(taken) < count:
            taken.append(steps.popleft())
    return taken


def _catch_up(ahead: Ahead, before: Sequence[int], now: Sequence[int]) -> None:
    """Tell it what others have changed before they could: while the series was surveyed."""
    for step in set(before) - set(now):
        ahead.drop(step)
    ahead.extend(step for step in now if step not in before)


class _Loading:
    """Loads steps in the threads of a pool, which begin in the order in which they were given."""

    def __init__(self, pool: ThreadPoolExecutor, series: CheckpointSeries, hashed: bool) -> None:
        self._pool, self._series, self._hashed = pool, series, hashed
        self._read = threading.Event()  # that which was begun last
        self._read.set()

    def begin(self, step: int, arena: Weights) -> "Future[Loaded | NotLoaded]":
        """The loading of a step, after all that this thread has given to the GPU."""
        try:
            after = arena.last_use()
        except Exception as error:  # of a GPU that cannot be used any more
            failed: Future[Loaded | NotLoaded] = Future()
            failed.set_result(NotLoaded(step, error))
            return failed
        before, read = self._read, threading.Event()
        self._read = read
        files = self._series, step, arena, self._hashed
        loading = self._pool.submit(_load, *files, after, before, read)
        loading.add_done_callback(lambda _: read.set())  # also where it was cancelled
        return loading


def _poured(loaded: Loaded | NotLoaded, into: Weights) -> Loaded | NotLoaded:
    """What was loaded into an arena of the host, in that of the GPU, where it is arriving."""
    if isinstance(loaded, NotLoaded):
        return loaded
    try:
        into.pour(loaded.weights)
    except Exception as error:
        loaded.checkpoint.close()
        return NotLoaded(loaded.step, error)
    return replace(loaded, weights=into)


def _awaited(
    future: "Future[Loaded | NotLoaded]", tell: Callable[[], None] | None
) -> Loaded | NotLoaded:
    started = time.perf_counter()
    while not wait((future,), TELL_EVERY_S).done:  # also to look up: see `result_of`
        if tell is not None:
            tell()
    loaded = future.result()
    if isinstance(loaded, NotLoaded):
        return loaded
    waited_s = time.perf_counter() - started
    return replace(loaded, times=replace(loaded.times, wait_s=waited_s))


def _close(future: "Future[Loaded | NotLoaded]") -> None:
    """Close a checkpoint that was loaded in vain."""
    if not future.cancelled() and future.exception() is None:
        loaded = future.result()
        if isinstance(loaded, Loaded):
            loaded.checkpoint.close()


def _load(
    series: CheckpointSeries,
    step: int,
    weights: Weights,
    hashed: bool,
    after: Event | None,
    before: threading.Event,
    read: threading.Event,
) -> Loaded | NotLoaded:
    checkpoint = None
    try:
        try:
            before.wait()
            started = time.perf_counter()
            identity = series.identity(step)
            checkpoint = series.open(step)
            open_s = time.perf_counter() - started
            report = weights.load(checkpoint, after=after)
        finally:
            read.set()
        loaded = time.perf_counter()
        sha256 = checkpoint.weights_sha256 if hashed else ""
        hash_s = time.perf_counter() - loaded
        if series.identity(step) != identity:
            raise ReadError(
                errno.ESTALE,
                f"step {step} of {series.name} has changed while it was read: try again",
            )
        times = LoadTimes.of(checkpoint, report, open_s=open_s, hash_s=hash_s)
        return Loaded(step, weights, checkpoint, report, sha256, identity, times)
    except Exception as error:
        if checkpoint is not None:
            checkpoint.close()
        return NotLoaded(step, error)
