"""Which worker does which step next: decided here, in one place, without a clock or a network.

Drivers of real workers and the simulation tell it what has happened and ask it what is to be done.
"""

import heapq
import math
from collections.abc import Callable, Iterable

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.dispatching.blame import RETRIES, SHUN_AFTER, Blame
from pythia_fast.runs.dispatching.fitting import Fitting
from pythia_fast.runs.dispatching.holding import Worker, Workers
from pythia_fast.runs.dispatching.suspects import Suspects
from pythia_fast.runs.dispatching.tasks import KEEPS, Queue, Task

__all__ = ["KEEPS", "LOOK_AHEAD", "RETRIES", "SHUN_AFTER", "Dispatcher", "Task"]

LOOK_AHEAD = 2
"""Steps that a worker holds beside the one it computes: one is read, one is downloaded."""


class Dispatcher:
    """Hands out steps: the costly ones first, so that no worker ends long after the others.

    Every worker gets one before any gets a second; then look-ahead. What a worker had begun when it
    died is a suspect: it is given to a worker that holds nothing and gets nothing else until it is
    done, so that the blame is exact. What it had not begun is queued again.

    It is told of all that happens, and does nothing by itself: no I/O, no clock. The same calls
    give the same answers. Not thread-safe.
    """

    def __init__(self, tasks: Iterable[Task], *, look_ahead: int = LOOK_AHEAD) -> None:
        """Queue `tasks`. ArgumentError as for `add`, or if `look_ahead` is negative."""
        if look_ahead < 0:
            raise ArgumentError(f"look_ahead is 0 or more steps, not {look_ahead}")
        self._known: set[tuple[int, int]] = set()
        self._queue = Queue()
        self._workers = Workers(most=look_ahead + 1)
        self._blame, self._fitting = Blame(), Fitting()
        self._suspects = Suspects(self._workers, self._blame, self._fitting)
        self.add(tasks)

    @property
    def over(self) -> bool:
        """Whether nothing is queued and nothing held."""
        return not (self._workers.held or self._queue or self._suspects)

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that have joined and were not lost, in that order."""
        return tuple(worker.name for worker in self._workers)

    def held(self, worker: str) -> tuple[Task, ...]:
        """What a worker holds, in the order in which it was handed out. ArgumentError."""
        return tuple(self._workers[worker].holds)

    def add(self, tasks: Iterable[Task]) -> None:
        """Queue steps that turned up later, such as the twin of one that failed.

        ArgumentError if a step was there before, or its cost is negative or no number.
        """
        for task in tasks:
            if not 0 <= task.cost < math.inf:
                raise ArgumentError(f"the cost of a step is a number from 0 up, got {task}")
            if (task.model, task.step) in self._known:
                raise ArgumentError(f"step {task.step} of model {task.model} was given already")
            self._known.add((task.model, task.step))
            self._queue.put(task)

    def join(self, worker: str, host: str = "") -> None:
        """A worker of a host is ready. ArgumentError if there is one of this name.

        Without `host` all are of one.
        """
        self._workers.join(worker, host)

    def assignments(self) -> list[tuple[str, Task]]:
        """What is to be handed out now, in this order; nothing more until something happens."""
        given = self._suspects.give()
        if not self._queue:
            return given
        drained = self._suspects.drained() if self._workers.open else set()
        waiting = [each.place for name, each in self._workers.open.items() if name not in drained]
        heapq.heapify(waiting)
        while waiting and self._queue:
            *_, name = heapq.heappop(waiting)
            worker = self._workers[name]
            task = self._queue.take(worker.model, self._fitting.without(worker))
            if task is None:
                continue
            given.append((name, task))
            self._workers.give(worker, task)
            if name in self._workers.open:
                heapq.heappush(waiting, worker.place)
        return given

    def begun(self, worker: str, task: Task) -> None:
        """A worker has begun to load or compute what it holds. ArgumentError if it does not."""
        holder = self._workers.holder(worker, task)
        holder.holds[task] = True
        self._fitting.begun(holder.host, task.model)

    def unfit(self, worker: str, model: int) -> None:
        """A worker cannot hold a model: what it held of it is queued again, and goes elsewhere.

        Others of its host are not given the model either, unless one there has begun with it.
        ArgumentError if there is no such worker.
        """
        holder = self._workers[worker]
        self._fitting.unfit(holder, model)
        again = self._suspects if holder.alone else self._queue
        for task in tuple(holder.holds):
            if task.model == model:
                self._workers.drop(holder, task)
                again.put(task)

    def fits(self, model: int) -> bool:
        """Whether a worker is there that may hold a model, or has been given a step of it."""
        return any(
            self._fitting.fits(worker, model) or any(task.model == model for task in worker.holds)
            for worker in self._workers
        )

    def hosts_without(self, model: int) -> set[str]:
        """The hosts whose workers cannot hold a model."""
        return self._fitting.hosts_without(model)

    def give_up(self, model: int) -> list[Task]:
        """The tasks of a model that nobody holds; they are not handed out any more."""
        return self._suspects.drop(model) + self._queue.drop(model)

    def finished(self, worker: str, task: Task) -> None:
        """Done, failed or given up: no longer held, never handed out again. ArgumentError."""
        holder = self._workers.holder(worker, task)
        self._workers.drop(holder, task)
        self._blame.finished(holder.host, task)

    def refused(self, worker: str, task: Task) -> bool:
        """A worker could not do a task, maybe for its machine's sake: no network, a full disk.

        True: it is tried once more, alone as a suspect is, by a worker of another host. False, if
        there is none or it was refused before: as after `finished`, and the caller tells why it
        failed. ArgumentError if the worker does not hold it.
        """
        holder = self._workers.holder(worker, task)
        if len(self._workers.hosts) > 1 and self._blame.refused(holder.host, task):
            self._workers.drop(holder, task)
            self._suspects.put(task)
            return True
        self.finished(worker, task)
        return False

    def shuns(self, host: str) -> bool:
        """Whether a host is better left alone, while workers of others are there.

        `SHUN_AFTER` of its workers died one after the other, and none finished a step in between.
        Those do not count that died with a step of which workers of other hosts died as well. Not
        where something waits of which no other host can hold the model.
        """
        others = [worker for worker in self._workers if worker.host != host]
        if not others or self._blame.deaths(host) < SHUN_AFTER:
            return False
        return all(
            any(self._fitting.fits(other, model) for other in others)
            for model in self._queue.models | self._suspects.models
        )

    def wanted_back(self) -> tuple[str, Task] | None:
        """What a worker should be asked to give back; None if nothing.

        A worker with nothing to do, and for which nothing waits, gets what another holds and has
        not begun: of those the one with the most work ahead. So does, one at a time, who has the
        least to do, as one that joined when others had been given all that was left: two steps
        fewer than that one and, with one of its steps more, still less work than that one had.
        Each is named once; the answer goes to `taken_back`.
        """
        return self._wanted_by_the_idle() or self._wanted_by_the_late()

    def taken_back(self, worker: str, task: Task, *, given: bool) -> None:
        """The answer of a worker that was asked: it gives the task, or had begun it meanwhile.

        Nothing happens where it has not given it and it is over anyway. ArgumentError if it gives
        what it does not hold.
        """
        holder = self._workers.get(worker)
        if not given and (holder is None or task not in holder.holds):
            return
        holder = self._workers.holder(worker, task)
        if given:
            self._workers.drop(holder, task)
            self._queue.put(task)
            return
        holder.holds[task] = True
        self._workers.answered(holder, task)

    def lost(self, worker: str) -> list[Task]:
        """A worker died. The tasks that are given up now; what else it held is queued again.

        Given up is what was alone in a worker that died more than `RETRIES` times and, where
        workers of several hosts that can hold its model are there, this one's among them, on two of
        them. Where it has not said what it had begun, that is the first.
        ArgumentError if there is no such worker.
        """
        dead = self._workers[worker]
        tasks = tuple(dead.holds)
        begun = [task for task in tasks if dead.holds[task]] or tasks[:1]
        self._blame.died(dead.host, begun, alone=len(tasks) == 1, quiet=not dead.in_company)
        given_up = []
        for task in tasks:
            could = self._fitting.hosts_for(task.model, self._workers)
            self._workers.drop(dead, task)
            if task not in begun:
                self._queue.put(task)
            elif self._blame.gives_up(task, could):
                given_up.append(task)
            else:
                self._suspects.put(task)
        self._workers.leave(dead)
        return given_up

    def _wanted_by_the_idle(self) -> tuple[str, Task] | None:
        idle = self._left_without()
        if len(idle) <= self._workers.asked:
            return None
        return self._asked_of(
            lambda _, task: any(self._fitting.fits(each, task.model) for each in idle)
        )

    def _wanted_by_the_late(self) -> tuple[str, Task] | None:
        """Only of the model that it has, while no suspect waits and nobody else is asked."""
        workers = self._workers
        if workers.asked or workers.quiet or self._queue or self._suspects:
            return None
        busy = (worker for worker in workers.open.values() if worker.holds)
        late = min(busy, key=lambda worker: worker.place, default=None)
        if late is None or len(late.holds) + 2 > workers.most:
            return None
        return self._asked_of(
            lambda worker, task: (
                len(worker.holds) >= len(late.holds) + 2
                and late.cost + task.cost < worker.cost
                and task.model == late.model
                and self._fitting.fits(late, task.model)
            )
        )

    def _asked_of(self, wanted: Callable[[Worker, Task], bool]) -> tuple[str, Task] | None:
        """Of who has the most work ahead the first task that is wanted; it is asked back."""
        by_work = sorted(
            self._workers.stocked.values(), key=lambda worker: (-worker.cost, worker.number)
        )
        for worker in by_work:
            for task in worker.spare:
                if wanted(worker, task):
                    self._workers.ask(worker, task)
                    return worker.name, task
        return None

    def _left_without(self) -> list[Worker]:
        """Workers with nothing to do, and nothing waits that one of them could get."""
        if not self._workers.idle:
            return []
        kept = self._suspects.kept_hosts()
        idle = [worker for worker in self._workers.idle.values() if worker.host not in kept]
        waiting = self._queue.models
        if any(self._fitting.fits(each, model) for each in idle for model in waiting):
            return []
        return [] if self._suspects.can_be_given() else idle
