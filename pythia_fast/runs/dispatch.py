"""Which worker does which step next: decided here, in one place, without a clock or a network.

Drivers of real workers and the simulation tell it what has happened and ask it what is to be done.
"""

import heapq
import math
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from pythia_fast.errors import ArgumentError

LOOK_AHEAD = 2
"""Steps that a worker holds beside the one it computes: one is read, one is downloaded."""

RETRIES = 2
"""How often a step that was alone in a worker that died is tried again."""

KEEPS = 0.5
"""A worker keeps to its model while that has a step of this part of the highest cost that waits.

To change the model costs a start of its own, and to take a step half as costly before another
unbalances little. Of models that differ less, as 12b and 12b-deduped, each is gone through in turn.
"""


@dataclass(frozen=True, slots=True)
class Task:
    """One step of one model, whose `cost` grows with the work, in operations or whatever else.

    `model` is its position among the models asked for.
    """

    model: int
    step: int
    cost: float


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker: what it holds in the order in which it will do it, and whether each has begun."""

    number: int
    name: str
    holds: dict[Task, bool] = field(default_factory=dict)
    asked: set[Task] = field(default_factory=set)
    model: int | None = None
    alone: bool = False  # with a suspect
    cost: float = 0.0

    @property
    def place(self) -> tuple[int, float, int, str]:
        """Who comes first gets the next task: who holds few, and of little work."""
        return len(self.holds), self.cost, self.number, self.name

    @property
    def spare(self) -> Task | None:
        """What could be asked back: the last that has not begun, if it keeps another for itself."""
        if len(self.holds) - len(self.asked) < 2:
            return None
        for task in reversed(self.holds):
            if not self.holds[task] and task not in self.asked:
                return task
        return None


class _Queue:
    """Tasks that wait: of each model the most costly first, of equal ones the first that came."""

    def __init__(self) -> None:
        self._of_model: dict[int, list[tuple[float, int, Task]]] = {}
        self._number: dict[Task, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, task: Task) -> None:
        number = self._number.setdefault(task, len(self._number))
        # Sorted backwards, so that the next one is the last.
        insort(self._of_model.setdefault(task.model, []), (task.cost, -number, task))
        self._count += 1

    def take(self, model: int | None) -> Task:
        """The most costly one, or one of `model` that is not much less so."""
        heads = {each: tasks[-1][:2] for each, tasks in self._of_model.items()}
        first = max(heads, key=heads.__getitem__)
        if model in heads and heads[model][0] >= KEEPS * heads[first][0]:
            first = model
        tasks = self._of_model[first]
        task = tasks.pop()[2]
        if not tasks:
            del self._of_model[first]
        self._count -= 1
        return task


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
        self._most = look_ahead + 1
        self._queue = _Queue()
        self._suspects: list[Task] = []
        self._workers: dict[str, _Worker] = {}
        self._open: dict[str, _Worker] = {}  # those that can take more
        self._idle: dict[str, _Worker] = {}
        self._stocked: dict[str, _Worker] = {}  # those with more than one task
        self._joined = 0
        self._known: set[tuple[int, int]] = set()
        self._lost_alone: dict[Task, int] = {}
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

    def join(self, worker: str) -> None:
        """A worker is ready. ArgumentError if there is one of this name."""
        if worker in self._workers:
            raise ArgumentError(f"a worker named {worker!r} is there already")
        self._workers[worker] = _Worker(self._joined, worker)
        self._joined += 1
        self._sort(worker)

    def assignments(self) -> list[tuple[str, Task]]:
        """What is to be handed out now, in this order; nothing more until something happens."""
        given = self._give_suspects()
        if not self._queue:
            return given
        waiting = [worker.place for worker in self._open.values()]
        if self._suspects and waiting:  # some are let run empty, for them
            places = (worker.place for worker in self._workers.values() if not worker.alone)
            drained = heapq.nsmallest(len(self._suspects), places)
            waiting = [place for place in waiting if place not in drained]
        heapq.heapify(waiting)
        while waiting and self._queue:
            *_, name = heapq.heappop(waiting)
            worker = self._workers[name]
            given.append((name, self._queue.take(worker.model)))
            self._give(*given[-1])
            if name in self._open:
                heapq.heappush(waiting, worker.place)
        return given

    def begun(self, worker: str, task: Task) -> None:
        """A worker has begun to load or compute what it holds. ArgumentError if it does not."""
        self._holder(worker, task).holds[task] = True

    def finished(self, worker: str, task: Task) -> None:
        """Done, failed or given up: no longer held, never handed out again. ArgumentError."""
        self._holder(worker, task)
        self._drop(worker, task)

    def wanted_back(self) -> tuple[str, Task] | None:
        """What a worker should be asked to give back; None if nothing.

        There is one where nothing is queued, a worker has nothing to do, and another holds more
        than it has begun: of those the one with the most work ahead. Each is named once; the answer
        goes to `taken_back`.
        """
        if self._queue or self._suspects or self._asked >= len(self._idle):
            return None
        by_work = sorted(self._stocked.values(), key=lambda worker: (-worker.cost, worker.number))
        for worker in by_work:
            task = worker.spare
            if task is not None:
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

        Given up is what was alone in a worker that died more than `RETRIES` times. Where it has not
        said what it had begun, that is the first.
        ArgumentError if there is no such worker.
        """
        dead = self._worker(worker)
        tasks = tuple(dead.holds)
        begun = [task for task in tasks if dead.holds[task]] or tasks[:1]
        given_up = []
        for task in tasks:
            self._drop(worker, task)
            if task not in begun:
                self._queue.put(task)
                continue
            if len(tasks) == 1:
                self._lost_alone[task] = self._lost_alone.get(task, 0) + 1
            if self._lost_alone.get(task, 0) > RETRIES:
                given_up.append(task)
            else:
                self._suspects.append(task)
        self._suspects.sort(key=lambda task: -task.cost)
        for each in (self._workers, self._open, self._idle, self._stocked):
            each.pop(worker, None)
        return given_up

    def _give_suspects(self) -> list[tuple[str, Task]]:
        given = []
        while self._suspects and self._idle:
            name = min(self._idle, key=lambda name: self._idle[name].number)
            self._workers[name].alone = True
            task = self._suspects.pop(0)
            self._give(name, task)
            given.append((name, task))
        return given

    def _give(self, name: str, task: Task) -> None:
        worker = self._workers[name]
        worker.holds[task] = False
        worker.model = task.model
        worker.cost += task.cost
        self._held += 1
        self._sort(name)

    def _drop(self, name: str, task: Task) -> None:
        worker = self._workers[name]
        del worker.holds[task]
        worker.cost = worker.cost - task.cost if worker.holds else 0.0
        worker.alone = worker.alone and bool(worker.holds)
        self._held -= 1
        self._answered(worker, task)
        self._sort(name)

    def _answered(self, worker: _Worker, task: Task) -> None:
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

    def _worker(self, name: str) -> _Worker:
        if name not in self._workers:
            raise ArgumentError(
                f"there is no worker named {name!r}: it has not joined, or was lost"
            )
        return self._workers[name]

    def _holder(self, name: str, task: Task) -> _Worker:
        worker = self._worker(name)
        if task not in worker.holds:
            raise ArgumentError(f"the worker {name!r} does not hold {task}")
        return worker
