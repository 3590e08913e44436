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
    assert lines[0] == "8 rows from 5 files; models: 1, steps: 3, tasks: 2"
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["ok", "6"],
        ["other", "1"],
        ["unreadable", "1"],
    ]
    assert any("neither .json nor .csv (1 file: README.md)" in line for line in lines)
    assert any("70m_step64.json" in line and "cannot be read" in line for line in lines)


def test_json_and_the_table(run, tree, tmp_path):
    path = tmp_path / "t.parquet"
    result = run("published", tree, "--table", path, "--json")
    found = json.loads(result.stdout)
    assert (found["rows"], found["files"], found["models"]) == (8, 5, ["70m"])
    assert found["status"] == {"ok": 6, "other": 1, "unreadable": 1}
    assert {each["status"] for each in found["problems"]} == {"other", "unreadable"}
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
    assert "nothing in this folder" in run("published", tmp_path).stdout
    assert "give evals/" in run("published", tmp_path / "none", exit_code=3).stderr
    said = run("published", tmp_path, "--figure", "a.pdf", exit_code=2).stderr
    assert "give --compare" in said
    assert "no run.json" in run("published", tmp_path, "--compare", tmp_path, exit_code=3).stderr
