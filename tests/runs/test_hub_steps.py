"""What a sweep does with a series whose commits, files and hashes are known beforehand."""

import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from damaged_parts import flipped

import pythia_fast
from pythia_fast.errors import (
    ChecksumError,
    MissingCheckpointError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
    WriteError,
)
from pythia_fast.runs.folder.parts import read_provenance
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps.todo import Todo

Sweep = Callable[..., pythia_fast.SweepResult]
Interrupted = Callable[[Callable[[], bool]], AbstractContextManager[None]]
PART = "parts/step=0/perplexity-00000.parquet"
STEPS = [0, 1, 2, 4, 8, 16]


def same_weights(remote: Any, step: int, first: int) -> None:
    """Let a step have the files of another."""
    shutil.rmtree(remote.folder / f"step{step}")
    shutil.copytree(remote.folder / f"step{first}", remote.folder / f"step{step}")


def after_the_survey(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Let something happen when it is known what is left, before anything is computed."""
    look_again = Todo.look_again

    def later(todo: Todo, *arguments: Any) -> None:
        do()
        look_again(todo, *arguments)

    monkeypatch.setattr(Todo, "look_again", later)


class Counting(pythia_fast.Perplexity):
    """Perplexity that remembers at which steps it was computed, and may fail there."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "fails_at", {})

    @property
    def settings(self) -> dict:
        return {}

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
        self.seen.append(model.step)
        if model.step in self.fails_at:
            raise self.fails_at[model.step]
        return dict(super().__call__(model, batch))


class TestMissing:
    def test_all_are_named_before_anything_is_done(
        self, small_sweep: Sweep, remote: Any, tmp_path: Path
    ) -> None:
        for step in (2, 8):
            remote.broken[step] = MissingCheckpointError(f"no branch step{step}")
        with pytest.raises(SweepError, match=r"2 of 6 steps cannot be had: .*step2.*step8") as e:
            small_sweep()
        assert isinstance(e.value.__cause__, MissingCheckpointError)
        assert remote.opened == remote.ahead_of == []
        assert not (tmp_path / "run/parts").exists()
        failures = pythia_fast.SweepResult(tmp_path / "run").failures
        assert [failure.step for failure in failures] == [2, 8]

    def test_the_others_go_on_without_them(
        self, small_sweep: Sweep, remote: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for step in (2, 8):
            remote.broken[step] = MissingCheckpointError(f"no branch step{step}")
        result = small_sweep(on_error="skip", progress=True)
        assert result.table["step"].to_pylist() == [0, 1, 4, 16]
        assert [failure.step for failure in result.failures] == [2, 8]
        assert remote.ahead_of == [(0, 1, 4, 16)]
        assert "2 of 6 steps cannot be had" in capsys.readouterr().err

    def test_many_are_all_named(self, small_sweep: Sweep, remote: Any) -> None:
        for step in STEPS[1:]:
            remote.broken[step] = MissingCheckpointError(f"no branch step{step}")
        with pytest.raises(SweepError, match=r"5 of 6 .*and likewise 16\. Nothing was downloaded"):
            small_sweep()

    def test_a_step_that_is_done_may_go_missing(
        self, small_sweep: Sweep, remote: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = small_sweep().table
        remote.broken[4] = MissingCheckpointError("no branch step4")
        result = small_sweep(progress=True)
        assert result.table.equals(before)
        assert result.failures == ()
        assert (
            "step 4 is kept, but it cannot be had now: no branch step4" in capsys.readouterr().err
        )


class TestCommits:
    def test_they_are_kept_and_in_the_results(self, small_sweep: Sweep, remote: Any) -> None:
        result = small_sweep()
        for row in result.table.to_pylist():
            record = json.loads((result.path / f"commits/step={row['step']}.json").read_text())
            assert row["commit"] == record["commit"] == remote.branch(row["step"])
            assert record["weights_sha256"] == row["weights_sha256"] == remote.digest(row["step"])

    @pytest.mark.parametrize("done", [True, False], ids=["done", "to do"])
    def test_other_weights_are_refused_until_they_are_accepted(
        self, small_sweep: Sweep, remote: Any, done: bool, tmp_path: Path
    ) -> None:
        if done:
            small_sweep(steps=[2])
        else:
            remote.failing[2] = ChecksumError("flipped")
            with pytest.raises(SweepError):
                small_sweep(steps=[2])
            del remote.failing[2]
        remote.opened.clear()
        same_weights(remote, 2, 8)
        with pytest.raises(RunMismatchError, match="weights of step 2 have changed on") as caught:
            small_sweep(steps=[2])
        assert remote.opened == []
        pinned, parts = tmp_path / "run/commits/step=2.json", tmp_path / "run/parts/step=2"
        assert str(pinned) in str(caught.value)
        assert str(parts) in str(caught.value)
        pinned.unlink()
        shutil.rmtree(parts, ignore_errors=True)
        (row,) = small_sweep(steps=[2]).table.to_pylist()
        assert row["weights_sha256"] == remote.digest(8)

    def test_a_branch_that_moves_with_the_same_weights_is_left_where_it_was(
        self, small_sweep: Sweep, remote: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        then = remote.branch(4)
        remote.failing[4] = ChecksumError("flipped")
        small_sweep(on_error="skip")
        remote.failing.clear()
        (remote.folder / "step4/README.md").write_text("new")
        assert remote.branch(4) != then
        rows = small_sweep(progress=True).table.to_pylist()
        assert [row["commit"] for row in rows if row["step"] == 4] == [then]
        assert f"going on with commit {then[:12]}" in capsys.readouterr().err

    def test_also_of_a_step_that_takes_another_s_results(
        self, small_sweep: Sweep, remote: Any
    ) -> None:
        same_weights(remote, 1, 0)
        then = remote.branch(1)
        result = small_sweep(steps=[0, 1])
        shutil.rmtree(result.path / "parts/step=1")
        (remote.folder / "step1/README.md").write_text("new")
        assert remote.branch(1) != then
        rows = small_sweep(steps=[0, 1]).table.to_pylist()
        assert [(row["commit"], row["duplicate_of"]) for row in rows] == [
            (remote.branch(0), None),
            (then, 0),
        ]
        part = result.path / "parts/step=1/perplexity-00000.parquet"
        assert read_provenance(part)["identity"] == then

    def test_a_commit_that_is_gone_says_how_to_go_on(
        self, small_sweep: Sweep, remote: Any, tmp_path: Path
    ) -> None:
        small_sweep(steps=[4])
        shutil.rmtree(tmp_path / "run/parts")
        (remote.folder / "step4/README.md").write_text("new")
        remote.gone = {4: MissingCheckpointError("no such commit")}
        pinned = tmp_path / "run/commits/step=4.json"
        with pytest.raises(SweepError, match=f"no such commit; .* remove {pinned}"):
            small_sweep(steps=[4])
        remote.gone, remote.commits = {}, {}
        pinned.unlink()
        (row,) = small_sweep(steps=[4]).table.to_pylist()
        assert row["commit"] == remote.branch(4)


class TestSameWeights:
    def test_they_are_fetched_and_computed_once(self, small_sweep: Sweep, remote: Any) -> None:
        same_weights(remote, 1, 0)
        same_weights(remote, 8, 0)
        metric = Counting()
        result = small_sweep(metrics=[metric], batch_tokens=10_000)
        assert remote.ahead_of == [(0, 2, 4, 16)]
        assert Counter(remote.opened) == Counter(metric.seen) == Counter([0, 2, 4, 16])
        rows = {row["step"]: row for row in result.table.to_pylist()}
        assert list(rows) == STEPS
        for step in (1, 8):
            assert rows[step]["duplicate_of"] == 0
            assert rows[step]["commit"] == remote.branch(step)
            for key in ("value", "loss", "weights_sha256", "status", "sequences"):
                assert rows[step][key] == rows[0][key]
        assert [rows[step]["duplicate_of"] for step in (0, 2, 4, 16)] == [None] * 4

    def test_one_that_was_finished_before_is_enough(self, small_sweep: Sweep, remote: Any) -> None:
        same_weights(remote, 1, 0)
        small_sweep(steps=[0])
        remote.opened.clear()
        rows = small_sweep(steps=[0, 1]).table.to_pylist()
        assert remote.opened == []
        assert [row["duplicate_of"] for row in rows] == [None, 0]

    def test_a_copy_is_no_first(self, small_sweep: Sweep, remote: Any) -> None:
        same_weights(remote, 1, 0)
        result = small_sweep(steps=[0, 1])
        before = result.table
        shutil.rmtree(result.path / "parts/step=0")
        remote.opened.clear()
        assert small_sweep(steps=[0, 1]).table.equals(before)
        assert remote.opened == [0]

    def test_results_that_are_damaged_are_not_taken(
        self, small_sweep: Sweep, remote: Any, tmp_path: Path
    ) -> None:
        """They are computed again, and taken then."""
        same_weights(remote, 1, 0)
        same_weights(remote, 2, 0)
        whole = small_sweep(steps=[0, 1, 2], out=tmp_path / "whole").table
        result = small_sweep(steps=[0])
        flipped(result.path / PART)
        remote.opened.clear()
        result = small_sweep(steps=[0, 1, 2])
        assert remote.opened == [0]
        assert result.failures == result.gaps == ()
        assert result.table["value"].equals(whole["value"])
        assert result.table["duplicate_of"].to_pylist() == [None, 0, 0]

    def test_nor_are_those_that_are_damaged_meanwhile(
        self,
        small_sweep: Sweep,
        remote: Any,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Nor are they computed twice: the others take those of the step that is."""
        same_weights(remote, 1, 0)
        same_weights(remote, 2, 0)
        result = small_sweep(steps=[0])
        remote.opened.clear()
        after_the_survey(monkeypatch, lambda: flipped(result.path / PART))
        result = small_sweep(steps=[0, 1, 2], progress=True)
        assert "step 1 is computed although step 0 has" in capsys.readouterr().err
        assert remote.opened == [1]
        assert result.failures == ()
        rows = result.table
        assert rows["step"].to_pylist() == [1, 2]
        assert rows["duplicate_of"].to_pylist() == [None, 1]
        assert [(gap.step, gap.state) for gap in result.gaps] == [(0, "damaged")]

    def test_also_where_their_weights_are_known_when_they_are_loaded(
        self, small_sweep: Sweep, tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(shutil.copytree(tiny_series, tmp_path / "tiny"))
        shutil.rmtree(folder / "step1")
        shutil.copytree(folder / "step0", folder / "step1")
        result = small_sweep(model=folder, steps=[0])
        after_the_survey(monkeypatch, lambda: flipped(result.path / PART))
        result = small_sweep(model=folder, steps=[0, 1])
        assert result.failures == ()
        (row,) = result.table.to_pylist()
        assert (row["step"], row["duplicate_of"]) == (1, None)

    def test_the_next_is_tried_where_the_first_cannot_be_had(
        self, small_sweep: Sweep, remote: Any
    ) -> None:
        for step in (8, 16):
            same_weights(remote, step, 2)
        remote.failing[2] = ChecksumError("flipped")
        result = small_sweep(on_error="skip")
        rows = {row["step"]: row for row in result.table.to_pylist()}
        assert list(rows) == [0, 1, 4, 8, 16]
        assert (rows[8]["duplicate_of"], rows[16]["duplicate_of"]) == (None, 8)
        assert [(f.step, f.error) for f in result.failures] == [(2, "ChecksumError")]

    def test_all_fail_if_none_can_be_had(self, small_sweep: Sweep, remote: Any) -> None:
        same_weights(remote, 16, 2)
        remote.failing = {2: ChecksumError("flipped"), 16: ChecksumError("flipped, too")}
        result = small_sweep(on_error="skip")
        assert [(f.step, f.message) for f in result.failures] == [
            (2, "flipped"),
            (16, "flipped, too"),
        ]
        assert result.table["step"].to_pylist() == [0, 1, 4, 8]

    def test_the_last_one_s_results_that_cannot_be_written(
        self, small_sweep: Sweep, remote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It fails when nothing is left in the queue, and the other is loaded all the same."""
        publish = RunFolder.publish

        def failing(self: RunFolder, unit: Any, *arguments: Any) -> None:
            if unit.step == 8:
                raise WriteError(28, "the disk is full")
            publish(self, unit, *arguments)

        monkeypatch.setattr(RunFolder, "publish", failing)
        same_weights(remote, 16, 8)
        remote.room = threading.Semaphore(1)
        result = small_sweep(on_error="skip")
        assert [(f.step, f.error) for f in result.failures] == [(8, "WriteError")]
        rows = {row["step"]: row for row in result.table.to_pylist()}
        assert rows[16]["duplicate_of"] is None

    def test_results_of_a_twin_that_cannot_be_written_are_its_own_failure(
        self, small_sweep: Sweep, remote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish = RunFolder.publish

        def failing(self: RunFolder, unit: Any, *arguments: Any) -> None:
            if unit.step == 1:
                raise WriteError(28, "the disk is full")
            publish(self, unit, *arguments)

        monkeypatch.setattr(RunFolder, "publish", failing)
        same_weights(remote, 1, 0)
        result = small_sweep(on_error="skip")
        assert [(f.step, f.error) for f in result.failures] == [(1, "WriteError")]
        assert result.table["step"].to_pylist() == [0, 2, 4, 8, 16]

    def test_each_is_computed_where_rows_differ_by_step(
        self, small_sweep: Sweep, remote: Any
    ) -> None:
        same_weights(remote, 4, 2)
        metric = Counting()
        rows = small_sweep(metrics=[metric], sequences="seen", steps=[1, 2, 4]).table.to_pylist()
        assert set(metric.seen) == {1, 2, 4}
        assert [row["duplicate_of"] for row in rows] == [None] * 3
        assert remote.ahead_of == [(1, 2, 4)]


class TestAnomalies:
    def test_they_are_said_and_kept(
        self, small_sweep: Sweep, remote: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        result = small_sweep(progress=True)
        assert "known of step 0, 1: identical" in capsys.readouterr().err
        assert set(result.remarks) == {0, 1}
        assert "pythia/issues/83" in result.remarks[0][0]
        assert pythia_fast.SweepResult(result.path, steps=[2, 4]).remarks == {}

    def test_not_of_steps_that_are_not_touched(
        self, small_sweep: Sweep, remote: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert small_sweep(steps=[0, 2], progress=True).remarks == {}
        assert "known of" not in capsys.readouterr().err


class TestPipeline:
    def test_a_disk_for_one_checkpoint_is_enough(self, small_sweep: Sweep, remote: Any) -> None:
        remote.room = threading.Semaphore(1)
        assert len(small_sweep()) == 6
        assert all(lease.closed for lease in remote.leases)

    def test_also_for_a_stream(self, remote: Any) -> None:
        remote.room = threading.Semaphore(1)
        assert [step for step, _ in pythia_fast.stream("14m")] == STEPS
        assert [lease.closed for lease in remote.leases] == [True] * 5 + [False]

    def test_a_model_that_was_loaded_keeps_its_checkpoint(self, remote: Any) -> None:
        model = pythia_fast.load("14m", 4)
        assert model.checkpoint is not None
        assert [lease.closed for lease in remote.leases] == [False]

    @pytest.mark.parametrize(
        ("error", "raised"),
        [(KeyboardInterrupt(), SweepInterruptedError), (RuntimeError("no"), SweepError)],
    )
    def test_the_end_waits_for_no_download(
        self, small_sweep: Sweep, remote: Any, error: BaseException, raised: type
    ) -> None:
        remote.hanging = {1}
        metric = Counting()
        metric.fails_at[0] = error
        with pytest.raises(raised):
            small_sweep(metrics=[metric])
        assert remote.left.is_set()
        assert all(lease.closed for lease in remote.leases)

    def test_an_interrupt_while_nothing_has_come_yet(
        self, small_sweep: Sweep, remote: Any, interrupted: Interrupted
    ) -> None:
        remote.hanging = {0}
        with (
            interrupted(remote.hangs.is_set),
            pytest.raises(SweepInterruptedError, match="0 of 6 steps"),
        ):
            small_sweep()
        assert remote.left.is_set()

    def test_an_interrupt_while_the_steps_are_looked_up(
        self, small_sweep: Sweep, remote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(steps: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(remote, "survey", interrupted)
        with pytest.raises(SweepInterruptedError, match="0 of 6 steps"):
            small_sweep()

    @pytest.mark.parametrize(
        "place", ["engines.LocalEngine", "sweeping.Progress", "sweeping.SweepResult"]
    )
    def test_an_interrupt_before_and_after_the_work(
        self, small_sweep: Sweep, remote: Any, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(f"pythia_fast.runs.{place}", interrupted)
        with pytest.raises(SweepInterruptedError, match="the same call goes on"):
            small_sweep()

    def test_what_is_to_be_done_is_said_before_it_begins(
        self, small_sweep: Sweep, remote: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        same_weights(remote, 1, 0)
        small_sweep(progress=True, steps=[0, 1, 2], disk_budget="300kB")
        (line,) = [each for each in capsys.readouterr().err.splitlines() if "steps to load" in each]
        assert re.fullmatch(
            r"2 steps to load, [\d.]+ kB to download, 300 kB of disk needed, 24 sequences of 80 "
            r"tokens \(all there are: fewer than 512\), [\d.e+]+ "
            "floating-point operations; 1 more has the same weights as others",
            line,
        )

    def test_the_type_of_another_s_error_is_told(self, small_sweep: Sweep, remote: Any) -> None:
        remote.failing[0] = KeyError("a bug of ours")
        with pytest.raises(SweepError, match="step 0 failed: KeyError: 'a bug of ours'"):
            small_sweep()
        remote.failing[0] = ChecksumError("flipped")
        with pytest.raises(SweepError, match="step 0 failed: flipped"):
            small_sweep()

    def test_the_bar_is_full_at_the_end_whatever_failed(
        self, small_sweep: Sweep, remote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remote.broken[1] = MissingCheckpointError("no branch step1")
        remote.failing[2] = ChecksumError("flipped")
        metric = Counting()
        metric.fails_at[4] = RuntimeError("no")
        lines = []
        leave = Progress.__exit__

        def left(self: Progress, *error: Any) -> None:
            lines.append(self.line())
            leave(self, *error)

        monkeypatch.setattr(Progress, "__exit__", left)
        for _ in range(2):
            small_sweep(metrics=[metric], on_error="skip")
        for line in lines:
            done, whole = re.search(r"([\d,]+)/([\d,]+) tokens", line).groups()  # type: ignore[union-attr]
            assert done == whole

    def test_the_disk_budget_is_the_series(
        self, small_sweep: Sweep, remote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def open_series(model: object, **options: object) -> object:
            asked.append(options["disk_budget"])
            return remote

        for module in ("runs.sweeping", "streaming.resident", "runs.forecast.here"):
            monkeypatch.setattr(f"pythia_fast.{module}.open_series", open_series)
        small_sweep(steps=[0], disk_budget="1GB")
        pythia_fast.load("14m", 0, disk_budget="2GB")
        pythia_fast.stream("14m", disk_budget=3)
        pythia_fast.plan("14m", [0], sequences=1, disk_budget="4 GB", network=1)
        assert asked == ["1GB", "2GB", 3, "4 GB"]

    def test_what_was_loaded_in_vain_is_closed(self, small_sweep: Sweep, remote: Any) -> None:
        metric = Counting()
        metric.fails_at[2] = RuntimeError("no")
        with pytest.raises(SweepError):
            small_sweep(metrics=[metric])
        assert all(lease.closed for lease in remote.leases)

    def test_a_stream_that_is_left_stops_the_downloads(self, remote: Any) -> None:
        remote.hanging = {1}
        for step, _ in pythia_fast.stream("14m"):
            assert step == 0
            break
        assert remote.left.wait(60)


class TestTimes:
    def test_every_step_says_where_its_time_went(self, small_sweep: Sweep, remote: Any) -> None:
        same_weights(remote, 1, 0)
        result = small_sweep(metrics=["perplexity", "memorization"])
        rows = {row["step"]: row for row in result.times.to_pylist()}
        assert list(rows) == STEPS
        for step in (0, 2, 4, 8, 16):
            assert rows[step]["download_s"] == 2.0
            assert rows[step]["room_s"] == 0.5
            assert rows[step]["verify_s"] >= 0.25
            assert rows[step]["received_bytes"] == 1000
            assert rows[step]["read_s"] > 0
            assert rows[step]["compute_s"] > 0
            assert rows[step]["wait_s"] >= 0
            assert rows[step]["copy_s"] == 0
        assert {value for key, value in rows[1].items() if key != "step"} == {0}

    def test_a_step_that_was_loaded_twice_took_both_times(
        self, small_sweep: Sweep, remote: Any
    ) -> None:
        result = small_sweep(metrics=["perplexity", "memorization"], steps=[2])
        once = result.times.to_pylist()[0]
        (result.path / "parts/step=2/memorization-00000.parquet").unlink()
        twice = small_sweep(metrics=["perplexity", "memorization"], steps=[2]).times.to_pylist()[0]
        assert twice["download_s"] == 2 * once["download_s"]
        assert twice["received_bytes"] == 2000

    def test_without_results_there_are_no_times(self, small_sweep: Sweep, remote: Any) -> None:
        remote.failing[2] = ChecksumError("flipped")
        times = small_sweep(steps=[2], on_error="skip").times
        assert (len(times), times.column_names[0]) == (0, "step")
