"""The driver of a sweep on a cluster: it hands out steps, and keeps what comes of them."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from pythia_fast.errors import (
    OnError,
    PythiaFastError,
    RunMismatchError,
    SweepInterruptedError,
    WorkerError,
    notes,
    own_words,
)
from pythia_fast.progress import warn
from pythia_fast.runs.asked import Asked
from pythia_fast.runs.cluster.connecting import PATIENCE_S, Cluster
from pythia_fast.runs.cluster.events import Event, GaveBack, Joined, Lost, Silent, Told
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
    Part,
    Unable,
    Unfit,
    WaitsFor,
)
from pythia_fast.runs.cluster.one_model import OneModel
from pythia_fast.runs.cluster.sent_error import SentError
from pythia_fast.runs.dispatching.dispatch import RETRIES, SHUN_AFTER, Dispatcher, Task
from pythia_fast.runs.progress import Progress

LOOK_UP_S = 1.0
"""How often the driver looks up while nothing happens, so that an interrupt is heard."""


@dataclass(slots=True)
class _FarAway:
    """What a worker said last of the files that it waits for."""

    received_bytes: int = 0
    waits_for_room: bool = False


@dataclass(slots=True)
class _Worker:
    """A worker that has joined: where it is, and what it said last."""

    name: str
    host: str
    now: tuple[int, int] | None = None
    far: _FarAway = field(default_factory=_FarAway)

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"


class RayEngine:
    """Computes the units of several models' sweeps that are not in their run folders yet.

    The driver alone decides: it surveys the steps, hands them out, counts what is finished, and
    keeps what has failed. The workers publish their parts themselves where they see the run
    folder, else the driver does.
    """

    def __init__(
        self, cluster: Cluster, asked: Sequence[Asked], progress: Progress, on_error: OnError
    ) -> None:
        self._cluster, self._progress = cluster, progress
        self._models = [
            OneModel(
                *(place, each),
                progress.of(each.series.name) if len(asked) > 1 else progress,
                on_error,
                models=len(asked),
            )
            for place, each in enumerate(asked)
        ]
        self._dispatcher = Dispatcher(())
        self._tasks: dict[tuple[int, int], Task] = {}
        self._workers: dict[str, _Worker] = {}
        self._shown_s, self._alone_s = -LOOK_UP_S, time.monotonic()
        self._unkept: dict[tuple[int, int], PythiaFastError] = {}
        self._unfit: dict[int, Exception] = {}  # of each model why a worker could not begin with it
        # A thread of its own for what is written here, so that no interrupt stops it half-way.
        self._writer = ThreadPoolExecutor(1, "pythia_fast-write")

    def run(self) -> None:
        """Have all computed. The errors of `sweep`; WorkerError where no worker can begin."""
        with ExitStack() as stack:
            stack.enter_context(self._writer)
            try:
                for model in self._models:
                    stack.enter_context(model.presence)
                for model in self._models:
                    model.survey()
                for model in self._models:
                    model.give_twins(self._writer)
                self._work()
            except KeyboardInterrupt as interrupt:
                raise self._interrupted(interrupt) from None
            finally:
                for model in self._models:
                    if model.probe is not None:
                        model.probe.unlink(missing_ok=True)

    def _work(self) -> None:
        """Hand out, listen, and hand out again, until nothing is left."""
        while True:
            for model in self._models:
                tasks = model.tasks()
                self._tasks |= {(task.model, task.step): task for task in tasks}
                self._dispatcher.add(tasks)
            if self._dispatcher.over:
                return
            if self._give_up() or not self._hand_out():
                continue  # what was left is there already: nothing will happen
            self._show()
            self._wait_for_workers()
            for event in self._cluster.events(LOOK_UP_S):
                self._happened(event)

    def _happened(self, event: Event) -> None:
        """What is said of a worker that was lost a moment before, by its own words, is over."""
        worker = self._workers.get(event.worker)
        match event:
            case Joined(name, hello):
                self._join(name, hello)
            case Lost(_, reason, joined):
                if worker is not None:
                    self._lose(worker, reason)
                if worker is not None or not joined:
                    self._replace(reason)
            case _ if worker is None:
                return
            case Told(_, messages):
                for message in messages:
                    if worker.name in self._workers:
                        self._hear(worker, message)
            case GaveBack(name, place, step, given):
                task = self._tasks[place, step]
                if not given or task in self._dispatcher.held(name):
                    self._dispatcher.taken_back(name, task, given=given)
            case Silent(_, silent_s):
                warn(f"{worker} has been silent for {silent_s:.0f} s")

    def _give_up(self) -> bool:
        """Fail the steps of models that no worker can hold, nor any that may come; if there are."""
        given_up = False
        for place, error in self._unfit.items():
            if self._dispatcher.fits(place):
                continue
            elsewhere = self._cluster.nodes - self._dispatcher.hosts_without(place)
            if self._cluster.coming and elsewhere:
                continue
            for task in self._dispatcher.give_up(place):
                self._models[place].fail(task.step, error)
                given_up = True
        return given_up

    def _replace(self, reason: str) -> None:
        """Ask for a worker in the place of one that is gone. WorkerError if nobody is left."""
        self._cluster.replace()
        if not self._cluster.alive:
            raise WorkerError(f"no worker is left, and no more are asked for: {reason}")

    def _wait_for_workers(self) -> None:
        """Say now and then that there is nobody to do anything, or to do what is left."""
        now_s = time.monotonic()
        if any(self._dispatcher.held(worker) for worker in self._workers):
            self._alone_s = now_s
        elif now_s - self._alone_s >= PATIENCE_S:
            self._alone_s = now_s
            self._cluster.tell_waiting()

    def _show(self) -> None:
        """Say in the run folders who works on what, now and then."""
        now_s = time.monotonic()
        if now_s - self._shown_s < LOOK_UP_S:
            return
        self._shown_s = now_s
        holds = {str(worker): self._in_work_order(worker) for worker in self._workers.values()}
        for model in self._models:
            model.show(holds)

    def _in_work_order(self, worker: _Worker) -> list[tuple[int, int]]:
        """The models and steps that a worker holds, the one that it computes first."""
        held = [(task.model, task.step) for task in self._dispatcher.held(worker.name)]
        now = worker.now
        return [now, *(each for each in held if each != now)] if now in held else held

    def _join(self, worker: str, hello: Hello) -> None:
        dtypes = tuple(model.asked.plan.dtype for model in self._models)
        if hello.precisions != dtypes:
            warn(
                f"{worker} on {hello.host} is left out: it would compute in "
                f"{_words(hello.precisions)}, and this run is in {_words(dtypes)}. Say which "
                "(dtype=, --dtype) to have all machines take part"
            )
            self._cluster.dismiss(worker)
            if not (self._workers or self._cluster.coming):
                raise WorkerError(
                    f"no worker is left that computes in {_words(dtypes)}, as this run does; say "
                    "which dtype all machines are to compute in (dtype=, --dtype)"
                )
            return
        if self._dispatcher.shuns(hello.node):
            warn(
                f"{worker} on {hello.host} is left out: {SHUN_AFTER} workers have died there, one "
                "after the other, and none has finished a step in between"
            )
            self._cluster.dismiss(worker)
            return
        self._workers[worker] = _Worker(worker, hello.host)
        self._dispatcher.join(worker, hello.node)

    def _hand_out(self) -> bool:
        """Hand out all that can be now; whether anything is left to be done by workers.

        What needs no worker after all makes room for more.
        """
        while assignments := self._dispatcher.assignments():
            for worker, task in assignments:
                self._give(worker, task)
        wanted = self._dispatcher.wanted_back()
        if wanted is not None:
            worker, task = wanted
            self._cluster.ask_back(worker, task.model, task.step)
        return not self._dispatcher.over

    def _give(self, worker: str, task: Task) -> None:
        """Order a step, unless somebody else has finished it meanwhile."""
        model = self._models[task.model]
        self._unkept.pop((task.model, task.step), None)  # of a worker that had it before
        try:
            order = model.order(task.step)
            sha256 = model.complete(order)
        except RunMismatchError:
            raise
        except Exception as error:
            self._dispatcher.finished(worker, task)
            model.fail(task.step, error)
            return
        if sha256 is None:
            shared = model.shared(self._cluster)
            self._cluster.order(worker, order, shared, model.name(task.step))
        else:
            self._finish(worker, model, task.step, sha256)

    def _hear(self, worker: _Worker, message: Message) -> None:
        match message:
            case Fatal(error):
                raise error.opened()
            case Unable(error):
                self._cluster.dismiss(worker.name)
                self._lose(worker, error.words)
                self._replace(error.words)
            case Unfit(place, error):
                self._cannot(worker, self._models[place], error)
            case Loading(place, step):
                self._dispatcher.begun(worker.name, self._tasks[place, step])
            case Advanced(place, step, tokens, skipped):
                view = self._models[place].progress
                (view.skip if skipped else view.advance)(tokens, step)
            case LoadedIn(times):
                self._progress.loaded(times)
            case Computed(elapsed_s):
                self._progress.computed(elapsed_s)
            case WaitsFor(place, step, received_bytes, waits_for_room):
                worker.far.received_bytes = received_bytes
                worker.far.waits_for_room = waits_for_room
                self._models[place].progress.waiting(step, worker.far)
            case Part(place, step, path, data):
                self._keep(place, step, path, data)
            case Finished(place, step, sha256):
                self._finish(worker.name, self._models[place], step, sha256)
            case Failed(place, step, error):
                self._fail(worker, self._models[place], step, error.opened())
            case Began(place, step):
                worker.now = (place, step)

    def _cannot(self, worker: _Worker, model: OneModel, sent: SentError) -> None:
        """A worker cannot begin with a model; what it was given of it is done by others."""
        for task in self._dispatcher.held(worker.name):
            if task.model == model.place:
                model.progress.again(task.step)
        self._dispatcher.unfit(worker.name, model.place)
        error = sent.opened()
        error.add_note(f"on {worker.host}")
        self._unfit[model.place] = error
        warn(f"{worker} cannot begin with {model.asked.plan.spec.name}: {sent.words}")

    def _keep(self, place: int, step: int, path: str, data: bytes) -> None:
        """Publish what a worker has sent; where that fails the step does, once it is finished."""
        keep = self._models[place].asked.folder.keep
        try:
            self._writer.submit(keep, path, data).result()
        except PythiaFastError as error:
            self._unkept[place, step] = error

    def _fail(self, worker: _Worker, model: OneModel, step: int, error: Exception) -> None:
        """A step has failed; if that may be the machine's fault, another one tries it."""
        task = self._tasks[model.place, step]
        several = len({each.host for each in self._workers.values()}) > 1
        if isinstance(error, OSError) and self._dispatcher.refused(worker.name, task):
            model.progress.again(step)
            where = f"on {worker.host}, and is tried elsewhere"
            model.progress.say(f"step {step} failed {where}: {own_words(error)}")
            return
        if not isinstance(error, OSError):
            self._dispatcher.finished(worker.name, task)
        if several:
            error.add_note(f"on {worker.host}")
        model.fail(step, error)

    def _finish(self, worker: str, model: OneModel, step: int, sha256: str) -> None:
        self._dispatcher.finished(worker, self._tasks[model.place, step])
        unkept = self._unkept.pop((model.place, step), None)
        if unkept is not None:  # no fault of the worker's machine: no other one would do better
            model.fail(step, unkept)
            return
        model.asked.folder.forget_failure(step)
        model.todo.finish(step, sha256)
        model.give_twins(self._writer)

    def _lose(self, worker: _Worker, reason: str) -> None:
        """What a worker had in hand is done by others; another worker is asked for."""
        del self._workers[worker.name]
        warn(f"{worker} is lost, and what it had in hand is done again: {reason}")
        for task in self._dispatcher.held(worker.name):
            self._models[task.model].progress.again(task.step)
            self._unkept.pop((task.model, task.step), None)
        for model in self._models:
            model.presence.gone(str(worker))
        for task in self._dispatcher.lost(worker.name):
            error = WorkerError(
                f"more than {RETRIES} workers have died while they had nothing but this step, the "
                f"last because {reason}"
            )
            self._models[task.model].fail(task.step, error)

    def _interrupted(self, interrupt: KeyboardInterrupt) -> SweepInterruptedError:
        meanwhile = "".join(f". Meanwhile {note}" for note in notes(interrupt))
        finished = sum(model.todo.finished for model in self._models)
        steps = sum(len(model.asked.plan.steps) for model in self._models)
        folders = ", ".join(str(model.asked.folder.path) for model in self._models)
        return SweepInterruptedError(
            f"interrupted: {finished} of {steps} steps are finished and kept in {folders}; the "
            f"same call goes on from there{meanwhile}"
        )


def _words(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))
