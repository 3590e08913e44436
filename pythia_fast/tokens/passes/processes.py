"""A function in several processes: results in order, a bounded number of items on their way.

Not concurrent.futures: there a process that dies takes the work of all others with it, and one
that is at work cannot be ended. Here it costs the one item that it worked on.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any, TypeVar

from pythia_fast.errors import PythiaFastError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 8  # items for each process that may be on their way
STOP_S = 5.0  # after which a process that does not end by itself is killed


@dataclass(frozen=True, slots=True)
class Died:
    """In the place of a result: the process ended before it gave one."""

    how: str


def in_processes(
    make: Callable[[], Callable[[Item], Result]], items: Iterable[Item], count: int
) -> Generator[tuple[Item, Result | Died], None, None]:
    """(item, result) of each item, in order. Each of `count` processes calls `make()` once.

    `make`, items and results are pickled: processes are spawned, not forked. The function keeps
    its errors to itself, as part of its results; one that it raises ends its process. What `make`
    raises is raised here, as WorkerError if it is not of this package.
    When the generator ends, or is closed, all processes have ended.
    """
    context = multiprocessing.get_context("spawn")
    processes: list[_Process] = []
    source = enumerate(items)
    on_their_way: dict[int, Item] = {}
    results: dict[int, Any] = {}  # of items whose turn is still to come
    turn, exhausted = 0, False
    try:
        for _ in range(count):
            processes.append(_Process(context, make))  # noqa: PERF401  # one may fail to start
        while True:
            for process in processes:
                if process.is_free and not exhausted and len(on_their_way) < AHEAD * count:
                    following = next(source, None)
                    if following is None:
                        exhausted = True
                    else:
                        on_their_way[following[0]] = following[1]
                        process.give(*following)
            if turn in results:
                yield on_their_way.pop(turn), results.pop(turn)
                turn += 1
            elif on_their_way or not exhausted:
                heard = wait([process.connection for process in processes])
                for place, process in enumerate(processes):
                    if process.connection in heard:
                        results |= process.receive()
                        if process.has_died:
                            processes[place] = _Process(context, make)
            else:
                return
    finally:
        for process in processes:
            process.release()
        for process in processes:
            process.join()


class _Process:
    """One process and the item that it works on."""

    def __init__(self, context: SpawnContext, make: Callable[[], Callable[[Any], Any]]) -> None:
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, make), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()  # Ctrl-C waits until it has said that it does not mind
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.is_free = False  # it says when it has begun
        self.has_died = False
        self._has_begun = False
        self._number: int | None = None  # of its item

    def give(self, number: int, item: object) -> None:
        self.is_free, self._number = False, number
        with contextlib.suppress(OSError):  # if it has died: `receive` tells
            self.connection.send(item)

    def receive(self) -> dict[int, Any]:
        """What has come from it: the result of its item, or nothing but that it has begun."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            self.connection.close()
            self.has_died = True
            value = Died(_ending(self._process.exitcode))
            if not self._has_begun:
                raise WorkerError(
                    f"a worker process ended ({value.how}) before it began; one worker works in "
                    "this process and may show why"
                ) from None
        else:
            if kind == _FAILED:
                raise value
            self.is_free = self._has_begun = True
        number, self._number = self._number, None
        return {} if number is None else {number: value}

    def release(self) -> None:
        """Let it end: by itself if it has nothing to do, else by force."""
        self.connection.close()
        if not self.is_free:
            self._process.terminate()

    def join(self) -> None:
        """Wait until it has ended."""
        self._process.join(STOP_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()


_BEGUN, _FAILED, _DONE = "begun", "failed", "done"


def _work(connection: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """What a process does until nobody is at the other end of the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        work = make()
    except PythiaFastError as error:
        connection.send((_FAILED, error))
        return
    except Exception as error:
        told = f"a worker process could not begin: {type(error).__name__}: {error}"
        connection.send((_FAILED, WorkerError(told)))
        return
    connection.send((_BEGUN, None))
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        result = work(item)
        with contextlib.suppress(OSError):
            connection.send((_DONE, result))


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"killed by {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
