"""The driver of a sweep on a cluster: it hands out steps, and keeps what comes of them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_fast.errors import RunMismatchError, SweepInterruptedError, WorkerError
from pythia_fast.publish import partial_of
from pythia_fast.runs.asked import Asked
from pythia_fast.runs.cluster.connecting import Cluster, GaveBack, Joined, Lost, Told
from pythia_fast.runs.cluster.messages import (
    Advanced,
    Began,
    Computed,
    Failed,
    Fatal,
    Finished,
    Hello,
    LoadedIn,
    Loading,
    Message,
    Order,
    Part,
    WaitsFor,
    Work,
)
from pythia_fast.runs.dispatch import Dispatcher, Task
from pythia_fast.runs.folder import versions
from pythia_fast.runs.job import SweepJob
from pythia_fast.runs.local import check_room
from pythia_fast.runs.plan import Plan, Rows
from pythia_fast.runs.presence import Presence
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.todo import OnError, Todo, notes
from pythia_fast.runs.twins import Twins
from pythia_fast.runs.work import Data, sweep_flops

LOOK_UP_S = 1.0
"""How often the driver looks up while nothing happens, so that an interrupt is heard."""
SAMPLE_ROWS = 64
"""So many rows of the data are compared on each machine before the first step."""


@dataclass(slots=True)
class _FarAway:
    """What a worker said last of the files that it waits for."""

    received_bytes: int = 0
    waits_for_room: bool = False


class _Model:
    """What the driver has of one model; `place` is its place among those asked for."""

    def __init__(self, place: int, asked: Asked, progress: Progress) -> None:
        self.place, self.asked, self.progress = place, asked, progress
        series, plan, folder = asked.series, asked.plan, asked.folder
        self.job = SweepJob(plan, folder, progress)
        self.todo = Todo(series, self.job, folder, progress, asked.budget_bytes)
        self.twins = Twins(series, plan, folder, self.job, self.todo, progress)
        self.probe: Path | None = None
        self._shared: Any = None
        self.presence = Presence(folder, "ray", say=progress.say)

    def name(self, step: int) -> str:
        """For the dashboard, and in messages."""
        return f"{self.asked.plan.spec.name} step {step}"

    def tasks(self) -> list[Task]:
        """The steps in the queue, which is empty then, with the operations that each takes."""
        plan, data = self.asked.plan, Data(self.asked.plan.dataset)
        tasks = []
        while self.todo.queue:
            step = self.todo.queue.popleft()
            flops = sweep_flops(plan.spec, [step], plan.metrics, data, plan.sequences)
            tasks.append(Task(self.place, step, flops))
        return tasks

    def order(self, step: int) -> Order:
        """What a worker needs to know of a step. FormatError if a part of it is damaged."""
        folder = self.asked.folder
        done = {
            unit.path: str(folder.origin(unit)["weights_sha256"])
            for unit in self.asked.plan.units(step)
            if folder.done(unit)
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
            self.probe = partial_of(asked.folder.path / "probe")
            self.probe.touch()
            work = Work(
                model=self.place,
                series=asked.series,
                plan=asked.plan,
                batch_tokens=asked.batch_tokens,
                folder=asked.folder.path,
                run_hash=asked.folder.hash,
                probe=self.probe,
                sample=_sample(asked.plan),
            )
            self._shared = cluster.share(work)
        return self._shared


class RayEngine:
    """Computes the units of several models' sweeps that are not in their run folders yet.

    The driver alone decides: it surveys the steps, hands them out, counts what is finished, and
    keeps what has failed. The workers publish their parts themselves where they see the run
    folder, else the driver does.
    """

    def __init__(self, cluster: Cluster, asked: Sequence[Asked], progress: Progress) -> None:
        self._cluster, self._progress = cluster, progress
        self._models = [
            _Model(place, each, progress.of(each.series.name) if len(asked) > 1 else progress)
            for place, each in enumerate(asked)
        ]
        self._dispatcher = Dispatcher(())
        self._hosts: dict[str, str] = {}
        self._arriving: dict[str, _FarAway] = {}
        self._writer: ThreadPoolExecutor | None = None

    def run(self, on_error: OnError) -> None:
        """Have all computed. The errors of `sweep`; WorkerError where no worker can begin."""
        with ExitStack() as stack:
            # A thread of its own for what is written here, so that no interrupt stops it half-way.
            self._writer = stack.enter_context(ThreadPoolExecutor(1, "pythia_fast-write"))
            try:
                for model in self._models:
                    model.todo.survey(on_error)
                    if model.todo.left:
                        check_room(model.asked, model.todo)
                    self._take_twins(model, on_error)
                    if model.todo.left:
                        stack.enter_context(model.presence)
                self._work(on_error)
            except KeyboardInterrupt as interrupt:
                raise self._interrupted(interrupt) from None
            finally:
                for model in self._models:
                    if model.probe is not None:
                        model.probe.unlink(missing_ok=True)

    def _work(self, on_error: OnError) -> None:
        """Hand out, listen, and hand out again, until nothing is left."""
        while True:
            for model in self._models:
                self._dispatcher.add(model.tasks())
            if self._dispatcher.over:
                return
            self._hand_out(on_error)
            self._show()
            for event in self._cluster.events(LOOK_UP_S):
                match event:
                    case Joined(worker, hello):
                        self._join(worker, hello)
                    case Told(worker, messages):
                        for message in messages:
                            self._hear(worker, message, on_error)
                    case GaveBack(worker, place, step, given):
                        self._dispatcher.taken_back(worker, self._task(place, step), given=given)
                    case Lost(worker, reason, joined):
                        if joined:
                            self._lose(worker, reason, on_error)
                        self._cluster.add()

    def _show(self) -> None:
        """Say in the run folders who works on what."""
        for model in self._models:
            model.presence.count(done=model.todo.finished, of=len(model.asked.plan.steps))
            for worker in self._dispatcher.workers:
                held = self._dispatcher.held(worker)
                steps = [task.step for task in held if task.model == model.place]
                if steps:
                    model.presence.at(f"{worker} on {self._hosts[worker]}", steps)
                else:
                    model.presence.gone(f"{worker} on {self._hosts[worker]}")

    def _join(self, worker: str, hello: Hello) -> None:
        here = versions()["pythia-fast"]
        if hello.version != here:
            self._progress.say(
                f"{worker} on {hello.host} has pythia-fast {hello.version}, and here is {here}"
            )
        self._hosts[worker] = hello.host
        self._dispatcher.join(worker)

    def _hand_out(self, on_error: OnError) -> None:
        for worker, task in self._dispatcher.assignments():
            model = self._models[task.model]
            try:
                order = model.order(task.step)
                sha256 = model.complete(order)
            except RunMismatchError:
                raise
            except Exception as error:
                self._dispatcher.finished(worker, task)
                model.todo.fail(task.step, error, on_error)
                continue
            if sha256 is None:
                shared = model.shared(self._cluster)
                self._cluster.order(worker, order, shared, model.name(task.step))
            else:
                self._finish(worker, model, task.step, sha256, on_error)
        wanted = self._dispatcher.wanted_back()
        if wanted is not None:
            worker, task = wanted
            self._cluster.ask_back(worker, task.model, task.step)

    def _hear(self, worker: str, message: Message, on_error: OnError) -> None:
        match message:
            case Fatal(error):
                raise error
            case Loading(place, step):
                self._dispatcher.begun(worker, self._task(place, step))
            case Advanced(place, step, tokens, skipped):
                view = self._models[place].progress
                (view.skip if skipped else view.advance)(tokens, step)
            case LoadedIn(_, _, times):
                self._progress.loaded(times)
            case Computed(_, _, elapsed_s):
                self._progress.computed(elapsed_s)
            case WaitsFor(place, step, received_bytes, waits_for_room):
                far = self._arriving.setdefault(worker, _FarAway())
                far.received_bytes, far.waits_for_room = received_bytes, waits_for_room
                self._models[place].progress.waiting(step, far)
            case Part(place, _, path, data):
                self._models[place].asked.folder.keep(path, data)
            case Finished(place, step, sha256):
                self._finish(worker, self._models[place], step, sha256, on_error)
            case Failed(place, step, error):
                self._dispatcher.finished(worker, self._task(place, step))
                self._models[place].todo.fail(step, error, on_error)
            case Began():
                pass

    def _finish(
        self, worker: str, model: _Model, step: int, sha256: str, on_error: OnError
    ) -> None:
        self._dispatcher.finished(worker, self._task(model.place, step))
        model.asked.folder.forget_failure(step)
        model.todo.finish(step, sha256)
        self._take_twins(model, on_error)

    def _lose(self, worker: str, reason: str, on_error: OnError) -> None:
        """What a worker had in hand is done by others; another worker is asked for."""
        self._progress.say(f"{worker} is lost, what it had in hand is done again: {reason}")
        for task in self._dispatcher.held(worker):
            self._models[task.model].progress.again(task.step)
        for model in self._models:
            model.presence.gone(f"{worker} on {self._hosts[worker]}")
        for task in self._dispatcher.lost(worker):
            error = WorkerError(f"every worker that computed it alone has died: {reason}")
            self._models[task.model].todo.fail(task.step, error, on_error)

    def _take_twins(self, model: _Model, on_error: OnError) -> None:
        """Give the finished steps' results to those with the same weights, which are not loaded."""
        writer = self._writer
        assert writer is not None
        model.todo.give_twins(
            lambda step, first: writer.submit(model.twins.publish, step, first).result(), on_error
        )

    def _task(self, place: int, step: int) -> Task:
        return next(
            task
            for worker in self._dispatcher.workers
            for task in self._dispatcher.held(worker)
            if (task.model, task.step) == (place, step)
        )

    def _interrupted(self, interrupt: KeyboardInterrupt) -> SweepInterruptedError:
        meanwhile = "".join(f". Meanwhile {note}" for note in notes(interrupt))
        finished = sum(model.todo.finished for model in self._models)
        steps = sum(len(model.asked.plan.steps) for model in self._models)
        folders = ", ".join(str(model.asked.folder.path) for model in self._models)
        return SweepInterruptedError(
            f"interrupted: {finished} of {steps} steps are finished and kept in {folders}; the "
            f"same call goes on from there{meanwhile}"
        )


def _sample(plan: Plan) -> tuple[Rows, str] | None:
    """Some rows of the data and their fingerprint; None of the Hub's, which is at a commit."""
    if plan.dataset.is_remote:
        return None
    rows = plan.rows(max(plan.steps) if plan.sequences == "seen" else min(plan.steps))
    rows = rows[:SAMPLE_ROWS]
    return rows, plan.dataset.fingerprint(rows)
