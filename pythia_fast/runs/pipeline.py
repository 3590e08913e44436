"""One resident model, and the steps that flow through it: read ahead, computed, written behind."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import pyarrow as pa
import torch

from pythia_fast.errors import RunMismatchError
from pythia_fast.model import Model, Precision
from pythia_fast.runs.folder.run_folder import Parts
from pythia_fast.runs.job import DamagedTwinError, SweepJob
from pythia_fast.runs.measure import measure, together
from pythia_fast.runs.origin import of_unit, origin_of
from pythia_fast.runs.plan import Plan, Unit
from pythia_fast.runs.progress import Reporter
from pythia_fast.runs.steps.twins import check_twin, result_of_twin
from pythia_fast.series import Ahead, CheckpointSeries
from pythia_fast.streaming.arenas import make_arenas
from pythia_fast.streaming.prefetching import Loaded, NotLoaded, prefetch
from pythia_fast.streaming.resident import swap


class Source(Protocol):
    """Where a pipeline's steps come from, and who is told what became of them."""

    queue: deque[int]

    def remarks(self, step: int) -> tuple[str, ...]:
        """What is known to be odd with a step."""

    def finished_with(self, sha256: str) -> int | None:
        """A step with these weights whose results are on the disk, if another may take them."""

    def forget(self, first: int) -> None:
        """The results of a step are damaged: nobody is to take them."""

    def fetching(self, ahead: Ahead) -> None:
        """What fetches the files of the steps in the queue has begun: it is to know of changes."""

    def begin(self, step: int) -> None:
        """A step is loaded and about to be computed."""

    def written(self, step: int, sha256: str) -> None:
        """All results of a step are on the disk. Called by the writer, in its thread, at once."""

    def finish(self, step: int, sha256: str | None = None) -> None:
        """The same, called by the thread that computes, when it comes to it."""

    def fail(self, step: int, error: Exception) -> None:
        """A step has failed. SweepError where that ends the work."""


@dataclass(frozen=True, slots=True)
class _Writing:
    """A step that is computed, and whose results are on their way to the disk."""

    step: int
    weights_sha256: str
    publications: "tuple[Future[None], ...]"


