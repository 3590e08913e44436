"""One model's sweep, as the driver of a cluster sees it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pythia_fast.errors import OnError
from pythia_fast.publish import partial_of, writing
from pythia_fast.runs.asked import Asked, named
from pythia_fast.runs.cluster.connecting import Cluster
from pythia_fast.runs.cluster.messages import Order, Work
from pythia_fast.runs.dispatching.dispatch import Task
from pythia_fast.runs.folder.presence import Presence
from pythia_fast.runs.job import SweepJob
from pythia_fast.runs.local import check_room
from pythia_fast.runs.plan import Plan, Rows
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps.todo import Todo
from pythia_fast.runs.steps.twins import Twins
from pythia_fast.runs.work import Data, sweep_flops

SAMPLE_ROWS = 64
"""So many rows of the data are compared on each machine before the first step."""


class OneModel:
    """What the driver has of one model; `place` is its place among those asked for.

    `models` is how many there are: of several, errors say which one they are about.
    """

    def __init__(
        self, place: int, asked: Asked, progress: Progress, on_error: OnError, models: int
    ) -> None:
        self._models = models
        self.place, self.asked, self.progress = place, asked, progress
        series, plan, folder = asked.series, asked.plan, asked.folder
        self.job = SweepJob(plan, folder, progress)
        self.todo = Todo(series, self.job, folder, progress, asked.budget_bytes, on_error)
        self.twins = Twins(series, plan, folder, self.job, self.todo, progress)
        self.probe: Path | None = None
        self._shared: Any = None
        self._flops: int | None = None
        self.presence = Presence(folder, "ray", say=progress.say)

    def survey(self) -> None:
        """Find out what is left, and whether it can be had, and kept. The errors of `Todo`."""
        with named(self.asked.series.name, self._models):
            self.todo.survey()
        if self.todo.left:
            check_room(self.asked, self.todo)
        else:
            self.progress.say(f"nothing left to compute: all is in {self.asked.folder.path}")

    def fail(self, step: int, error: Exception) -> None:
        """A step has failed. SweepError unless failures are skipped."""
        with named(self.asked.series.name, self._models):
            self.todo.fail(step, error)

    def give_twins(self, writer: ThreadPoolExecutor) -> None:
        """Give the finished steps' results to those with the same weights, which are not loaded."""
        with named(self.asked.series.name, self._models):
            self.todo.give_twins(
                # In the writer's thread, so that no interrupt stops it half-way.
                lambda step, first: writer.submit(self.twins.publish, step, first).result()
            )

    def name(self, step: int) -> str:
        """For the dashboard, and in messages."""
        return f"{self.asked.plan.spec.name} step {step}"

    def show(self, holds: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """Say in the run folder which workers hold which steps, given as (model, step)."""
        self.presence.count(done=self.todo.finished, of=len(self.asked.plan.steps))
        for worker, held in holds.items():
            steps = [step for place, step in held if place == self.place]
            if steps:
                self.presence.at(worker, steps)
            else:
                self.presence.gone(worker)

    def tasks(self) -> list[Task]:
        """The steps in the queue, which is empty then, with the operations that each takes."""
        tasks = []
        if self.todo.queue:
            self.todo.begin_at(self.presence.beginning())
        while self.todo.queue:
            step = self.todo.queue.popleft()
            tasks.append(Task(self.place, step, self._cost(step)))
        return tasks

    def _cost(self, step: int) -> int:
        """The operations of a step, which are the same for each that looks at the same rows."""
        plan = self.asked.plan
        if self._flops is None or isinstance(plan.sequences, str):
            data = Data(plan.dataset)
            self._flops = sweep_flops(plan.spec, [step], plan.metrics, data, plan.sequences)
        return self._flops

    def order(self, step: int) -> Order:
        """What a worker needs to know of a step."""
        done = {
            unit.path: str(origin["weights_sha256"])
            for unit in self.asked.plan.units(step)
            if (origin := self.asked.folder.intact(unit)) is not None
        }
        return Order(self.place, step, self.todo.remarks(step), done)

    def complete(self, order: Order) -> str | None:
        """The digest of the weights of a step that somebody else has finished meanwhile."""
        units = list(self.asked.plan.units(order.step))
        if len(order.done) < len(units):
            return None
        sha256 = next(iter(order.done.values()))
        for unit in units:
            self.job.has(unit, sha256)
        return sha256

    def shared(self, cluster: Cluster) -> Any:
        """The work as `Cluster.order` takes it."""
        if self._shared is None:
            asked = self.asked
            folder = asked.folder.path.absolute()
            self.probe = partial_of(folder / "probe")
            with writing(self.probe):
                self.probe.touch()
            work = Work(
                model=self.place,
                series=asked.series,
                plan=asked.plan,
                batch_tokens=asked.batch_tokens,
                folder=folder,
                run_hash=asked.folder.hash,
                probe=self.probe,
                sample=_sample(asked.plan),
            )
            self._shared = cluster.share(work)
        return self._shared


def _sample(plan: Plan) -> tuple[Rows, str] | None:
    """Some rows of the data and their fingerprint; None of the Hub's, which is at a commit."""
    if plan.dataset.is_remote:
        return None
    rows = plan.rows(max(plan.steps) if plan.sequences == "seen" else min(plan.steps))
    rows = rows[:SAMPLE_ROWS]
    return rows, plan.dataset.fingerprint(rows)
