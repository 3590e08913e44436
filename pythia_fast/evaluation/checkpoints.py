"""Evaluation of checkpoint after checkpoint: what is done, what is left, what failed."""

import json
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing

import torch

from pythia_fast.errors import (
    FormatError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
)
from pythia_fast.evaluation.answers import Answers
from pythia_fast.evaluation.harness import Harness
from pythia_fast.evaluation.records import read_result, result_name
from pythia_fast.model import Model, Precision
from pythia_fast.runs.folder import RunFolder, versions
from pythia_fast.runs.origin import device_name
from pythia_fast.runs.parts import Failure
from pythia_fast.runs.pins import pin
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.streaming import Loaded, NotLoaded, make_arenas, prefetch, swap
from pythia_fast.runs.survey import Survey, survey, weights_sha256
from pythia_fast.runs.times import LoadTimes
from pythia_fast.runs.todo import OnError, failure_words
from pythia_fast.series import CheckpointSeries


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
    ) -> None:
        self._series, self._steps, self._folder = series, steps, folder
        self._harness, self._answers, self._progress = harness, answers, progress
        self._survey = Survey({}, ())
        self._results_of: dict[str, int] = {}
        self._waiting: dict[int, tuple[int, ...]] = {}
        self._queue: deque[int] = deque()
        self._now: int | None = None
        self._finished = 0

    def advance(self, tokens: int) -> None:
        """Tokens of the step that is being evaluated are done."""
        if self._now is not None:
            self._progress.advance(tokens, self._now)

    def run(self, device: torch.device, precision: Precision, on_error: OnError) -> None:
        """Evaluate what is left.

        SweepError where a step fails or cannot be had, unless failures are skipped;
        RunMismatchError where the folder's results are of other weights; SweepInterruptedError.
        """
        try:
            self._look(on_error)
            if self._queue:
                self._evaluate(device, precision, on_error)
        except KeyboardInterrupt:
            raise SweepInterruptedError(
                f"interrupted: {self._finished} of {len(self._steps)} steps are finished and kept "
                f"in {self._folder.path}; the same call goes on from there"
            ) from None

    def _look(self, on_error: OnError) -> None:
        """What there is, what is done, and what cannot be had, before anything is downloaded."""
        self._survey = survey(self._series, self._steps)
        moved = pin(self._folder, self._survey.revisions)
        if moved:
            self._series.pin(moved)
            self._survey = self._survey.renewed(self._series, tuple(moved))
        for line in self._survey.known():
            self._progress.say(line)
        left = [step for step in self._steps if not self._is_done(step)]
        missing = [step for step in left if step in self._survey.missing]
        for step in missing:
            self._record(step, self._survey.missing[step])
        if missing and on_error == "raise":
            raise SweepError(
                f"{len(missing)} of {len(self._steps)} steps cannot be had, the first is step "
                f"{missing[0]}: {self._survey.missing[missing[0]]}. Nothing was evaluated; "
                "on_error='skip' goes on without them"
            ) from self._survey.missing[missing[0]]
        for step in missing:
            self._progress.say(f"step {step} cannot be had and is left out")
        for first, *others in self._survey.same_weights(
            step for step in left if step not in missing
        ):
            sha256 = self._survey.revisions[first].weights_sha256
            if sha256 in self._results_of:
                for step in (first, *others):
                    self._copy(step, self._results_of[sha256])
            else:
                self._queue.append(first)
                self._waiting[first] = tuple(others)

    def _is_done(self, step: int) -> bool:
        """Whether a step's results are there, and of the weights that the series still has."""
        record = read_result(self._folder.path, step)
        if record is None:
            return False
        origin = record["pythia_fast"]
        if origin["run"] != self._folder.hash:
            raise FormatError(
                self._folder.path / result_name(step),
                "it is of another run; remove it to evaluate the step again",
            )
        revision = self._survey.revisions[step]
        if revision.error is None and origin["identity"] != self._series.identity(step):
            now = revision.weights_sha256 or weights_sha256(self._series, step)
            if now != origin["weights_sha256"]:
                raise RunMismatchError(
                    f"the weights of step {step} have changed since their results in "
                    f"{self._folder.path} were computed. Give another `out`, or resume=False"
                )
        if origin["duplicate_of"] is None:
            self._results_of.setdefault(origin["weights_sha256"], step)
        self._finish(step, known=True)
        return True

    def _evaluate(self, device: torch.device, precision: Precision, on_error: OnError) -> None:
        arenas = make_arenas(self._series.spec.architecture, len(self._queue), precision, device)
        resident = Model(arenas[0], self._series.spec, arithmetic=precision.arithmetic)
        coming = prefetch(
            self._series, self._queue, arenas, hashed=True, waiting=self._progress.waiting
        )
        try:
            with closing(coming):
                for loaded in coming:
                    self._next(loaded, resident, precision, on_error)
        finally:
            if resident.checkpoint is not None:
                resident.checkpoint.close()

    def _next(
        self, loaded: Loaded | NotLoaded, resident: Model, precision: Precision, on_error: OnError
    ) -> None:
        step = loaded.step
        if isinstance(loaded, NotLoaded):
            self._fail(step, loaded.error, on_error)
            return
        self._progress.loaded(loaded.times)
        swap(resident, loaded)
        try:
            twin = self._results_of.get(loaded.weights_sha256)
            if twin is not None:
                self._copy(step, twin, loaded)
            else:
                self._results(loaded, resident, precision)
        except RunMismatchError:
            raise
        except Exception as error:
            self._fail(step, error, on_error)
            return
        for other in self._waiting.pop(step, ()):
            self._copy(other, step)

    def _results(self, loaded: Loaded, resident: Model, precision: Precision) -> None:
        """Ask the harness, and keep what it says: the samples first, the results when all is."""
        self._now = loaded.step
        started = time.perf_counter()
        results = self._harness.results(resident, self._answers)
        elapsed_s = time.perf_counter() - started
        self._now = None
        self._progress.computed(elapsed_s)
        samples = results.pop("samples", None) or {}
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
            "remarks": list(self._survey.remarks(loaded.step)),
            "dtype": precision.name,
            "device": device_name(resident.device),
            "version": versions()["pythia-fast"],
            "versions": dict(versions()),
            "compute_s": elapsed_s,
            **loaded.times.to_dict(),
        }
        for task, rows in samples.items():
            lines = "".join(self._harness.json(row) + "\n" for row in rows)
            self._folder.keep(f"samples/step={loaded.step}/{task}.jsonl", lines.encode())
        text = self._harness.json(results | {"pythia_fast": origin}, indent=2) + "\n"
        self._folder.keep(result_name(loaded.step), text.encode())
        self._results_of.setdefault(loaded.weights_sha256, loaded.step)
        self._finish(loaded.step)

    def _copy(self, step: int, first: int, loaded: Loaded | None = None) -> None:
        """Give a step the results of another with the same weights."""
        record = read_result(self._folder.path, first)
        if record is None:
            raise FormatError(self._folder.path / result_name(first), "it has gone meanwhile")
        commit = self._survey.revisions[step].commit
        times = LoadTimes() if loaded is None else loaded.times
        origin = record["pythia_fast"] | {
            "step": step,
            "commit": commit if loaded is None else loaded.checkpoint.commit,
            "identity": self._series.identity(step) if loaded is None else loaded.identity,
            "duplicate_of": first,
            "remarks": list(self._survey.remarks(step)),
            "compute_s": 0.0,
            **times.to_dict(),
        }
        text = json.dumps(record | {"pythia_fast": origin}, indent=2) + "\n"
        self._folder.keep(result_name(step), text.encode())
        self._finish(step, known=True)

    def _finish(self, step: int, *, known: bool = False) -> None:
        self._folder.forget_failure(step)
        self._finished += 1
        if known:
            self._progress.skip(self._harness.tokens, step)
        self._progress.checkpoint_done()

    def _fail(self, step: int, error: Exception, on_error: OnError) -> None:
        """Keep why a step failed; another with the same weights is tried instead."""
        self._now = None
        self._record(step, error)
        if on_error == "raise":
            raise SweepError(
                f"step {step} failed: {type(error).__name__}: {failure_words(error)}. What was "
                f"finished before is kept in {self._folder.path}; on_error='skip' goes on without "
                "such steps"
            ) from error
        self._progress.say(f"step {step} failed and is left out: {error}")
        following, *others = self._waiting.pop(step, ()) or (None,)
        if following is not None:
            self._waiting[following] = tuple(others)
            self._queue.append(following)

    def _record(self, step: int, error: Exception) -> None:
        self._folder.record_failure(Failure(step, type(error).__name__, failure_words(error)))
        self._progress.leave_out(step, self._harness.tokens)