class Pipeline:
    """Computes the steps that its source has in the queue, as far as the folder lacks them.

    While one step is computed, the next is read (of a small model on a GPU the next four), those
    after it are downloaded, and the one before is written by another thread, `writer`; it counts as
    finished when it is on the disk. `steps` is how many there are to be: one does with one arena.
    `memory_share` is its part of the free memory, others beginning at the same time.
    """

    def __init__(
        self,
        series: CheckpointSeries,
        plan: Plan,
        folder: Parts,
        job: SweepJob,
        source: Source,
        progress: Reporter,
        writer: ThreadPoolExecutor,
        *,
        steps: int,
        device: torch.device,
        precision: Precision,
        batch_tokens: int,
        memory_share: float = 1.0,
    ) -> None:
        self._series, self._plan, self._folder, self._job = series, plan, folder, job
        self._source, self._progress, self._writer = source, progress, writer
        self._batch_tokens = batch_tokens
        self._writing: _Writing | None = None
        self._arenas = make_arenas(
            plan.spec.architecture, steps, precision, device, share=memory_share
        )
        self._resident = Model(
            self._arenas.resident,
            plan.spec,
            arithmetic=precision.arithmetic,
            series=series,
            deterministic=plan.deterministic,
        )

    def run(self, between: Callable[[], None]) -> None:
        """Go through the queue until it is empty; after each step `between` is called.

        The queue may grow meanwhile.
        """
        checkpoints = prefetch(
            self._series,
            self._source.queue,
            self._arenas.loading,
            hashed=True,
            poured_into=self._arenas.poured_into,
            waiting=self._progress.waiting,
            entered=self._source.fetching,
        )
        with closing(checkpoints):
            try:
                for loaded in checkpoints:
                    self._next(loaded)
                    between()
                self._settle()
            except BaseException as error:
                self._settle_after(error)
                raise
        between()
        self.close()  # before another is waited for

    def close(self) -> None:
        """Close the checkpoint that is resident: its place on the disk is free again."""
        if self._resident.checkpoint is not None:
            self._resident.checkpoint.close()

    def _next(self, loaded: Loaded | NotLoaded) -> None:
        """Compute a step and leave its results to the writer, who has done those before."""
        if isinstance(loaded, NotLoaded):
            self._settle()
            self._source.fail(loaded.step, loaded.error)
            return
        self._progress.loaded(loaded.times)
        if self._writing is not None and self._writing.weights_sha256 == loaded.weights_sha256:
            self._settle()  # its results will be taken from the disk
        publications: list[Future[None]] = []
        try:
            self._step(loaded, publications)
        except BaseException as error:
            for publication in publications:
                unwritten = publication.exception()
                if unwritten is not None and unwritten is not error:
                    error.add_note(f"results of step {loaded.step} were not written: {unwritten}")
            if isinstance(error, RunMismatchError) or not isinstance(error, Exception):
                raise
            self._settle()
            self._source.fail(loaded.step, error)
        else:
            self._settle()
            self._writing = _Writing(loaded.step, loaded.weights_sha256, tuple(publications))

    def _step(self, loaded: Loaded, publications: "list[Future[None]]") -> None:
        """Compute what is missing of a step; what the writer is given goes into `publications`."""
        swap(self._resident, loaded)
        self._source.begin(loaded.step)
        twin = self._readable_twin(loaded.weights_sha256, list(self._plan.units(loaded.step)))
        origin = origin_of(
            *(self._folder, self._series, self._plan, loaded),
            duplicate_of=twin,
            remarks=self._source.remarks(loaded.step),
            device=self._resident.device,
        )
        written = 0
        for _, shard in itertools.groupby(self._plan.units(loaded.step), lambda unit: unit.shard):
            missing = [unit for unit in shard if not self._job.has(unit, loaded.weights_sha256)]
            share = twin is None and not (
                self._plan.deterministic and self._resident.kernels is None
            )
            for units in self._groups(missing) if share else [(unit,) for unit in missing]:
                written = _written_of(publications, written)
                started = time.perf_counter()
                tables = self._tables(units, twin)
                elapsed_s = time.perf_counter() - started
                self._progress.computed(elapsed_s)
                for unit, table in zip(units, tables, strict=True):
                    of_this = origin | of_unit(unit, elapsed_s / len(units))
                    # In a thread of its own: no interrupt can stop it half-way, and nobody waits.
                    publications.append(
                        self._writer.submit(self._folder.publish, unit, table, of_this)
                    )
        publications.append(self._writer.submit(self._folder.forget_failure, loaded.step))
        publications.append(
            self._writer.submit(
                self._written, loaded.step, loaded.weights_sha256, tuple(publications)
            )
        )

    def _written(self, step: int, sha256: str, publications: "Sequence[Future[None]]") -> None:
        """In the writer's thread, after all of these."""
        if all(publication.exception() is None for publication in publications):
            self._source.written(step, sha256)

    def _groups(self, units: Sequence[Unit]) -> list[tuple[Unit, ...]]:
        """Units of one shard that are measured together, with the same scores."""
        if len(units) < 2:
            return [(unit,) for unit in units]
        lengths = self._plan.dataset.lengths_of(units[0].rows)
        groups = together([unit.metric for unit in units], lengths)
        return [tuple(unit for unit in units if unit.metric in group) for group in groups]

    def _tables(self, units: Sequence[Unit], twin: int | None) -> list[pa.Table]:
        """The results of units of one shard; those of a twin, with the same weights, are known."""
        if twin is None:
            return measure(
                [unit.metric for unit in units],
                *(self._resident, self._plan.dataset, units[0].rows),
                batch_tokens=self._batch_tokens,
                advance=partial(self._advance, units[0].step),
            )
        for unit in units:
            self._progress.skip(self._plan.tokens_of(unit), unit.step)
        return [result_of_twin(self._folder, unit, twin)[1] for unit in units]

    def _readable_twin(self, sha256: str, units: Sequence[Unit]) -> int | None:
        """A computed step with these weights, all of whose results can be read."""
        first = self._source.finished_with(sha256)
        if first is None:
            return None
        try:
            check_twin(self._folder, units, first)
        except DamagedTwinError:
            self._source.forget(first)
            return None
        return first

    def _advance(self, step: int, tokens: int) -> None:
        """Some tokens are computed; the step before may meanwhile be on the disk."""
        self._progress.advance(tokens, step)
        writing = self._writing
        if writing is None or not writing.publications[-1].done():  # one writes them, in order
            return
        if all(publication.exception() is None for publication in writing.publications):
            self._count(writing)

    def _settle(self) -> None:
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
        self._source.fail(writing.step, error)

    def _settle_after(self, error: BaseException) -> None:
        """The same on the way out of an error, which wins: another becomes a note of it."""
        try:
            self._settle()
        except Exception as other:
            error.add_note(str(other))

    def _count(self, finished: _Writing) -> None:
        self._writing = None
        self._source.finish(finished.step, finished.weights_sha256)


def _written_of(publications: "Sequence[Future[None]]", before: int) -> int:
    """How many of them are written, the first `before` of them known to be.

    An error of one of the others is raised: a full disk is told before more is computed.
    """
    while before < len(publications) and publications[before].done():
        publications[before].result()
        before += 1
    return before
