"""Checkpoint after checkpoint: what is kept, taken up again, shared, left out, refused."""

import json
import shutil
import subprocess
import sys

import pytest

from pythia_fast.errors import (
    FormatError,
    MissingCheckpointError,
    ReadError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
    WriteError,
)
from pythia_fast.evaluation import EvaluationResult
from pythia_fast.evaluation.harness import Harness
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.status import status
from pythia_fast.testing import tiny_suite

CALL = """
import json, sys, pythia_fast
call = json.loads(sys.argv[1])
pythia_fast.evaluate(**call, tasks="local_choices", log_samples=True, progress=False)
"""


def test_the_same_weights_are_asked_once(suite, evaluate, asked):
    result = evaluate(suite)
    assert asked == [0, 8, 64]
    twins = {row["step"]: row["duplicate_of"] for row in result.table.to_pylist()}
    assert twins == {0: None, 1: 0, 8: None, 64: None}
    assert result.results[1]["results"] == result.results[0]["results"]


def test_it_goes_on_where_it_stopped(suite, evaluate, asked):
    evaluate(suite, [8])
    first = (evaluate(suite, [8]).path / "results/step=8.json").read_bytes()
    result = evaluate(suite, [8, 64])
    assert asked == [8, 64]
    assert (result.path / "results/step=8.json").read_bytes() == first
    assert list(result.results) == [8, 64]
    assert list(evaluate(suite, [64]).results) == [64]
    assert list(EvaluationResult(result.path).results) == [8, 64]


def test_resumed_twins_take_what_is_there(suite, evaluate, asked):
    evaluate(suite, [0])
    assert evaluate(suite, [0, 1]).table["duplicate_of"].to_pylist()[-1] == 0
    assert asked == [0]


def test_twins_whose_ranks_would_be_merged_take_what_is_there(evaluate, asked, tmp_path):
    folder = tiny_suite(
        tmp_path / "neox",
        steps=(0, 1, 8, 64),
        layout="gpt-neox ranks",
        model_parallel=2,
        copies={1: 0, 64: 8},
    )
    evaluate(folder, [0])
    result = evaluate(folder)
    assert asked == [0, 8]
    twins = {row["step"]: row["duplicate_of"] for row in result.table.to_pylist()}
    assert twins == {0: None, 1: 0, 8: None, 64: 8}
    assert evaluate(folder).table.equals(result.table)
    assert asked == [0, 8]


def test_weights_that_have_changed(suite, evaluate, tmp_path):
    series = shutil.copytree(suite, tmp_path / "tiny")
    evaluate(series, [8])
    for file in (series / "step64").iterdir():
        shutil.copy(file, series / "step8")
    for file in (series / "step8").glob("*.bin"):
        if not (series / "step64" / file.name).exists():
            file.unlink()
    with pytest.raises(RunMismatchError, match="the weights of step 8 have changed"):
        evaluate(series, [8])


@pytest.mark.parametrize("later", [False, True])
def test_a_failing_step_is_kept_or_raised(suite, evaluate, tmp_path, monkeypatch, later):
    if later:  # it is not damaged yet when the steps are surveyed
        monkeypatch.setattr("pythia_fast.series.LocalSeries._look_into", lambda *_: None)
    series = shutil.copytree(suite, tmp_path / "tiny")
    (weights,) = (each for each in (series / "step8").iterdir() if "model" in each.name)
    whole = weights.read_bytes()
    weights.write_bytes(b"none")
    said = "step 8 failed" if later else "1 of 4 steps cannot be had: step 8: "
    with pytest.raises(SweepError, match=said) as raised:
        evaluate(series)
    assert raised.value.__cause__ is not None
    result = evaluate(series, on_error="skip")
    assert [failure.step for failure in result.failures] == [8]
    assert list(result.results) == [0, 1, 64]
    assert "1 failed" in repr(result)
    weights.write_bytes(whole)
    assert evaluate(series).failures == ()


def test_a_failure_of_the_harness_is_a_step_s(suite, evaluate, monkeypatch):
    original = Harness.results

    def results(self, model, answers):
        if model.step == 0:
            raise ValueError("no such luck")
        return original(self, model, answers)

    monkeypatch.setattr(Harness, "results", results)
    result = evaluate(suite, on_error="skip")
    assert [(each.step, each.error) for each in result.failures] == [(0, "ValueError")]
    assert list(result.results) == [1, 8, 64]  # 1 has the weights of 0, and was asked itself


