"""`pythia-fast plot`, on sweeps and on evaluations."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pythia_fast.cli.plot import named
from pythia_fast.plots import Line


@pytest.fixture(scope="module")
def swept(suite, tokens, tmp_path_factory):
    import pythia_fast

    out = tmp_path_factory.mktemp("runs") / "run"
    pythia_fast.sweep(
        suite, tokens=tokens, out=out, metrics=("perplexity", "memorization"), progress=False
    )
    return out


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_run_is_drawn(run, swept, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    result = run("plot", swept, "-o", path)
    assert path.stat().st_size > 1000
    assert result.stdout == ""
    assert f"kept in {path}" in result.stderr


def test_json_has_what_was_drawn(run, swept, tmp_path):
    import pythia_fast

    arguments = ["plot", swept, "--metric", "memorization", "--level", "0.9", "--dpi", 50]
    result = run(*arguments, "-o", tmp_path / "a.png", "--json")
    found = json.loads(result.stdout)
    assert (found["path"], found["metric"]) == (str(tmp_path / "a.png"), "memorization")
    (line,) = found["lines"]
    rows = pythia_fast.SweepResult(swept).intervals(0.9).to_pylist()
    rows = [row for row in rows if row["metric"] == "memorization"]
    assert line["steps"] == [row["step"] for row in rows] == [0, 1, 2, 4, 8, 16]
    assert line["high"] == [row["high"] for row in rows]
    assert (line["label"], line["gaps"]) == ("tiny", [])
    none = json.loads(
        run(*arguments[:4], "--level", "none", "-o", tmp_path / "a.png", "--json").stdout
    )
    assert none["lines"][0]["high"] == [None] * 6


def test_several_runs_are_several_lines_and_gaps_are_told(run, swept, tmp_path):
    other = Path(shutil.copytree(swept, tmp_path / "other"))
    shutil.rmtree(other / "parts/step=4")
    path = tmp_path / "both.svg"
    result = run("plot", swept, other, "--steps-axis", "linear", "-o", path)
    text = path.read_text()
    assert "tiny (run)" in text
    assert "tiny (other)" in text
    assert "1 step is incomplete" in text
    assert "tiny (other): incomplete at step 4" in result.stderr


def test_an_evaluation_is_drawn_by_task_and_metric(run, evaluated, tmp_path):
    arguments = ["plot", evaluated, "-o", tmp_path / "a.svg", "--json"]
    found = json.loads(run(*arguments).stdout)
    assert found["metric"] == "sciq:acc"
    (line,) = found["lines"]
    assert (line["label"], line["gaps"], line["steps"]) == ("70m", [2000], [0, 1000, 3000])
    assert line["high"][0] - line["low"][0] == pytest.approx(2 * 1.959964 * 0.01, rel=1e-6)
    found = json.loads(run(*arguments, "--metric", "piqa:acc_norm").stdout)
    assert found["metric"] == "piqa:acc_norm"
    assert found["lines"][0]["values"] == [0.5] * 3
    assert found["lines"][0]["low"] == [None] * 3  # the harness gives no standard error for it
    assert json.loads(run(*arguments, "--metric", "piqa").stdout)["metric"] == "piqa:acc"


def test_an_evaluation_knows_its_gaps(evaluated):
    from pythia_fast.evaluation import EvaluationResult

    (gap,) = EvaluationResult(evaluated).gaps
    assert (gap.step, gap.metric, gap.reason) == (2000, "evaluation", "not begun")
    assert EvaluationResult(evaluated, steps=[0, 3000]).gaps == ()
    (axes,) = EvaluationResult(evaluated).plot("piqa", steps="linear", level=None).axes
    assert axes.get_ylabel() == "piqa: acc"
    assert axes.get_xscale() == "linear"


def test_bad_input_is_told_in_one_line(run, swept, evaluated, tmp_path):
    out = ["-o", tmp_path / "a.png"]
    cases = {
        ("--metric", "perplexty"): "no metric 'perplexty'; near is perplexity",
        ("-o", tmp_path / "a.gif"): ".png, .svg, .pdf",
    }
    for arguments, said in cases.items():
        result = run("plot", swept, *out, *arguments, exit_code=3)
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert "near is sciq" in run("plot", evaluated, *out, "--metric", "scik", exit_code=3).stderr
    assert "near is acc" in run("plot", evaluated, *out, "--metric", "sciq:ac", exit_code=3).stderr
    for mixed in ((swept, evaluated), (evaluated, swept)):
        said = run("plot", *mixed, *out, exit_code=3).stderr
        assert f"sweeps ({swept}) and evaluations ({evaluated}) measure" in said
    assert "there is no folder" in run("plot", tmp_path / "none", *out, exit_code=3).stderr
    there = tmp_path / "nowhere" / "a.png"
    assert "there is no folder" in run("plot", swept, "-o", there, exit_code=3).stderr
    for wrong in (("--level", "2"), ("--level", "x"), ("--steps-axis", "sqrt"), ("--dpi", "0")):
        run("plot", swept, *out, *wrong, exit_code=2)
    run("plot", "-o", "a.png", exit_code=2)
    run("plot", swept, exit_code=2)
    empty = Path(shutil.copytree(swept, tmp_path / "empty"))
    shutil.rmtree(empty / "parts")
    said = run("plot", empty, *out, exit_code=3).stderr
    assert "nothing to plot; incomplete: 6 steps of " in said
    assert not (tmp_path / "a.png").exists()


def test_of_several_runs_the_one_without_the_metric_is_named(run, swept, suite, tokens, tmp_path):
    import pythia_fast

    other = tmp_path / "other"
    pythia_fast.sweep(suite, "0", tokens=tokens, out=other, progress=False)
    arguments = ("--metric", "memorization", "-o", tmp_path / "a.png")
    said = run("plot", swept, other, *arguments, exit_code=3).stderr
    assert f"the run of tiny in {other} has no metric 'memorization'" in said


def test_labels_are_made_different():
    lines = [Line(name, (0,), (1.0,)) for name in ("a", "a", "a", "b")]
    paths = [Path(name) for name in ("x/run", "y/run", "z", "b")]
    labels = [line.label for line in named(paths, lines)]
    assert labels == ["a (x/run)", "a (y/run)", "a (z)", "b"]


def test_the_folder_of_several_models_runs_is_all_of_them(run, suite, tokens, tiny, tmp_path):
    import pythia_fast
    from pythia_fast.testing import make_series

    other = make_series(tmp_path / "small", replace(tiny, layers=1), (0, 1, 16))
    runs = tmp_path / "runs"
    pythia_fast.sweep([suite, other], [0, 16], tokens=tokens, out=runs, progress=False)
    found = json.loads(run("plot", runs, "-o", tmp_path / "both.png", "--json").stdout)
    assert [line["label"] for line in found["lines"]] == ["small", "tiny"]  # by size
    assert [line["steps"] for line in found["lines"]] == [[0, 16], [0, 16]]
    also = json.loads(
        run("plot", runs / "tiny", runs, "-o", tmp_path / "more.png", "--json").stdout
    )
    assert [line["label"].split()[0] for line in also["lines"]] == ["tiny", "small", "tiny"]
    error = run("plot", tmp_path / "small", "-o", tmp_path / "none.png", exit_code=3).stderr
    assert "no run.json: it is not a run folder" in error
