"""Reading, computing and writing at the same time: nobody waits, and no failure is lost."""

import errno
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import pythia_fast
from pythia_fast.errors import SweepError, SweepInterruptedError, WriteError
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.streaming.prefetching import Loaded

Sweep = Callable[..., pythia_fast.SweepResult]


@pytest.fixture
def failing_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the results of some steps not be written."""
    publish = RunFolder.publish

    def fail_at(*steps: int, after: threading.Event | None = None) -> None:
        def failing(self: RunFolder, unit: Any, *arguments: Any) -> None:
            if unit.step in steps:
                assert after is None or after.wait(60)
                raise WriteError(errno.ENOSPC, "the disk is full")
            publish(self, unit, *arguments)

        monkeypatch.setattr(RunFolder, "publish", failing)

    return fail_at


def interrupted_at_step_4(reached: threading.Event) -> pythia_fast.Perplexity:
    """A metric at which the user interrupts."""

    class Interrupted(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            if model.step == 4:
                reached.set()
                raise KeyboardInterrupt
            return dict(super().__call__(model, batch))

    return Interrupted()


def test_a_step_is_computed_while_the_one_before_is_written(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, begun = RunFolder.publish, {step: threading.Event() for step in (0, 1, 2)}

    def patient(self: RunFolder, unit: Any, *arguments: Any) -> None:
        after = begun.get(unit.step + 1)
        assert after is None or after.wait(60), "nothing was computed meanwhile"
        publish(self, unit, *arguments)

    class Telling(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            begun[model.step].set()
            return dict(super().__call__(model, batch))

    monkeypatch.setattr(RunFolder, "publish", patient)
    table = small_sweep(metrics=[Telling()], steps=[0, 1, 2]).table
    assert table["step"].to_pylist() == [0, 1, 2]


def test_the_next_checkpoint_is_read_while_one_is_computed(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, read = pythia_fast.streaming.prefetching._load, {}

    def telling(series: Any, step: int, *arguments: Any) -> Loaded:
        loaded = load(series, step, *arguments)
        read.setdefault(step, threading.Event()).set()
        return loaded

    class Patient(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            following = {0: 1, 1: 2}.get(model.step)
            if following is not None:
                assert read.setdefault(following, threading.Event()).wait(60)
            return dict(super().__call__(model, batch))

    monkeypatch.setattr(pythia_fast.streaming.prefetching, "_load", telling)
    assert len(small_sweep(metrics=[Patient()], steps=[0, 1, 2]).table) == 3


@pytest.mark.parametrize("steps", [(0,), (2,), (16,), (0, 1), (8, 16)])
def test_results_that_cannot_be_written_are_failures_of_their_own_step(
    small_sweep: Sweep, failing_disk: Callable[..., None], steps: tuple[int, ...]
) -> None:
    failing_disk(*steps)
    result = small_sweep(on_error="skip")
    assert [failure.step for failure in result.failures] == list(steps)
    assert {failure.error for failure in result.failures} == {"WriteError"}
    assert result.table["step"].to_pylist() == [n for n in (0, 1, 2, 4, 8, 16) if n not in steps]


@pytest.mark.parametrize("step", [0, 2, 16])
def test_a_sweep_stops_at_results_that_cannot_be_written(
    small_sweep: Sweep, failing_disk: Callable[..., None], step: int
) -> None:
    failing_disk(step)
    with pytest.raises(SweepError, match=f"step {step} failed: .*the disk is full"):
        small_sweep()


def test_a_disk_that_is_full_is_told_before_a_step_is_through(
    small_sweep: Sweep, failing_disk: Callable[..., None]
) -> None:
    failing_disk(1)
    with pytest.raises(SweepError, match="step 1 failed"):
        small_sweep(metrics=["perplexity", "memorization"])


def test_a_step_whose_results_fail_while_the_next_fails_too(
    small_sweep: Sweep, failing_disk: Callable[..., None]
) -> None:
    class Failing(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            if model.step == 4:
                raise RuntimeError("no")
            return dict(super().__call__(model, batch))

    failing_disk(2)
    result = small_sweep(metrics=[Failing()], on_error="skip")
    assert [(f.step, f.error) for f in result.failures] == [(2, "WriteError"), (4, "RuntimeError")]
    assert result.table["step"].to_pylist() == [0, 1, 8, 16]


def test_an_interrupt_waits_for_what_is_being_written(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, interrupted = RunFolder.publish, threading.Event()

    def slow(self: RunFolder, unit: Any, *arguments: Any) -> None:
        if unit.step == 2:
            assert interrupted.wait(60)
        publish(self, unit, *arguments)

    monkeypatch.setattr(RunFolder, "publish", slow)
    with pytest.raises(SweepInterruptedError, match="3 of 6 steps are finished"):
        small_sweep(metrics=[interrupted_at_step_4(interrupted)])


def test_an_interrupt_wins_over_results_that_cannot_be_written(
    small_sweep: Sweep, failing_disk: Callable[..., None]
) -> None:
    interrupted = threading.Event()
    failing_disk(2, after=interrupted)
    words = "2 of 6 steps are finished.*Meanwhile step 2 failed: .*the disk is full"
    with pytest.raises(SweepInterruptedError, match=words):
        small_sweep(metrics=[interrupted_at_step_4(interrupted)])


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_step_that_fails_tells_of_its_results_that_cannot_be_written(
    small_sweep: Sweep, failing_disk: Callable[..., None], on_error: str
) -> None:
    failed = threading.Event()
    failing_disk(2, after=failed)

    class Failing:
        name = "failing"

        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            if model.step == 2:
                failed.set()
                raise RuntimeError("no such thing")
            return {"zero": [0] * len(batch.rows_B)}

        def summarize(self, sequences: object) -> dict[str, float]:
            return {"zero": 0.0}

    words = r"no such thing \(.*\); results of step 2 were not written: .*the disk is full"
    if on_error == "raise":
        with pytest.raises(SweepError, match=f"step 2 failed: RuntimeError: {words}"):
            small_sweep(metrics=["perplexity", Failing()])
    else:
        (failure,) = small_sweep(metrics=["perplexity", Failing()], on_error="skip").failures
        assert (failure.step, failure.error) == (2, "RuntimeError")
        assert re.match(words, failure.message)


def test_a_failure_that_cannot_be_forgotten_is_told_of_its_own_step(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All its results are there, so that it is none of the sweep's failures."""
    forget = RunFolder.forget_failure

    def failing(self: RunFolder, step: int) -> None:
        if step == 2:
            raise PermissionError(errno.EACCES, "not yours")
        forget(self, step)

    monkeypatch.setattr(RunFolder, "forget_failure", failing)
    result = small_sweep(on_error="skip", progress=True)
    assert "step 2 failed and is left out: PermissionError" in capsys.readouterr().err
    assert result.failures == ()
    assert result.table["step"].to_pylist() == [0, 1, 2, 4, 8, 16]


def test_what_is_written_is_not_asked_for_again_with_each_shard(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of n shards that would be n² / 2 questions: 276 here, and minutes for millions."""
    asked = []
    done = Future.done
    monkeypatch.setattr(Future, "done", lambda self: asked.append(self) or done(self))
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 1)
    small_sweep(steps=[4])
    assert len(asked) <= 3 * 24
