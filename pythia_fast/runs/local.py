"""The local engine: one process, one resident model, one step after the other."""

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import torch

from pythia_fast.errors import FormatError, RunMismatchError, SweepInterruptedError
from pythia_fast.model import Model, Precision
from pythia_fast.runs.folder import RunFolder
from pythia_fast.runs.job import DamagedTwinError, SweepJob
from pythia_fast.runs.measure import measure, together
from pythia_fast.runs.origin import of_unit, origin_of, origin_of_twin
from pythia_fast.runs.plan import Plan, Unit
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.streaming import Loaded, NotLoaded, make_arenas, prefetch, swap
from pythia_fast.runs.todo import OnError, Todo, notes
from pythia_fast.series import CheckpointSeries

BYTES_PER_ROW = 128
"""What a row of results takes, lists aside, for the check of free space before the start."""


@dataclass(frozen=True, slots=True)
class _Writing:
    """A step that is computed, and whose results are on their way to the disk."""

    step: int
    weights_sha256: str
    publications: "tuple[Future[None], ...]"


class LocalEngine:
    """Computes the units of a plan that are not in the run folder yet.

    While one step is computed, the next is read by one thread, those after it are downloaded, and
    the one before is written by another thread; it counts as finished when it is on the disk.
    """

    def __init__(
        self,
        series: CheckpointSeries,
        plan: Plan,
        folder: RunFolder,
        progress: Progress,
        *,
        budget_bytes: int | None = None,
    ) -> None:
        self._series, self._plan, self._folder = series, plan, folder
        self._progress = progress
        self._job = SweepJob(plan, folder, progress)
        self._todo = Todo(series, self._job, folder, progress, budget_bytes)
        self._writing: _Writing | None = None

    def run(
        self, device: torch.device, precision: Precision, batch_tokens: int, on_error: OnError
    ) -> None:
        """Compute, publish and go on, until all is done, a step fails or the user interrupts."""
        todo = self._todo
        try:
            todo.survey(on_error)
            if not todo.left:
                self._progress.say(f"nothing left to compute: all is in {self._folder.path}")
                return
            rows = sum(len(self._plan.rows(step)) for step in todo.left) * len(self._plan.metrics)
            self._folder.check_space(rows * BYTES_PER_ROW)
            with ThreadPoolExecutor(1, "pythia_fast-write") as writer:
                self._take_twins(writer, on_error)
                if todo.queue:
                    self._compute(device, precision, batch_tokens, writer, on_error)
        except KeyboardInterrupt as interrupt:
            meanwhile = "".join(f". Meanwhile {note}" for note in notes(interrupt))
            raise SweepInterruptedError(
                f"interrupted: {todo.finished} of {len(self._plan.steps)} steps are finished and "
                f"kept in {self._folder.path}; the same call goes on from there{meanwhile}"
            ) from None

    def _compute(
        self,
        device: torch.device,
        precision: Precision,
        batch_tokens: int,
        writer: ThreadPoolExecutor,
        on_error: OnError,
    ) -> None:
        """Go through the queue, which grows where a step fails that others have the weights of."""
        queue = self._todo.queue
        arenas = make_arenas(self._plan.spec.architecture, len(queue), precision, device)
        resident = Model(
            arenas[0],
            self._plan.spec,
            arithmetic=precision.arithmetic,
            series=self._series,
        )
        try:
            while queue:
                checkpoints = prefetch(
                    self._series, queue, arenas, hashed=True, waiting=self._progress.waiting
                )
                with closing(checkpoints):
                    try:
                        for loaded in checkpoints:
                            self._next(loaded, resident, batch_tokens, writer, on_error)
                            self._take_twins(writer, on_error)
                        self._settle(on_error)
                    except BaseException as error:
                        self._settle_after(error)
                        raise
                self._take_twins(writer, on_error)
                _close(resident)  # before another is waited for
        finally:
            _close(resident)

    def _next(
        self,
        loaded: Loaded | NotLoaded,
        resident: Model,
        batch_tokens: int,
        writer: ThreadPoolExecutor,
        on_error: OnError,
    ) -> None:
        """Compute a step and leave its results to the writer, who has done those before."""
        if isinstance(loaded, NotLoaded):
            self._settle(on_error)
            self._todo.fail(loaded.step, loaded.error, on_error)
            return
        self._progress.loaded(loaded.times)
        if self._writing is not None and self._writing.weights_sha256 == loaded.weights_sha256:
            self._settle(on_error)  # its results will be taken from the disk
        publications: list[Future[None]] = []
        try:
            self._step(loaded, resident, batch_tokens, writer, publications)
        except BaseException as error:
            for publication in publications:
                unwritten = publication.exception()
                if unwritten is not None and unwritten is not error:
                    error.add_note(f"results of step {loaded.step} were not written: {unwritten}")
            if isinstance(error, RunMismatchError) or not isinstance(error, Exception):
                raise
            self._settle(on_error)
            self._todo.fail(loaded.step, error, on_error)
        else:
            self._settle(on_error)
            self._writing = _Writing(loaded.step, loaded.weights_sha256, tuple(publications))

    def _step(
        self,
        loaded: Loaded,
        resident: Model,
        batch_tokens: int,
        writer: ThreadPoolExecutor,
        publications: "list[Future[None]]",
    ) -> None:
        """Compute what is missing of a step; what the writer is given goes into `publications`."""
        swap(resident, loaded)
        twin = self._readable_twin(loaded.weights_sha256, list(self._plan.units(loaded.step)))
        origin = origin_of(
            *(self._folder, self._series, self._plan, loaded),
            duplicate_of=twin,
            remarks=self._todo.remarks(loaded.step),
            device=resident.device,
        )
        for _, shard in itertools.groupby(self._plan.units(loaded.step), lambda unit: unit.shard):
            missing = [unit for unit in shard if not self._job.has(unit, loaded.weights_sha256)]
            share = twin is None and not (self._plan.deterministic and resident.native is None)
            for units in self._groups(missing) if share else [(unit,) for unit in missing]:
                for publication in publications:
                    if publication.done():
                        publication.result()  # a full disk is told before more is computed
                started = time.perf_counter()
                tables = self._tables(units, twin, resident, batch_tokens)
                elapsed_s = time.perf_counter() - started
                self._progress.computed(elapsed_s)
                for unit, table in zip(units, tables, strict=True):
                    of_this = origin | of_unit(unit, elapsed_s / len(units))
                    # In a thread of its own: no interrupt can stop it half-way, and nobody waits.
                    publications.append(writer.submit(self._folder.publish, unit, table, of_this))
        publications.append(writer.submit(self._folder.forget_failure, loaded.step))

    def _groups(self, units: Sequence[Unit]) -> list[tuple[Unit, ...]]:
        """Units of one shard that are measured together, with the same scores."""
        if len(units) < 2:
            return [(unit,) for unit in units]
        lengths = self._plan.dataset.lengths_of(units[0].rows)
        groups = together([unit.metric for unit in units], lengths)
        return [tuple(unit for unit in units if unit.metric in group) for group in groups]

    def _tables(
        self, units: Sequence[Unit], twin: int | None, resident: Model, batch_tokens: int
    ) -> list[pa.Table]:
        """The results of units of one shard; those of a twin, with the same weights, are known."""
        if twin is None:
            return measure(
                [unit.metric for unit in units],
                *(resident, self._plan.dataset, units[0].rows),
                batch_tokens=batch_tokens,
                advance=partial(self._advance, units[0].step),
            )
        for unit in units:
            self._progress.skip(self._plan.tokens_of(unit), unit.step)
        return [self._of_twin(unit, twin)[1] for unit in units]

    def _take_twins(self, writer: ThreadPoolExecutor, on_error: OnError) -> None:
        """Give the finished steps' results to those with the same weights, which are not loaded."""
        self._todo.give_twins(
            # In the writer's thread, so that no interrupt stops it half-way.
            lambda step, first: writer.submit(self._publish_twin, step, first).result(),
            on_error,
        )

    def _publish_twin(self, step: int, first: int) -> None:
        """Give a step the results of another. DamagedTwinError if they cannot be read."""
        sha256 = self._todo.revision(step).weights_sha256
        for unit in self._plan.units(step):
            if self._job.has(unit, sha256):
                continue
            there, table = self._of_twin(unit, first)
            origin = origin_of_twin(
                there,
                step=step,
                commit=self._todo.revision(step).commit,
                identity=self._series.identity(step),
                duplicate_of=first,
                remarks=self._todo.remarks(step),
            )
            self._folder.publish(unit, table, origin)
            self._progress.skip(self._plan.tokens_of(unit), unit.step)
        self._folder.forget_failure(step)

    def _of_twin(self, unit: Unit, first: int) -> tuple[dict[str, Any], pa.Table]:
        there = replace(unit, step=first)
        try:
            return self._folder.origin(there), self._folder.table(there)
        except FormatError as error:
            raise DamagedTwinError(error) from error

    def _readable_twin(self, sha256: str, units: Sequence[Unit]) -> int | None:
        """A computed step with these weights, all of whose results can be read."""
        first = self._todo.finished_with(sha256)
        if first is None:
            return None
        try:
            for unit in units:
                self._of_twin(unit, first)
        except DamagedTwinError:
            self._todo.forget(first)
            return None
        return first

    def _advance(self, step: int, tokens: int) -> None:
        """Some tokens are computed; the step before may meanwhile be on the disk."""
        self._progress.advance(tokens, step)
        writing = self._writing
        if writing is not None and all(
            publication.done() and publication.exception() is None
            for publication in writing.publications
        ):
            self._count(writing)

    def _settle(self, on_error: OnError) -> None:
        """Wait until the step before is on the disk, and count it, or its failure."""
        writing = self._writing
        if writing is None:
            return
        errors = [publication.exception() for publication in writing.publications]
        error = next((error for error in errors if error is not None), None)
        if error is None:
            self._count(writing)
            return
        self._writing = None
        if not isinstance(error, Exception):
            raise error
        self._todo.fail(writing.step, error, on_error)

    def _settle_after(self, error: BaseException) -> None:
        """The same on the way out of an error, which wins: another becomes a note of it."""
        try:
            self._settle("raise")
        except Exception as other:
            error.add_note(str(other))

    def _count(self, finished: _Writing) -> None:
        self._writing = None
        self._todo.finish(finished.step, finished.weights_sha256)


def _close(resident: Model) -> None:
    if resident.checkpoint is not None:
        resident.checkpoint.close()
