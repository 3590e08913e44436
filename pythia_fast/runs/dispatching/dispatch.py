"""Which worker does which step next: decided here, in one place, without a clock or a network.

Drivers of real workers and the simulation tell it what has happened and ask it what is to be done.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.dispatching.blame import RETRIES, SHUN_AFTER, Blame
from pythia_fast.runs.dispatching.fitting import Fitting
from pythia_fast.runs.dispatching.holding import Worker
from pythia_fast.runs.dispatching.tasks import KEEPS, Queue, Task

__all__ = ["KEEPS", "LOOK_AHEAD", "RETRIES", "SHUN_AFTER", "Dispatcher", "Task"]

LOOK_AHEAD = 2
"""Steps that a worker holds beside the one it computes: one is read, one is downloaded."""


class Dispatcher:
    """Hands out steps: the costly ones first, so that no worker ends long after the others.

    Every worker gets one before any gets a second; then look-ahead. What a worker had begun when it
    died is a suspect: it is given to a worker that holds nothing and gets nothing else until it is
    done, so that the blame is exact. What it had not begun is queued again.

    A suspect goes to a host where no worker died with it, or the fewest did, and waits for a worker
    of such a host, which is let run empty: else a bad machine, whose workers die at once and so
    are the first to be idle, would get every suspect and take innocent steps with it. One that died
    in company again, as of a machine whose memory another step had taken, waits until all workers
    of a host are idle, and nothing else is done there meanwhile.

    It is told of all that happens, and does nothing by itself: no I/O, no clock. The same calls
    give the same answers. Not thread-safe.
    """

    def __init__(self, tasks: Iterable[Task], *, look_ahead: int = LOOK_AHEAD) -> None:
        """Queue `tasks`. ArgumentError as for `add`, or if `look_ahead` is negative."""
        if look_ahead < 0:
            raise ArgumentError(f"look_ahead is 0 or more steps, not {look_ahead}")
        self._most = look_ahead + 1
        self._queue = Queue()
        self._suspects: list[Task] = []
        self._workers: dict[str, Worker] = {}
        self._open: dict[str, Worker] = {}  # those that can take more
        self._idle: dict[str, Worker] = {}
        self._stocked: dict[str, Worker] = {}  # those with more than one task
        self._hosts: Counter[str] = Counter()  # of these workers
        self._quiet: dict[str, str] = {}  # hosts that have but one step, and the worker that has it
        self._joined = 0
        self._known: set[tuple[int, int]] = set()
        self._blame, self._fitting = Blame(), Fitting()
        self._held = 0
        self._asked = 0
        self.add(tasks)

    @property
    def over(self) -> bool:
        """Whether nothing is queued and nothing held."""
        return not (self._held or self._queue or self._suspects)

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that have joined and were not lost, in that order."""
        return tuple(self._workers)

    def held(self, worker: str) -> tuple[Task, ...]:
        """What a worker holds, in the order in which it was handed out. ArgumentError."""
        return tuple(self._worker(worker).holds)

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
        if worker in self._workers:
            raise ArgumentError(f"a worker named {worker!r} is there already")
        self._workers[worker] = Worker(self._joined, worker, host)
        self._hosts[host] += 1
        self._joined += 1
        self._sort(worker)

    def assignments(self) -> list[tuple[str, Task]]:
        """What is to be handed out now, in this order; nothing more until something happens."""
        given = self._give_suspects()
        if not self._queue:
            return given
        drained = self._drained() if self._open else set()
        waiting = [each.place for name, each in self._open.items() if name not in drained]
        heapq.heapify(waiting)
        while waiting and self._queue:
            *_, name = heapq.heappop(waiting)
            worker = self._workers[name]
            task = self._queue.take(worker.model, self._fitting.without(worker))
            if task is None:
                continue
            given.append((name, task))
            self._give(name, task)
            if name in self._open:
                heapq.heappush(waiting, worker.place)
        return given

    def begun(self, worker: str, task: Task) -> None:
        """A worker has begun to load or compute what it holds. ArgumentError if it does not."""
        holder = self._holder(worker, task)
        holder.holds[task] = True
        self._fitting.begun(holder.host, task.model)

    def unfit(self, worker: str, model: int) -> None:
        """A worker cannot hold a model: what it held of it is queued again, and goes elsewhere.

        Others of its host are not given the model either, unless one there has begun with it.
        ArgumentError if there is no such worker.
        """
        holder = self._worker(worker)
        self._fitting.unfit(holder, model)
        alone = holder.alone
        for task in tuple(holder.holds):
            if task.model == model:
                self._drop(worker, task)
                if alone:
                    self._suspect(task)
                else:
                    self._queue.put(task)

    def fits(self, model: int) -> bool:
        """Whether a worker is there that may hold a model, or has been given a step of it."""
        return any(
            self._fits(worker, model) or any(task.model == model for task in worker.holds)
            for worker in self._workers.values()
        )

    def hosts_without(self, model: int) -> set[str]:
        """The hosts whose workers cannot hold a model."""
        return self._fitting.hosts_without(model)

    def give_up(self, model: int) -> list[Task]:
        """The tasks of a model that nobody holds; they are not handed out any more."""
        suspects = [task for task in self._suspects if task.model == model]
        self._suspects = [task for task in self._suspects if task.model != model]
        return suspects + self._queue.drop(model)

    def finished(self, worker: str, task: Task) -> None:
        """Done, failed or given up: no longer held, never handed out again. ArgumentError."""
        host = self._holder(worker, task).host
        self._drop(worker, task)
        self._blame.finished(host, task)

    def refused(self, worker: str, task: Task) -> bool:
        """A worker could not do a task, maybe for its machine's sake: no network, a full disk.

        True: it is tried once more, alone as a suspect is, by a worker of another host. False, if
        there is none or it was refused before: as after `finished`, and the caller tells why it
        failed. ArgumentError if the worker does not hold it.
        """
        host = self._holder(worker, task).host
        if len(self._hosts) > 1 and self._blame.refused(host, task):
            self._drop(worker, task)
            self._suspect(task)
            return True
        self.finished(worker, task)
        return False

    def shuns(self, host: str) -> bool:
        """Whether a host is better left alone, while workers of others are there.

        `SHUN_AFTER` of its workers died one after the other, and none finished a step in between.
        Those do not count that died with a step of which workers of other hosts died as well. Not
        where something waits of which no other host can hold the model.
        """
        others = [worker for worker in self._workers.values() if worker.host != host]
        if not others or self._blame.deaths(host) < SHUN_AFTER:
            return False
        waiting = self._queue.models | {task.model for task in self._suspects}
        return all(any(self._fits(other, model) for other in others) for model in waiting)

    def wanted_back(self) -> tuple[str, Task] | None:
        """What a worker should be asked to give back; None if nothing.

        There is one where nothing waits that a worker with nothing to do could get, and another
        holds more than it has begun: of those the one with the most work ahead. Each is named once;
        the answer goes to `taken_back`.
        """
        if self._queue or not self._idle:
            return None
        kept = self._kept_quiet()
        idle = sum(worker.host not in kept for worker in self._idle.values())
        if self._asked >= idle or any(map(self._taker, self._suspects)):
            return None
        by_work = sorted(self._stocked.values(), key=lambda worker: (-worker.cost, worker.number))
        for worker in by_work:
            task = worker.spare
            if task is not None and any(
                self._fits(idle, task.model) for idle in self._idle.values()
            ):
                worker.asked.add(task)
                self._asked += 1
                return worker.name, task
        return None

    def taken_back(self, worker: str, task: Task, *, given: bool) -> None:
        """The answer of a worker that was asked: it gives the task, or had begun it meanwhile.

        Nothing happens where it has not given it and it is over anyway. ArgumentError if it gives
        what it does not hold.
        """
        holder = self._workers.get(worker)
        if not given and (holder is None or task not in holder.holds):
            return
        holder = self._holder(worker, task)
        if given:
            self._drop(worker, task)
            self._queue.put(task)
            return
        holder.holds[task] = True
        self._answered(holder, task)

    def lost(self, worker: str) -> list[Task]:
        """A worker died. The tasks that are given up now; what else it held is queued again.

        Given up is what was alone in a worker that died more than `RETRIES` times and, where
        workers of several hosts that can hold its model are there, this one's among them, on two of
        them. Where it has not said what it had begun, that is the first.
        ArgumentError if there is no such worker.
        """
        dead = self._worker(worker)
        tasks = tuple(dead.holds)
        begun = [task for task in tasks if dead.holds[task]] or tasks[:1]
        alone, quiet = len(tasks) == 1, not dead.in_company
        self._blame.died(dead.host, begun, alone=alone, quiet=quiet)
        given_up = []
        for task in tasks:
            could = self._hosts_for(task)
            self._drop(worker, task)
            if task not in begun:
                self._queue.put(task)
            elif self._blame.gives_up(task, could):
                given_up.append(task)
            else:
                self._suspect(task)
        for each in (self._workers, self._open, self._idle, self._stocked):
            each.pop(worker, None)
        self._hosts -= Counter([dead.host])  # forgets it with its last worker
        return given_up

    def _suspect(self, task: Task) -> None:
        self._suspects.append(task)
        self._suspects.sort(key=lambda task: -task.cost)

    def _kept_quiet(self) -> dict[str, Task | None]:
        """Hosts where one step alone is done, and those let run empty for another: for which."""
        kept: dict[str, Task | None] = dict.fromkeys(self._quiet)
        for task in self._suspects:
            if not self._blame.needs_quiet(task):
                continue
            hosts = self._blame.next_hosts(task, self._hosts_for(task)) - set(kept)
            busy: Counter[str] = Counter()
            for worker in self._workers.values():
                if worker.host in hosts:
                    busy[worker.host] += len(worker.holds)
            if busy:  # of equal ones that of the oldest worker
                kept[min(busy, key=busy.__getitem__)] = task
        return kept

    def _taker(self, task: Task) -> Worker | None:
        """The worker that a suspect can be given to now: of the most trusted host, the oldest."""
        if not self._idle:
            return None
        kept = self._kept_quiet()
        if self._blame.needs_quiet(task):
            hosts = {host for host, waiting in kept.items() if waiting == task}
            hosts -= {worker.host for worker in self._workers.values() if worker.holds}
        else:
            hosts = self._blame.next_hosts(task, self._hosts_for(task)) - set(kept)
        fitting = (
            worker
            for worker in self._idle.values()
            if worker.host in hosts and self._fits(worker, task.model)
        )
        deaths = {host: self._blame.deaths(host) for host in hosts}
        return min(fitting, key=lambda worker: (deaths[worker.host], worker.number), default=None)

    def _give_suspects(self) -> list[tuple[str, Task]]:
        given = []
        for task in tuple(self._suspects):
            worker = self._taker(task)
            if worker is not None:
                worker.alone = True
                self._suspects.remove(task)
                if self._blame.needs_quiet(task):
                    self._quiet[worker.host] = worker.name
                self._give(worker.name, task)
                given.append((worker.name, task))
        return given

    def _drained(self) -> set[str]:
        """Those that are let run empty: for each suspect the first to be so that may get it.

        All of a host that is kept quiet.
        """
        if not (self._suspects or self._quiet):
            return set()
        kept = self._kept_quiet()
        drained = {worker.name for worker in self._workers.values() if worker.host in kept}
        workers = [worker for worker in self._workers.values() if not worker.alone]
        workers.sort(key=lambda worker: worker.place)
        for task in self._suspects:
            if self._blame.needs_quiet(task):
                continue
            hosts = self._blame.next_hosts(task, self._hosts_for(task))
            for worker in workers:
                fits = worker.host in hosts and self._fits(worker, task.model)
                if fits and worker.name not in drained:
                    drained.add(worker.name)
                    break
        return drained

    def _fits(self, worker: Worker, model: int) -> bool:
        return model not in self._fitting.without(worker)

    def _hosts_for(self, task: Task) -> set[str]:
        """Those with a worker that may hold the task's model."""
        return {each.host for each in self._workers.values() if self._fits(each, task.model)}

    def _give(self, name: str, task: Task) -> None:
        worker = self._workers[name]
        if not worker.holds:
            self._meet(worker)
        worker.holds[task] = False
        worker.model = task.model
        worker.cost += task.cost
        self._held += 1
        self._sort(name)

    def _meet(self, worker: Worker) -> None:
        """A worker gets something to do; note who has something beside it."""
        for other in self._workers.values():
            if other.holds and other.host == worker.host:
                other.in_company = worker.in_company = True

    def _drop(self, name: str, task: Task) -> None:
        worker = self._workers[name]
        del worker.holds[task]
        worker.cost = worker.cost - task.cost if worker.holds else 0.0
        if not worker.holds:
            worker.alone = worker.in_company = False
            if self._quiet.get(worker.host) == name:
                del self._quiet[worker.host]
        self._held -= 1
        self._answered(worker, task)
        self._sort(name)

    def _answered(self, worker: Worker, task: Task) -> None:
        if task in worker.asked:
            worker.asked.remove(task)
            self._asked -= 1

    def _sort(self, name: str) -> None:
        """Keep who has room, who has nothing, and who has something ahead."""
        worker = self._workers[name]
        for chosen, belongs in (
            (self._open, not worker.alone and len(worker.holds) < self._most),
            (self._idle, not worker.holds),
            (self._stocked, len(worker.holds) > 1),
        ):
            if belongs:
                chosen[name] = worker
            else:
                chosen.pop(name, None)

    def _worker(self, name: str) -> Worker:
        if name not in self._workers:
            raise ArgumentError(
                f"there is no worker named {name!r}: it has not joined, or was lost"
            )
        return self._workers[name]

    def _holder(self, name: str, task: Task) -> Worker:
        worker = self._worker(name)
        if task not in worker.holds:
            raise ArgumentError(f"the worker {name!r} does not hold {task}")
        return worker
