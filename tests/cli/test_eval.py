import json
import shutil

import pytest

from pythia_fast.testing import tiny_suite

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/texts.jsonl}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{text}}}}"
doc_to_target: " yes"
metric_list: [{{metric: acc}}]
"""


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A suite of four steps whose tokenizer is the bytes."""
    folder = tmp_path_factory.mktemp("eval") / "letters"
    return tiny_suite(folder, steps=(0, 1, 8, 64), copies={1: 0})


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with two tasks."""
    folder = tmp_path_factory.mktemp("own")
    texts = [{"text": f"text {number}"} for number in range(6)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    for name in ("local_yes", "local_no"):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, folder=folder))
    return folder


@pytest.fixture(autouse=True)
def _own_tasks_only(monkeypatch):
    """Reading the harness's own definitions takes ten seconds."""
    from lm_eval.tasks import TaskManager

    from pythia_fast.evaluation import tasks

    def manager(folders, *, defaults):
        return TaskManager(include_path=list(folders), include_defaults=False)

    monkeypatch.setattr(tasks, "_manager", manager)


def test_what_it_prints_and_keeps(run, letters, own, tmp_path):
    arguments = ["eval", letters, "--steps", "0,1,64", "--tasks", "local_yes,local_no"]
    arguments += ["--include-path", own, "--limit", 4, "--out", tmp_path / "run"]
    done = run(*arguments)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["step", "task", "metric", "value", "stderr"]
    assert len(lines) == 1 + 3 * 2
    assert lines[3].endswith("same weights as 0")
    assert f"kept in {tmp_path / 'run'}" in done.stderr
    kept = sorted(file.name for file in (tmp_path / "run" / "results").iterdir())
    assert kept == ["step=0.json", "step=1.json", "step=64.json"]
    found = json.loads(run(*arguments, "--json", "-q").stdout)
    assert [row["step"] for row in found["rows"]] == [0, 0, 1, 1, 64, 64]
    assert {row["n"] for row in found["rows"]} == {4}
    assert found["failures"] == []


def test_the_harness_is_quiet(run, letters, own):
    arguments = ["eval", letters, "--steps", 8, "--tasks", "local_yes", "--include-path", own]
    done = run(*arguments, "--quiet", "--json")
    json.loads(done.stdout)
    assert done.stderr == ""


def test_tasks_can_be_listed(run, own):
    assert run("eval", "--list-tasks", "--include-path", own).stdout == "local_no\nlocal_yes\n"
    listed = json.loads(run("eval", "--list-tasks", "--json", "--include-path", own).stdout)
    assert listed == ["local_no", "local_yes"]


def test_an_unknown_task_names_the_near_ones(run, letters, own):
    done = run("eval", letters, "--tasks", "locl_yes", "--include-path", own, exit_code=3)
    assert "no task 'locl_yes'; near are local_yes" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "a MODEL and --tasks are needed"),
        (["70m"], "a MODEL and --tasks are needed"),
        (["70m", "--tasks", "piqa", "--limit", "many"], "'many' is no number"),
        *(
            (["70m", "--tasks", "piqa", "--limit", wrong], f"'{wrong}' is no positive number")
            for wrong in ("inf", "nan", "-1", "0")
        ),
        (["70m", "--tasks", "piqa", "--num-fewshot", "-1"], "not in the range"),
    ],
)
def test_wrong_usage(run, arguments, said):
    assert said in run("eval", *arguments, exit_code=2).stderr


def test_what_is_mistyped_is_told_before_the_harness_is_asked(run, letters):
    assert "near" in run("eval", "71m", "--tasks", "x", exit_code=3).stderr
    done = run("eval", letters, "--steps", "3", "--tasks", "x", exit_code=3)
    assert "3" in done.stderr


def test_a_step_that_fails_is_left_out_and_told(run, letters, own, tmp_path):
    series = shutil.copytree(letters, tmp_path / "series")
    next((series / "step8").glob("*model*")).write_bytes(b"no weights")
    arguments = ["eval", series, "--tasks", "local_yes", "--include-path", own]
    done = run(*arguments, "--on-error", "skip", exit_code=4)
    assert done.stderr.count("1 of 4 steps cannot be had: step 8: ") == 1
    quiet = run(*arguments, "--on-error", "skip", "-q", exit_code=4)
    assert quiet.stderr.count("step 8 failed: ") == 1
    assert len(done.stdout.splitlines()) == 1 + 3
