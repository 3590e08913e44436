"""`pythia-fast status`, and `pythia-fast sweep --worker`."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def shared(run, suite, tokens, tmp_path) -> Path:
    """A sweep of which the first of two shares is done."""
    arguments = ("sweep", suite, "--tokens", tokens, "--out", tmp_path / "runs/tiny", "--quiet")
    table = run(*arguments, "--worker", "1/2").stdout
    assert len(table.splitlines()) == 1 + 3
    return tmp_path / "runs/tiny"


def test_it_ends_with_4_until_all_is_done(run, shared, suite, tokens):
    told = run("status", shared, exit_code=4).stdout
    assert f"{shared}: sweep of tiny" in told
    assert "3 of 6 steps done, 3 not begun" in told
    assert "nobody works on it" in told
    arguments = ("sweep", suite, "--tokens", tokens, "--out", shared, "--quiet")
    run(*arguments, "--worker", "2/2")
    assert "6 of 6 steps done" in run("status", shared).stdout


def test_a_folder_of_runs_as_json(run, shared, evaluated):
    evaluated.rename(shared.parent / "eval")
    told = json.loads(run("status", shared.parent, shared, "--json", exit_code=4).stdout)
    assert [(each["kind"], each["complete"]) for each in told["runs"]] == [
        ("evaluation", False),
        ("sweep", False),
    ]
    assert told["runs"][0]["counts"]["evaluation"]["done"] == 3
    assert {gap["step"] for gap in told["runs"][0]["gaps"]} == {2000}
    assert told["runs"][1]["counts"]["perplexity"]["not_begun"] == 3


def test_runs_and_folders_of_runs_side_by_side(run, shared, suite, tokens):
    runs = shared.parent
    (runs / "pair").mkdir()
    shared.rename(runs / "pair/tiny")
    arguments = ("--steps", "0", "--tokens", tokens, "--out", runs / "alone", "--quiet")
    run("sweep", suite, *arguments)
    told = json.loads(run("status", runs, "--json", exit_code=4).stdout)
    assert [each["path"] for each in told["runs"]] == [
        str(runs / "alone"),
        str(runs / "pair/tiny"),
    ]


def test_bad_input(run, tmp_path, suite, tokens, monkeypatch):
    assert "no run.json" in run("status", tmp_path, exit_code=3).stderr
    assert "there is no folder" in run("status", tmp_path / "nowhere", exit_code=3).stderr
    run("status", exit_code=2)
    sweep = ("sweep", suite, "--tokens", tokens, "--quiet", "--worker")
    for worker in ("3", "1/x", "slurms", "-1/3"):
        assert "nor slurm" in run(*sweep, worker, exit_code=2).stderr
    for worker in ("4/3", "0/3", "1/0"):
        assert f"no share {worker}" in run(*sweep, worker, exit_code=2).stderr
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    assert "SLURM_ARRAY_TASK_ID is not set" in run(*sweep, "slurm", exit_code=3).stderr
    again = run(*sweep, "1/3", "--no-resume", exit_code=3).stderr
    assert "resume=False" in again


def test_a_task_of_a_slurm_array(run, suite, tokens, tmp_path, monkeypatch):
    for name, text in {"ID": "6", "COUNT": "2", "MIN": "4", "MAX": "6", "STEP": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", text)
    out = ("--tokens", tokens, "--out", tmp_path / "run", "--worker", "slurm")
    result = run("sweep", suite, *out)
    assert "share 2/2: 3 of 6 steps" in result.stderr