def test_an_interrupt_keeps_what_is_finished(suite, evaluate, monkeypatch):
    original = Harness.results

    def results(self, model, answers):
        if model.step == 64:
            raise KeyboardInterrupt
        return original(self, model, answers)

    monkeypatch.setattr(Harness, "results", results)
    with pytest.raises(SweepInterruptedError, match="2 of 3 steps are finished"):
        evaluate(suite, [0, 8, 64])
    monkeypatch.undo()
    assert list(evaluate(suite, [0, 8]).results) == [0, 8]


def test_another_series_of_the_same_name_is_refused(suite, evaluate, tmp_path):
    """Only what the folder holds tells the two apart."""
    evaluate(suite, [8])
    other = tiny_suite(tmp_path / "elsewhere/tiny", steps=(8, 64), seed=7)
    with pytest.raises(RunMismatchError, match=r"another series than .*elsewhere"):
        evaluate(other, [64])
    moved = shutil.copytree(suite, tmp_path / "moved/tiny")
    assert list(evaluate(moved, [8, 64]).results) == [8, 64]


def test_steps_that_are_missing(suite, evaluate, asked, tmp_path):
    series = shutil.copytree(suite, tmp_path / "tiny")
    for weights in (series / "step64").glob("*model*"):
        weights.unlink()
    with pytest.raises(SweepError, match=r"1 of 2 steps cannot be had: step 64.*Nothing was"):
        evaluate(series, [8, 64])
    assert asked == []
    result = evaluate(series, [8, 64], on_error="skip")
    assert list(result.results) == [8]
    assert [failure.step for failure in result.failures] == [64]
    assert [(gap.step, gap.reason[:6]) for gap in result.gaps] == [(64, "failed")]


def test_steps_that_the_hub_has_not(remote, evaluate):
    remote.broken = {64: MissingCheckpointError("no such branch")}
    with pytest.raises(SweepError, match="step 64: no such branch"):
        evaluate("tiny", [8, 64])
    assert remote.opened == []
    assert list(evaluate("tiny", [8, 64], on_error="skip").results) == [8]


def test_a_branch_that_has_moved(remote, evaluate):
    first = evaluate("tiny", [8]).results[8]["pythia_fast"]["commit"]
    remote.moved = {8, 64}
    result = evaluate("tiny", [8, 64])
    assert remote.pinned == {8: first}
    assert remote.opened == [8, 64]
    shutil.rmtree(remote.folder / "step8")
    shutil.copytree(remote.folder / "step64", remote.folder / "step8")
    remote.pinned = {}
    with pytest.raises(RunMismatchError, match="weights of step 8 have changed on the Hub") as told:
        evaluate("tiny", [8])
    assert str(result.path / "results/step=8.json") in str(told.value)


def test_what_is_known_to_be_the_same_is_not_loaded(remote, evaluate, asked):
    evaluate("tiny", [0])
    result = evaluate("tiny", [0, 1])
    assert remote.opened == asked == [0]
    assert result.results[1]["pythia_fast"]["commit"] == remote.identity(1)
    assert result.results[1]["pythia_fast"]["duplicate_of"] == 0
    assert len(evaluate("tiny").results) == 4
    assert remote.opened == asked == [0, 8, 64]


def test_where_a_step_fails_the_next_with_its_weights_is_tried(remote, evaluate, asked):
    remote.failing = {0: ReadError("no luck")}
    result = evaluate("tiny", on_error="skip")
    assert asked == [8, 64, 1]
    assert [failure.step for failure in result.failures] == [0]
    remote.failing = {}
    assert evaluate("tiny").results[0]["pythia_fast"]["duplicate_of"] == 1
    assert asked == [8, 64, 1]


@pytest.fixture
def disk(monkeypatch):
    """What happens to files with these names: an error, or other bytes."""
    fate = {}
    keep = RunFolder.keep

    def kept(self, name, data):
        if isinstance(fate.get(name), Exception):
            raise fate[name]
        return keep(self, name, fate.get(name, data))

    monkeypatch.setattr(RunFolder, "keep", kept)
    return fate


