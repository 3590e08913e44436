"""Who is there, and who holds what."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.dispatching.tasks import Task


@dataclass(slots=True, eq=False)
class Worker:
    """A worker: what it holds in the order in which it will do it, and whether each has begun."""

    number: int
    name: str
    host: str
    holds: dict[Task, bool] = field(default_factory=dict)
    asked: set[Task] = field(default_factory=set)
    model: int | None = None
    alone: bool = False  # with a suspect
    quiet: bool = False  # with one beside which nothing is done on its host
    in_company: bool = False  # another of its host had something to do while it had
    cost: float = 0.0

    @property
    def place(self) -> tuple[int, float, int, str]:
        """Who comes first gets the next task: who holds few, and of little work."""
        return len(self.holds), self.cost, self.number, self.name

    @property
    def spare(self) -> list[Task]:
        """What could be asked back: the last that has not begun first; it keeps one for itself."""
        if len(self.holds) - len(self.asked) < 2:
            return []
        return [
            task
            for task, begun in reversed(self.holds.items())
            if not begun and task not in self.asked
        ]


class Workers:
    """The workers that have joined and were not lost, in that order; each holds `most` at most.

    `open` are those that can take more, `idle` those that hold nothing, `stocked` those that hold
    more than one task, `quiet` those beside which nothing is done; `hosts` counts them by host.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._of_name: dict[str, Worker] = {}
        self._joined = 0
        self.open: dict[str, Worker] = {}
        self.idle: dict[str, Worker] = {}
        self.stocked: dict[str, Worker] = {}
        self.quiet: dict[str, Worker] = {}
        self.hosts: Counter[str] = Counter()
        self.held = 0
        self.asked = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._of_name.values())

    def __getitem__(self, name: str) -> Worker:
        """ArgumentError if there is none."""
        if name not in self._of_name:
            raise ArgumentError(
                f"there is no worker named {name!r}: it has not joined, or was lost"
            )
        return self._of_name[name]

    def get(self, name: str) -> Worker | None:
        """The worker of this name, if there is one."""
        return self._of_name.get(name)

    def holder(self, name: str, task: Task) -> Worker:
        """The worker of this name. ArgumentError if it does not hold `task`."""
        worker = self[name]
        if task not in worker.holds:
            raise ArgumentError(f"the worker {name!r} does not hold {task}")
        return worker

    def join(self, name: str, host: str) -> None:
        """ArgumentError if there is one of this name."""
        if name in self._of_name:
            raise ArgumentError(f"a worker named {name!r} is there already")
        worker = self._of_name[name] = Worker(self._joined, name, host)
        self._joined += 1
        self.hosts[host] += 1
        self._sort(worker)

    def leave(self, worker: Worker) -> None:
        """It holds nothing any more, and is gone."""
        for each in (self._of_name, self.open, self.idle, self.stocked, self.quiet):
            each.pop(worker.name, None)
        self.hosts -= Counter([worker.host])  # forgets it with its last worker

    def give(self, worker: Worker, task: Task) -> None:
        """It holds a task more."""
        if not worker.holds:
            self._meet(worker)
        worker.holds[task] = False
        worker.model = task.model
        worker.cost += task.cost
        self.held += 1
        self._sort(worker)

    def give_alone(self, worker: Worker, task: Task, *, quiet: bool) -> None:
        """It gets nothing else until this is done; nor does, if `quiet`, another of its host."""
        worker.alone, worker.quiet = True, quiet
        self.give(worker, task)

    def drop(self, worker: Worker, task: Task) -> None:
        """It holds a task less."""
        del worker.holds[task]
        worker.cost = worker.cost - task.cost if worker.holds else 0.0
        if not worker.holds:
            worker.alone = worker.quiet = worker.in_company = False
        self.held -= 1
        self.answered(worker, task)
        self._sort(worker)

    def ask(self, worker: Worker, task: Task) -> None:
        """It is asked to give a task back."""
        worker.asked.add(task)
        self.asked += 1

    def answered(self, worker: Worker, task: Task) -> None:
        """It is no longer asked for it, if it was."""
        if task in worker.asked:
            worker.asked.remove(task)
            self.asked -= 1

    def _meet(self, worker: Worker) -> None:
        """A worker gets something to do; note who has something beside it."""
        for other in self:
            if other.holds and other.host == worker.host:
                other.in_company = worker.in_company = True

    def _sort(self, worker: Worker) -> None:
        for chosen, belongs in (
            (self.open, not worker.alone and len(worker.holds) < self.most),
            (self.idle, not worker.holds),
            (self.stocked, len(worker.holds) > 1),
            (self.quiet, worker.quiet),
        ):
            if belongs:
                chosen[worker.name] = worker
            else:
                chosen.pop(worker.name, None)
