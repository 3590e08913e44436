"""The local engine: one process, one resident model, one step after the other."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from types import TracebackType

import torch

from pythia_fast.errors import OnError, SweepInterruptedError, notes
from pythia_fast.model import Precision
from pythia_fast.quantities import counted
from pythia_fast.runs.asked import Asked
from pythia_fast.runs.folder.presence import Presence
from pythia_fast.runs.job import SweepJob
from pythia_fast.runs.pipeline import Pipeline
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps.share import Dealt, Share
from pythia_fast.runs.steps.todo import Todo
from pythia_fast.runs.steps.twins import Twins

BYTES_PER_ROW = 128
"""What a row of results takes, lists aside, for the check of free space before the start."""


class LocalEngine:
    """Computes the units of a sweep that are not in the run folder yet, in this process.

    With a `share` those of its steps alone. From when it is entered until all is done the run
    folder says who works on it.
    """

    def __init__(
        self, asked: Asked, progress: Progress, on_error: OnError, share: Share | None = None
    ) -> None:
        self._asked, self._progress = asked, progress
        series, plan, folder = asked.series, asked.plan, asked.folder
        self._job = SweepJob(plan, folder, progress)
        self._todo = Todo(
            *(series, self._job, folder, progress), asked.budget_bytes, on_error, share
        )
        self._twins = Twins(series, plan, folder, self._job, self._todo, progress)
        self._presence = Presence(
            *(folder, "local"), share=None if share is None else str(share), say=progress.say
        )

    def __enter__(self) -> "LocalEngine":
        self._presence.count(done=0, of=len(self._todo.steps))
        self._presence.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._presence.leave()

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps that are this process's, which is known after `survey`."""
        return self._todo.steps

    def survey(self, dealt: Dealt) -> Dealt:
        """Find out what is left, and whether it can be had; once, before `run`.

        What of the call is dealt out among its shares before, and with these steps.
        """
        with self._interruptible():
            dealt = self._todo.survey(dealt=dealt)
            self._presence.count(done=self._todo.finished, of=len(self._todo.steps))
            if self._todo.left:
                check_room(self._asked, self._todo)
            else:
                self._presence.leave()
            if self._todo.steps and not self._todo.left:
                path = self._asked.folder.path
                self._progress.say(f"nothing left to compute: all is in {path}")
        return dealt

    def run(self, device: torch.device, precision: Precision) -> None:
        """Compute, publish and go on, until all is done, a step fails or the user interrupts."""
        if not self._todo.left:
            return
        self._todo.changed = partial(self._presence.follow, str(device), self._todo)
        self._todo.changed()
        with (
            self._interruptible(),
            ThreadPoolExecutor(1, "pythia_fast-write") as writer,
        ):
            self._todo.look_again()  # after other models, which may have taken days
            self._todo.begin_at(self._presence.beginning())
            self._take_twins(writer)
            if self._todo.queue:
                self._compute(device, precision, writer)
        self._presence.leave()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C becomes a SweepInterruptedError that says what is kept."""
        todo, folder = self._todo, self._asked.folder
        try:
            yield
        except KeyboardInterrupt as interrupt:
            meanwhile = "".join(f". Meanwhile {note}" for note in notes(interrupt))
            raise SweepInterruptedError(
                f"interrupted: {todo.finished} of {counted(len(todo.steps), 'step')} are finished "
                f"and kept in {folder.path}; the same call goes on from there{meanwhile}"
            ) from None

    def _compute(
        self, device: torch.device, precision: Precision, writer: ThreadPoolExecutor
    ) -> None:
        """Go through the queue, which grows where a step fails that others have the weights of."""
        asked = self._asked
        pipeline = Pipeline(
            *(asked.series, asked.plan, asked.folder, self._job),
            *(self._todo, self._progress, writer),
            steps=len(self._todo.queue),
            device=device,
            precision=precision,
            batch_tokens=asked.batch_tokens_in(precision),
        )
        with closing(pipeline):
            while self._todo.queue:
                pipeline.run(partial(self._take_twins, writer))

    def _take_twins(self, writer: ThreadPoolExecutor) -> None:
        """Give the finished steps' results to those with the same weights, which are not loaded."""
        self._todo.give_twins(
            # In the writer's thread, so that no interrupt stops it half-way.
            lambda step, first: writer.submit(self._twins.publish, step, first).result()
        )


def check_room(asked: Asked, todo: Todo) -> None:
    """WriteError if the results of what is left could not be written, or not fit on their disk."""
    asked.folder.check_writable()
    plan = asked.plan
    rows = sum(len(plan.rows(step)) for step in todo.left) * len(plan.metrics)
    asked.folder.check_space(rows * BYTES_PER_ROW)