@pytest.mark.parametrize("known", [False, True], ids=["loaded", "known before"])
def test_a_copy_that_fails_is_the_step_s_failure(suite, evaluate, disk, request, known):
    model = request.getfixturevalue("remote").folder if known else suite
    disk["results/step=1.json"] = WriteError(28, "no room")
    result = evaluate(model, [0, 1, 8], on_error="skip")
    assert list(result.results) == [0, 8]
    assert [(each.step, each.error) for each in result.failures] == [(1, "WriteError")]
    with pytest.raises(SweepError, match=r"step 1 failed: .*no room"):
        evaluate(model, [0, 1, 8])
    disk.clear()
    assert evaluate(model, [0, 1, 8]).failures == ()


@pytest.mark.parametrize("known", [False, True], ids=["loaded", "known before"])
def test_a_step_is_evaluated_where_its_twin_is_damaged(
    suite, evaluate, disk, asked, request, known
):
    model = request.getfixturevalue("remote").folder if known else suite
    disk["results/step=0.json"] = b"{"
    path = evaluate(model, [0, 1], on_error="skip").path
    assert asked == [0, 1]
    assert EvaluationResult(path, steps=[1]).results[1]["pythia_fast"]["duplicate_of"] is None


def test_damaged_results_are_the_step_s_failure(suite, evaluate, asked):
    file = evaluate(suite, [8]).path / "results/step=8.json"
    whole = file.read_text()
    for text in ("{", whole.replace('"step": 8', '"step": 9')):
        file.write_text(text)
        with pytest.raises(SweepError, match=r"step 8 failed: .*remove it") as raised:
            evaluate(suite, [8])
        assert isinstance(raised.value.__cause__, FormatError)
    evaluate(suite, [8, 64], on_error="skip")
    assert asked == [8, 64]
    file.unlink()
    assert evaluate(suite, [8, 64]).failures == ()
    assert asked == [8, 64, 8]


def test_a_step_that_another_process_has_finished_meanwhile(suite, evaluate, monkeypatch):
    asked = []
    original = Harness.results

    def results(self, model, answers):
        asked.append(model.step)
        if asked == [8]:
            evaluate(suite, [64])
        return original(self, model, answers)

    monkeypatch.setattr(Harness, "results", results)
    evaluate(suite, [8, 64])
    assert asked == [8, 64]


def test_samples_are_those_of_the_results_beside_them(suite, evaluate, monkeypatch):
    """Of two processes that compute a step at the same time the first one's results stay."""
    original = Harness.results
    asked = []

    def results(self, model, answers):
        asked.append(model.step)
        own = original(self, model, answers)
        if asked == [8]:
            evaluate(suite, [8], log_samples=True)
            for sample in own["samples"]["local_choices"]:
                sample["acc"] = "another machine's"
        return own

    monkeypatch.setattr(Harness, "results", results)
    result = evaluate(suite, [8], log_samples=True)
    assert asked == [8, 8]
    told = [sample["acc"] for sample in result.samples(8, "local_choices")]
    assert sum(told) / len(told) == result.results[8]["results"]["local_choices"]["acc,none"]


def test_two_processes_in_one_folder(suite, definitions, evaluate, tmp_path):
    call = {"model": str(suite), "out": str(tmp_path / "both"), "include_path": str(definitions)}
    call |= {"limit": 3, "dtype": "float32"}
    both = [
        subprocess.Popen([sys.executable, "-c", CALL, json.dumps(call)], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    found = EvaluationResult(tmp_path / "both")
    alone = evaluate(suite, tasks="local_choices", log_samples=True)
    assert found.table.drop_columns("duplicate_of") == alone.table.drop_columns("duplicate_of")
    for step in alone.results:
        assert found.samples(step, "local_choices") == alone.samples(step, "local_choices")
    assert not list((tmp_path / "both").rglob("*.partial"))


def test_who_evaluates_what_is_told_while_it_does(suite, evaluate, tmp_path, until, monkeypatch):
    monkeypatch.setattr("pythia_fast.runs.folder.presence._LEAST_S", 0.01)
    results, seen = Harness.results, []

    def looking(self, model, answers):
        until(lambda: f"cpu: step {model.step} for" in str(status(tmp_path / "out")))
        seen.append(status(tmp_path / "out"))
        return results(self, model, answers)

    monkeypatch.setattr(Harness, "results", looking)
    result = evaluate(suite, [0, 1, 8], out=tmp_path / "out")
    assert [each.counts["evaluation"].done for each in seen] == [0, 2]
    after = status(result.path)
    assert (after.complete, after.present) == (True, ())
