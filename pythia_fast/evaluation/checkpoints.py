"""Evaluation of checkpoint after checkpoint: what there is to do, and what is kept of it."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pythia_fast.errors import FormatError, OnError, RunMismatchError, SweepInterruptedError
from pythia_fast.evaluation.answers import Answers
from pythia_fast.evaluation.harness import Harness
from pythia_fast.evaluation.records import (
    read_result,
    result_name,
    samples_name,
)
from pythia_fast.model import Model, Precision
from pythia_fast.quantities import counted
from pythia_fast.runs.folder.parts import evaluated_steps
from pythia_fast.runs.folder.presence import Presence
from pythia_fast.runs.folder.run_folder import RunFolder, versions
from pythia_fast.runs.job import DamagedTwinError, check_unchanged
from pythia_fast.runs.origin import device_name, origin_of_twin
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps.todo import Todo
from pythia_fast.series import CheckpointSeries
from pythia_fast.streaming.arenas import make_arenas
from pythia_fast.streaming.prefetching import Loaded, NotLoaded, prefetch
from pythia_fast.streaming.resident import swap


class EvaluationJob:
    """All tasks at each of these steps: one file of results a step, in a run folder."""

    sharing = True

    def __init__(self, steps: Sequence[int], folder: RunFolder, tokens: int) -> None:
        self.steps = tuple(steps)
        self._folder, self._tokens = folder, tokens

    def tokens(self, step: int) -> int:
        """How many tokens are looked at in a step."""
        return self._tokens

    def origins(self, step: int) -> list[dict[str, Any]] | None:
        """Where a step's results are from; None if they are not all there. FormatError."""
        record = self.result(step)
        return None if record is None else [record["pythia_fast"]]

    def first_origin(self) -> dict[str, Any] | None:
        """Where the first results that can be read are from; None without any."""
        for step in evaluated_steps(self._folder.path):
            with suppress(FormatError):  # whoever needs this step is told
                if (origins := self.origins(step)) is not None:
                    return origins[0]
        return None

    def place(self, step: int) -> Path:
        """Where a step's results lie."""
        return self._folder.path / result_name(step)

    def amount(self, steps: Iterable[int]) -> str:
        """How much there is to compute at these steps, in words."""
        return f"{self._tokens * len(tuple(steps)):,} tokens to compute"

    def result(self, step: int) -> dict[str, Any] | None:
        """A step's results, None if there are none. FormatError."""
        return read_result(self._folder.path, step, self._folder.hash)


