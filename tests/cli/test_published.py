"""`pythia-fast published`."""

import json

import pyarrow.parquet as pq
import pytest


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "evals"
    zero = folder / "pythia-v1/pythia-70m/zero-shot"
    zero.mkdir(parents=True)
    for step in (0, 1000, 3000):
        numbers = {"acc": 0.26 + step / 1e4, "acc_stderr": 0.01}
        config = {"model_args": f"pretrained=EleutherAI/pythia-v1.1-70m,revision=step{step}"}
        content = {
            "results": {"sciq": numbers, "wsc": numbers},
            "config": config | {"num_fewshot": 0},
        }
        (zero / f"70m_step{step}.json").write_text(json.dumps(content))
    (zero / "70m_step64.json").write_text("{")
    (folder / "README.md").write_text("x")
    return folder


def test_the_tree_is_summed_up_and_what_is_odd_is_told(run, tree):
    lines = run("published", tree).stdout.splitlines()
    assert lines[0] == "7 rows from 4 files; models: 1, steps: 3, tasks: 2"
    assert [line.split()[:2] for line in lines[1:3]] == [["ok", "6"], ["unreadable", "1"]]
    assert lines[-1] == "not counted: 1 that are neither .json nor .csv (README.md)"
    assert any("70m_step64.json" in line and "cannot be read" in line for line in lines)


def test_json_and_the_table(run, tree, tmp_path):
    path = tmp_path / "t.parquet"
    result = run("published", tree, "--table", path, "--json")
    found = json.loads(result.stdout)
    assert (found["rows"], found["files"], found["models"]) == (7, 4, ["70m"])
    assert found["status"] == {"ok": 6, "unreadable": 1}
    assert found["other_files"] == ["README.md"]
    assert {each["status"] for each in found["problems"]} == {"unreadable"}
    assert pq.read_table(path).num_rows == 8
    assert f"kept in {path}" in result.stderr


def test_an_evaluation_is_compared(run, tree, evaluated, tmp_path):
    arguments = ["published", tree, "--compare", evaluated, "--json"]
    figure, table = tmp_path / "d.pdf", tmp_path / "d.csv"
    found = json.loads(run(*arguments, "--figure", figure, "--table", table).stdout)
    assert found["summary"]["compared"] == 3
    assert found["summary"]["only ours"] == 6  # piqa
    assert [row["difference"] for row in found["rows"]] == pytest.approx([-0.01] * 3)
    assert [row["z"] for row in found["rows"]] == pytest.approx([-0.01 / (0.01 * 2**0.5)] * 3)
    assert figure.stat().st_size > 1000
    assert len(table.read_text().splitlines()) == 4
    assert "compared: 3" in run(*arguments[:-1]).stdout


def test_an_empty_folder_and_a_missing_one_say_so(run, tmp_path):
    said = run("published", tmp_path, exit_code=3).stderr
    assert f"no evaluations in {tmp_path}: give evals/" in said
    assert "give evals/" in run("published", tmp_path / "none", exit_code=3).stderr
    said = run("published", tmp_path, "--figure", "a.pdf", exit_code=2).stderr
    assert "give --compare" in said


def test_a_folder_of_other_files_has_no_evaluations(run, tmp_path):
    (tmp_path / "README.md").write_text("x")
    assert "no evaluations in" in run("published", tmp_path, exit_code=3).stderr
    (tmp_path / "a.json").write_text("{")
    assert "(a.json: cannot be read" in run("published", tmp_path, exit_code=3).stderr


def test_nothing_in_common_is_an_error_that_says_what_differs(run, tree, evaluated, tmp_path):
    for path in tree.rglob("70m_step*.json"):
        path.write_text(path.read_text().replace("step0", "step5").replace("step1000", "step7"))
        path.rename(path.with_name(path.name.replace("step0", "step5")))
    for path in tree.rglob("*.json"):
        path.write_text(path.read_text().replace("step3000", "step9"))
    said = run("published", tree, "--compare", evaluated, exit_code=3).stderr
    assert "nothing to compare: no step of the same model is in both: ours 0, 1000" in said
    assert "no run.json" in run("published", tree, "--compare", tmp_path, exit_code=3).stderr
