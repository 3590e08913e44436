"""The driver of a sweep on a cluster: it hands out steps, and keeps what comes of them."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from pythia_fast.errors import RunMismatchError, SweepInterruptedError, WorkerError
from pythia_fast.runs.asked import Asked
from pythia_fast.runs.cluster.connecting import Cluster
from pythia_fast.runs.cluster.events import GaveBack, Joined, Lost, Told
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
    WaitsFor,
)
from pythia_fast.runs.cluster.one_model import OneModel
from pythia_fast.runs.dispatch import RETRIES, Dispatcher, Task
from pythia_fast.runs.folder import versions
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.todo import OnError, notes

LOOK_UP_S = 1.0
"""How often the driver looks up while nothing happens, so that an interrupt is heard."""


@dataclass(slots=True)
class _FarAway:
    """What a worker said last of the files that it waits for."""

    received_bytes: int = 0
    waits_for_room: bool = False


class RayEngine:
    """Computes the units of several models' sweeps that are not in their run folders yet.

    The driver alone decides: it surveys the steps, hands them out, counts what is finished, and
    keeps what has failed. The workers publish their parts themselves where they see the run
    folder, else the driver does.
    """

    def __init__(self, cluster: Cluster, asked: Sequence[Asked], progress: Progress) -> None:
        self._cluster, self._progress = cluster, progress
        self._models = [
            OneModel(
                *(place, each),
                progress.of(each.series.name) if len(asked) > 1 else progress,
                models=len(asked),
            )
            for place, each in enumerate(asked)
        ]
        self._dispatcher = Dispatcher(())
        self._tasks: dict[tuple[int, int], Task] = {}
        self._hosts: dict[str, str] = {}
        self._now: dict[str, tuple[int, int]] = {}
        self._shown_s = -LOOK_UP_S
        self._arriving: dict[str, _FarAway] = {}
        # A thread of its own for what is written here, so that no interrupt stops it half-way.
        self._writer = ThreadPoolExecutor(1, "pythia_fast-write")

    def run(self, on_error: OnError) -> None:
        """Have all computed. The errors of `sweep`; WorkerError where no worker can begin."""
        with ExitStack() as stack:
            stack.enter_context(self._writer)
            try:
                for model in self._models:
                    model.survey(on_error)
                for model in self._models:
                    model.give_twins(self._writer, on_error)
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
                tasks = model.tasks()
                self._tasks |= {(task.model, task.step): task for task in tasks}
                self._dispatcher.add(tasks)
            if self._dispatcher.over:
                return
            if not self._hand_out(on_error):
                continue  # what was left is there already: nothing will happen
            self._show()
            for event in self._cluster.events(LOOK_UP_S):
                match event:
                    case Joined(worker, hello):
                        self._join(worker, hello)
                    case Told(worker, messages):
                        for message in messages:
                            self._hear(worker, message, on_error)
                    case GaveBack(worker, place, step, given):
                        self._dispatcher.taken_back(worker, self._tasks[place, step], given=given)
                    case Lost(worker, reason, joined):
                        if joined:
                            self._lose(worker, reason, on_error)
                        self._cluster.add()

    def _show(self) -> None:
        """Say in the run folders who works on what, now and then."""
        now_s = time.monotonic()
        if now_s - self._shown_s < LOOK_UP_S:
            return
        self._shown_s = now_s
        for model in self._models:
            model.presence.count(done=model.todo.finished, of=len(model.asked.plan.steps))
            for worker in self._dispatcher.workers:
                held = self._dispatcher.held(worker)
                steps = [task.step for task in held if task.model == model.place]
                place, now = self._now.get(worker, (-1, -1))
                if place == model.place and now in steps:  # what it computes is named first
                    steps = [now, *(step for step in steps if step != now)]
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
        dtypes = tuple(model.asked.plan.dtype for model in self._models)
        if hello.precisions != dtypes:
            self._progress.say(
                f"{worker} on {hello.host} is left out: it would compute in "
                f"{_words(hello.precisions)}, and this run is in {_words(dtypes)}. Say which "
                "(dtype=, --dtype) to have all machines take part"
            )
            self._cluster.dismiss(worker)
            if not (self._dispatcher.workers or self._cluster.coming):
                raise WorkerError(
                    f"no worker is left that computes in {_words(dtypes)}, as this run does; say "
                    "which dtype all machines are to compute in (dtype=, --dtype)"
                )
            return
        self._hosts[worker] = hello.host
        self._dispatcher.join(worker)

    def _hand_out(self, on_error: OnError) -> bool:
        """Hand out all that can be now; whether anything is left to be done by workers.

        What needs no worker after all makes room for more.
        """
        while assignments := self._dispatcher.assignments():
            for worker, task in assignments:
                self._give(worker, task, on_error)
        wanted = self._dispatcher.wanted_back()
        if wanted is not None:
            worker, task = wanted
            self._cluster.ask_back(worker, task.model, task.step)
        return not self._dispatcher.over

    def _give(self, worker: str, task: Task, on_error: OnError) -> None:
        """Order a step, unless somebody else has finished it meanwhile."""
        model = self._models[task.model]
        try:
            order = model.order(task.step)
            sha256 = model.complete(order)
        except RunMismatchError:
            raise
        except Exception as error:
            self._dispatcher.finished(worker, task)
            model.fail(task.step, error, on_error)
            return
        if sha256 is None:
            shared = model.shared(self._cluster)
            self._cluster.order(worker, order, shared, model.name(task.step))
        else:
            self._finish(worker, model, task.step, sha256, on_error)

    def _hear(self, worker: str, message: Message, on_error: OnError) -> None:
        match message:
            case Fatal(error):
                raise error
            case Loading(place, step):
                self._dispatcher.begun(worker, self._tasks[place, step])
            case Advanced(place, step, tokens, skipped):
                view = self._models[place].progress
                (view.skip if skipped else view.advance)(tokens, step)
            case LoadedIn(times):
                self._progress.loaded(times)
            case Computed(elapsed_s):
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
                self._dispatcher.finished(worker, self._tasks[place, step])
                self._models[place].fail(step, error, on_error)
            case Began(place, step):
                self._now[worker] = (place, step)

    def _finish(
        self, worker: str, model: OneModel, step: int, sha256: str, on_error: OnError
    ) -> None:
        self._dispatcher.finished(worker, self._tasks[model.place, step])
        model.asked.folder.forget_failure(step)
        model.todo.finish(step, sha256)
        model.give_twins(self._writer, on_error)

    def _lose(self, worker: str, reason: str, on_error: OnError) -> None:
        """What a worker had in hand is done by others; another worker is asked for."""
        host = self._hosts[worker]
        self._progress.say(
            f"{worker} on {host} is lost, and what it had in hand is done again: {reason}"
        )
        for task in self._dispatcher.held(worker):
            self._models[task.model].progress.again(task.step)
        for model in self._models:
            model.presence.gone(f"{worker} on {self._hosts[worker]}")
        for task in self._dispatcher.lost(worker):
            error = WorkerError(
                f"{RETRIES + 1} workers have died while they had nothing but this step, the last "
                f"because {reason}"
            )
            self._models[task.model].fail(task.step, error, on_error)

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