class Checkpoints:
    """The steps of one evaluation.

    One model stays resident; the next checkpoint is read while one is evaluated. Of steps with the
    same weights one is evaluated, and the others get its results.
    """

    def __init__(
        self,
        series: CheckpointSeries,
        steps: Sequence[int],
        folder: RunFolder,
        harness: Harness,
        answers: Answers,
        progress: Progress,
        *,
        budget_bytes: int | None,
        on_error: OnError,
    ) -> None:
        self._series, self._folder, self._progress = series, folder, progress
        self._harness, self._answers = harness, answers
        self._job = EvaluationJob(steps, folder, harness.tokens)
        self._todo = Todo(series, self._job, folder, progress, budget_bytes, on_error)
        self._presence = Presence(folder, "local", say=progress.say)
        self._now: int | None = None

    def advance(self, tokens: int) -> None:
        """Tokens of the step that is being evaluated are done."""
        if self._now is not None:
            self._progress.advance(tokens, self._now)

    def run(self, device: torch.device, precision: Precision) -> None:
        """Evaluate what is left.

        SweepError where a step fails or cannot be had, unless failures are skipped;
        RunMismatchError where the folder's results are of other weights or of another series of
        the same name; SweepInterruptedError.
        """
        self._todo.changed = partial(self._presence.follow, str(device), self._todo)
        with self._presence:
            self._run(device, precision)

    def _run(self, device: torch.device, precision: Precision) -> None:
        todo = self._todo
        try:
            todo.survey()
            todo.changed()
            if not todo.left:
                self._progress.say(f"nothing left to evaluate: all is in {self._folder.path}")
                return
            self._folder.check_writable()
            todo.give_twins(self._give)
            if todo.queue:
                self._evaluate(device, precision)
        except KeyboardInterrupt:
            raise SweepInterruptedError(
                f"interrupted: {todo.finished} of {counted(len(self._job.steps), 'step')} are "
                f"finished and kept in {self._folder.path}; the same call goes on from there"
            ) from None

    def _evaluate(self, device: torch.device, precision: Precision) -> None:
        """Go through the queue, which grows where a step fails that others have the weights of."""
        queue = self._todo.queue
        arenas = make_arenas(self._series.spec.architecture, len(queue), precision, device)
        resident = Model(arenas.resident, self._series.spec, arithmetic=precision.arithmetic)
        coming = prefetch(
            *(self._series, queue, arenas.loading),
            hashed=True,
            poured_into=arenas.poured_into,
            waiting=self._progress.waiting,
        )
        try:
            with closing(coming):
                for loaded in coming:
                    self._next(loaded, resident, precision)
                    self._todo.give_twins(self._give)
        finally:
            if resident.checkpoint is not None:
                resident.checkpoint.close()

    def _next(self, loaded: Loaded | NotLoaded, resident: Model, precision: Precision) -> None:
        """Evaluate a step, unless its results are there meanwhile, or another's are also its."""
        step = loaded.step
        if isinstance(loaded, NotLoaded):
            self._todo.fail(step, loaded.error)
            return
        self._progress.loaded(loaded.times)
        swap(resident, loaded)
        self._todo.begin(step)
        try:
            if not self._is_there(step, loaded.weights_sha256):
                self._results(loaded, resident, precision)
        except RunMismatchError:
            raise
        except Exception as error:
            self._todo.fail(step, error)
        else:
            self._todo.finish(step, loaded.weights_sha256)
        finally:
            self._now = None

    def _results(self, loaded: Loaded, resident: Model, precision: Precision) -> None:
        """Keep the results of a step that is loaded: those of a twin, or what the harness says."""
        origin = {
            "run": self._folder.hash,
            "model": self._series.spec.name,
            "step": loaded.step,
            "source": self._series.source,
            "commit": loaded.checkpoint.commit,
            "identity": loaded.identity,
            "weights_sha256": loaded.weights_sha256,
            "weights_nonfinite": sum(loaded.report.nonfinite.values()),
            "duplicate_of": None,
            "remarks": list(self._todo.remarks(loaded.step)),
            "dtype": precision.name,
            "device": device_name(resident.device),
            "version": versions()["pythia-fast"],
            "versions": dict(versions()),
            **loaded.times.to_dict(),
        }
        first, record = self._twin(loaded.weights_sha256)
        if record is not None:
            there = record["pythia_fast"]
            of_twin = {"duplicate_of": first, "compute_s": 0.0, "samples": there.get("samples", {})}
            self._keep(loaded.step, record, origin | of_twin)
            self._progress.skip(self._job.tokens(loaded.step), loaded.step)
            return
        self._now = loaded.step
        started = time.perf_counter()
        results = self._harness.results(resident, self._answers)
        elapsed_s = time.perf_counter() - started
        self._progress.computed(elapsed_s)
        samples = self._keep_samples(loaded.step, results.pop("samples", None) or {})
        self._keep(loaded.step, results, origin | {"compute_s": elapsed_s, "samples": samples})

    def _keep_samples(self, step: int, samples: Mapping[str, Any]) -> dict[str, str]:
        """Keep what was asked and answered, and say under which name each task's is.

        The names are made of what the files hold: of two processes that compute the same step each
        has its own, and the results that stay name those that belong to them.
        """
        names = {}
        for task, rows in samples.items():
            data = "".join(self._harness.json(row) + "\n" for row in rows).encode()
            names[task] = samples_name(step, task, hashlib.sha256(data).hexdigest())
            self._folder.keep(names[task], data)
        return names

    def _keep(self, step: int, results: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
        text = self._harness.json({**results, "pythia_fast": origin}, indent=2) + "\n"
        self._folder.keep(result_name(step), text.encode())
        self._folder.forget_failure(step)

    def _give(self, step: int, first: int) -> None:
        """Give a step the results of another with the same weights. DamagedTwinError."""
        revision = self._todo.revision(step)
        if self._is_there(step, self._todo.weights_sha256(step, first)):
            return
        record = self._readable(first)
        origin = origin_of_twin(
            record["pythia_fast"],
            step=step,
            commit=revision.commit,
            identity=revision.identity or self._series.identity(step),
            duplicate_of=first,
            remarks=self._todo.remarks(step),
        )
        self._keep(step, record, origin)
        self._progress.skip(self._job.tokens(step), step)

    def _is_there(self, step: int, sha256: str | None) -> bool:
        """Whether another process has finished the step. RunMismatchError with other weights."""
        record = self._job.result(step)
        if record is None:
            return False
        check_unchanged(self._folder, step, record["pythia_fast"]["weights_sha256"], sha256)
        self._folder.forget_failure(step)
        self._progress.skip(self._job.tokens(step), step)
        return True

    def _twin(self, sha256: str) -> tuple[int | None, dict[str, Any] | None]:
        """A step with these weights that was evaluated, and its results, if they can be read."""
        first = self._todo.finished_with(sha256)
        if first is None:
            return None, None
        try:
            return first, self._readable(first)
        except DamagedTwinError:
            self._todo.forget(first)
            return None, None

    def _readable(self, first: int) -> dict[str, Any]:
        """The results of a step that others are to take. DamagedTwinError."""
        try:
            record = self._job.result(first)
        except FormatError as error:
            raise DamagedTwinError(error) from error
        if record is None:
            raise DamagedTwinError(FormatError(self._job.place(first), "it has gone meanwhile"))
        return record
