"""The local engine: one process, one resident model, one step after the other."""

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import torch

from pythia_fast.errors import RunMismatchError, SweepError, SweepInterruptedError
from pythia_fast.model import Model, Precision
from pythia_fast.runs.folder import Failure, RunFolder, versions
from pythia_fast.runs.measure import measure, together
from pythia_fast.runs.plan import Plan, Unit
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.streaming import Loaded, NotLoaded, make_arenas, prefetch, swap
from pythia_fast.series import CheckpointSeries

BYTES_PER_ROW = 128
"""What a row of results takes, lists aside, for the check of free space before the start."""

OnError = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True)
class _Writing:
    """A step that is computed, and whose results are on their way to the disk."""

    step: int
    weights_sha256: str
    publications: "tuple[Future[None], ...]"


class LocalEngine:
    """Computes the units of a plan that are not in the run folder yet.

    While one step is computed, the next is read by one thread and the one before is written by
    another; it counts as finished when it is on the disk.
    """

    def __init__(
        self, series: CheckpointSeries, plan: Plan, folder: RunFolder, progress: Progress
    ) -> None:
        self._series, self._plan, self._folder = series, plan, folder
        self._progress = progress
        self._step_of_sha256: dict[str, int] = {}
        self._writing: _Writing | None = None
        self._finished = 0

    def run(
        self, device: torch.device, precision: Precision, batch_tokens: int, on_error: OnError
    ) -> None:
        """Compute, publish and go on, until all is done, a step fails or the user interrupts."""
        steps = self._plan.steps
        self._check_source()
        todo = [step for step in steps if not self._is_done_or_failed(step, on_error)]
        if not todo:
            self._progress.say(f"nothing left to compute: all is in {self._folder.path}")
            return
        rows = sum(len(self._plan.rows(step)) for step in todo) * len(self._plan.metrics)
        self._folder.check_space(rows * BYTES_PER_ROW)
        arenas = make_arenas(self._plan.spec.architecture, len(todo), precision, device)
        resident = Model(arenas[0], self._plan.spec, arithmetic=precision.arithmetic)
        try:
            with (
                ThreadPoolExecutor(1, "pythia_fast-write") as writer,
                closing(prefetch(self._series, todo, arenas, hashed=True)) as checkpoints,
            ):
                try:
                    for loaded in checkpoints:
                        self._next(loaded, resident, batch_tokens, writer, on_error)
                    self._settle(on_error)
                except BaseException as error:
                    self._settle_after(error)
                    raise
        except KeyboardInterrupt as interrupt:
            meanwhile = "".join(f". Meanwhile {note}" for note in _notes(interrupt))
            raise SweepInterruptedError(
                f"interrupted: {self._finished} of {len(steps)} steps are finished and kept in "
                f"{self._folder.path}; the same call goes on from there{meanwhile}"
            ) from None

    def _check_source(self) -> None:
        """RunMismatchError if the folder's results are of another folder of the same name."""
        if self._plan.spec.repo is not None:
            return
        origin = self._folder.first_origin()
        if origin is None or origin.get("source") == self._series.source:
            return
        step = origin["step"]
        moved = step in self._series.steps
        if not moved or self._series.open(step).weights_sha256 != origin["weights_sha256"]:
            raise RunMismatchError(
                f"{self._folder.path} holds results of {origin.get('source')}, which is another "
                f"series than {self._series.source}. Give another `out`"
            )

    def _is_done_or_failed(self, step: int, on_error: OnError) -> bool:
        """Whether nothing is left to do for a step: it is done, or cannot even be looked at."""
        try:
            return self._is_done(step)
        except RunMismatchError:
            raise
        except Exception as error:
            self._fail(step, error, on_error)
            return True

    def _is_done(self, step: int) -> bool:
        """Whether all units of a step are there, of the weights that the series still has."""
        units = list(self._plan.units(step))
        if not all(self._folder.done(unit) for unit in units):
            return False
        origins = [self._folder.origin(unit) for unit in units]
        sha256 = origins[0]["weights_sha256"]
        for origin in origins[1:]:
            self._check_unchanged(step, origin["weights_sha256"], sha256)
        if origins[-1]["identity"] != self._series.identity(step):
            self._check_unchanged(step, sha256, self._series.open(step).weights_sha256)
        self._step_of_sha256.setdefault(sha256, step)
        self._folder.forget_failure(step)  # of a process that was killed before it could
        self._finished += 1
        self._progress.skip(sum(map(self._plan.tokens_of, units)))
        self._progress.checkpoint_done()
        return True

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
            self._fail(loaded.step, loaded.error, on_error)
            return
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
            self._fail(loaded.step, error, on_error)
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
        twin = None
        if not isinstance(self._plan.sequences, str):
            twin = self._step_of_sha256.get(loaded.weights_sha256)
        origin = self._origin(loaded, twin, resident.device)
        for _, shard in itertools.groupby(self._plan.units(loaded.step), lambda unit: unit.shard):
            missing = []
            for unit in shard:
                if self._folder.done(unit):
                    there = self._folder.origin(unit)["weights_sha256"]
                    self._check_unchanged(loaded.step, there, loaded.weights_sha256)
                    self._progress.skip(self._plan.tokens_of(unit))
                else:
                    missing.append(unit)
            share = twin is None and not (self._plan.deterministic and resident.native is None)
            for units in self._groups(missing) if share else [(unit,) for unit in missing]:
                for publication in publications:
                    if publication.done():
                        publication.result()  # a full disk is told before more is computed
                started = time.perf_counter()
                tables = self._tables(units, twin, resident, batch_tokens)
                elapsed_s = time.perf_counter() - started
                for unit, table in zip(units, tables, strict=True):
                    of_unit = {
                        "metric": unit.metric.name,
                        "shard": unit.shard,
                        "shards": unit.shards,
                        "compute_s": elapsed_s / len(units),
                    }
                    # In a thread of its own: no interrupt can stop it half-way, and nobody waits.
                    publications.append(
                        writer.submit(self._folder.publish, unit, table, origin | of_unit)
                    )
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
                advance=self._advance,
            )
        for unit in units:
            self._progress.skip(self._plan.tokens_of(unit))
        return [self._folder.table(replace(unit, step=twin)) for unit in units]

    def _advance(self, tokens: int) -> None:
        """Some tokens are computed; the step before may meanwhile be on the disk."""
        self._progress.advance(tokens)
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
        self._fail(writing.step, error, on_error)

    def _settle_after(self, error: BaseException) -> None:
        """The same on the way out of an error, which wins: another becomes a note of it."""
        try:
            self._settle("raise")
        except Exception as other:
            error.add_note(str(other))

    def _count(self, finished: _Writing) -> None:
        self._writing = None
        self._step_of_sha256.setdefault(finished.weights_sha256, finished.step)
        self._finished += 1
        self._progress.checkpoint_done()

    def _origin(self, loaded: Loaded, twin: int | None, device: torch.device) -> dict[str, Any]:
        installed = versions()
        return {
            "run": self._folder.hash,
            "model": self._plan.spec.name,
            "step": loaded.step,
            "source": self._series.source,
            "commit": loaded.checkpoint.commit,
            "identity": loaded.identity,
            "weights_sha256": loaded.weights_sha256,
            "weights_nonfinite": sum(loaded.report.nonfinite.values()),
            "duplicate_of": twin,
            "dtype": self._plan.dtype,
            "device": device_name(device),
            "tokens_fingerprint": self._plan.specification["tokens"],
            "version": installed["pythia-fast"],
            "versions": installed,
            "load_s": loaded.load_s,
            "hash_s": loaded.hash_s,
            "wait_s": loaded.wait_s,
        }

    def _check_unchanged(self, step: int, then: str, now: str) -> None:
        if then != now:
            raise RunMismatchError(
                f"the weights of step {step} have changed since their results in "
                f"{self._folder.path} were computed. Give another `out`, or resume=False"
            )

    def _fail(self, step: int, error: Exception, on_error: OnError) -> None:
        words = "; ".join([str(error), *_notes(error)])
        failure = Failure(step, type(error).__name__, words)
        self._folder.record_failure(failure)
        if on_error == "raise":
            raise SweepError(
                f"step {step} failed: {words}. What was finished before is kept in "
                f"{self._folder.path}; on_error='skip' goes on without such steps"
            ) from error
        self._progress.say(f"step {step} failed and is left out: {failure.error}: {words}")


def _notes(error: BaseException) -> list[str]:
    notes: list[str] = getattr(error, "__notes__", [])
    return notes


def device_name(device: torch.device) -> str:
    """The device in words: "cpu", or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
