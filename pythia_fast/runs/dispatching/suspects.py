"""Steps that may be what a worker died of: where each is tried next, and with whom beside it."""

from collections import Counter

from pythia_fast.runs.dispatching.blame import Blame
from pythia_fast.runs.dispatching.fitting import Fitting
from pythia_fast.runs.dispatching.holding import Worker, Workers
from pythia_fast.runs.dispatching.tasks import Task


class Suspects:
    """What a worker had begun when it died, or refused: each waits for one that holds nothing else.

    A suspect goes to a host where no worker died with it, or the fewest did, and waits for a worker
    of such a host, which is let run empty: else a bad machine, whose workers die at once and so
    are the first to be idle, would get every suspect and take innocent steps with it. One that died
    in company again, as of a machine whose memory another step had taken, waits until all workers
    of a host are idle, and nothing else is done there meanwhile.
    """

    def __init__(self, workers: Workers, blame: Blame, fitting: Fitting) -> None:
        self._workers, self._blame, self._fitting = workers, blame, fitting
        self._tasks: list[Task] = []

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def models(self) -> set[int]:
        """The models of which one waits."""
        return {task.model for task in self._tasks}

    def put(self, task: Task) -> None:
        """It waits; the most costly comes first."""
        self._tasks.append(task)
        self._tasks.sort(key=lambda task: -task.cost)

    def drop(self, model: int) -> list[Task]:
        """All of a model, which do not wait any longer."""
        dropped = [task for task in self._tasks if task.model == model]
        self._tasks = [task for task in self._tasks if task.model != model]
        return dropped

    def give(self) -> list[tuple[str, Task]]:
        """Give each to the worker that can do it now, if one can."""
        given = []
        for task in tuple(self._tasks):
            worker = self._taker(task)
            if worker is not None:
                self._tasks.remove(task)
                self._workers.give_alone(worker, task, quiet=self._blame.needs_quiet(task))
                given.append((worker.name, task))
        return given

    def can_be_given(self) -> bool:
        """Whether there is a worker that can do one of them now."""
        return any(map(self._taker, self._tasks))

    def kept_hosts(self) -> dict[str, Task | None]:
        """Hosts where one step alone is done, and those let run empty for another: for which."""
        kept: dict[str, Task | None] = {each.host: None for each in self._workers.quiet.values()}
        for task in self._tasks:
            if not self._blame.needs_quiet(task):
                continue
            hosts = self._next_hosts(task) - set(kept)
            busy: Counter[str] = Counter()
            for worker in self._workers:
                if worker.host in hosts:
                    busy[worker.host] += len(worker.holds)
            if busy:  # of equal ones that of the oldest worker
                kept[min(busy, key=busy.__getitem__)] = task
        return kept

    def drained(self) -> set[str]:
        """Those that are let run empty: for each suspect the first to be so that may get it.

        All of a host that is kept quiet.
        """
        if not (self._tasks or self._workers.quiet):
            return set()
        kept = self.kept_hosts()
        drained = {worker.name for worker in self._workers if worker.host in kept}
        workers = sorted(
            (worker for worker in self._workers if not worker.alone), key=lambda each: each.place
        )
        for task in self._tasks:
            if self._blame.needs_quiet(task):
                continue
            hosts = self._next_hosts(task)
            for worker in workers:
                fits = worker.host in hosts and self._fitting.fits(worker, task.model)
                if fits and worker.name not in drained:
                    drained.add(worker.name)
                    break
        return drained

    def _taker(self, task: Task) -> Worker | None:
        """The worker that can do it now: of the most trusted host, the oldest."""
        if not self._workers.idle:
            return None
        kept = self.kept_hosts()
        if self._blame.needs_quiet(task):
            hosts = {host for host, waiting in kept.items() if waiting == task}
            hosts -= {worker.host for worker in self._workers if worker.holds}
        else:
            hosts = self._next_hosts(task) - set(kept)
        fitting = (
            worker
            for worker in self._workers.idle.values()
            if worker.host in hosts and self._fitting.fits(worker, task.model)
        )
        deaths = {host: self._blame.deaths(host) for host in hosts}
        return min(fitting, key=lambda worker: (deaths[worker.host], worker.number), default=None)

    def _next_hosts(self, task: Task) -> set[str]:
        return self._blame.next_hosts(task, self._fitting.hosts_for(task.model, self._workers))
