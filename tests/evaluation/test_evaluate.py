"""The call: what it gives, whose folder it is, which arguments it refuses."""

import shutil
import sys

import pyarrow as pa
import pytest

import pythia_fast
from pythia_fast.errors import (
    ArgumentError,
    MissingTokensError,
    RunMismatchError,
    UnknownStepError,
)
from pythia_fast.evaluation import TIDY, EvaluationResult, harness_model
from pythia_fast.tokens import load_tokenizer

TASKS = ("local_choices", "local_generated")


def test_the_table_is_tidy(suite, evaluate):
    result = evaluate(suite)
    table = result.table
    assert table.schema.names[: len(TIDY.names)] == TIDY.names
    assert table.select(TIDY.names).schema == TIDY
    rows = table.to_pylist()
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert len(result) == len(rows) == 4 * 3
    for row in rows:
        record = result.results[row["step"]]["results"][row["task"]]
        assert row["value"] == record[f"{row['metric']},{row['filter']}"]
        assert row["n"] == 3
        assert row["num_fewshot"] == 0
        assert row["status"] == "ok"
        assert row["dtype"] == "float32"
        assert row["model"] == "tiny"
        assert len(row["weights_sha256"]) == 64
        assert row["harness_version"]
    by_task = {row["task"]: row for row in rows}
    assert by_task["local_choices"]["task_version"] == "1.0"
    assert by_task["local_choices"]["higher_is_better"] is True
    assert pa.table(result) == table
    assert "4 steps, 0 to 64" in repr(result)
    page = result._repr_html_()
    assert "4 steps, 0 to 64" in page
    assert page.count("<tr>") == 1 + len(rows)
    assert "without all results" not in page
    assert "weights_sha256" not in page
    some = EvaluationResult(result.path, steps=[0, 5])
    assert "1 step without all results: 5. Step 5: not begun" in some._repr_html_()


def test_requests_are_encoded_once(suite, evaluate, monkeypatch):
    from pythia_fast.evaluation.encoding import Encoder

    calls = []
    original = Encoder._all

    def counted(self, texts, **more):
        calls.append(1)
        return original(self, texts, **more)

    monkeypatch.setattr(Encoder, "_all", counted)
    evaluate(suite, [8])
    one_step = len(calls)
    evaluate(suite, [0, 64])
    assert len(calls) == 2 * one_step


@pytest.mark.parametrize(
    "changed",
    [
        {"num_fewshot": 1, "tasks": TASKS[:1]},
        {"limit": 2},
        {"tasks": TASKS[:1]},
        {"dtype": "bfloat16"},
        {"log_samples": True},
    ],
)
def test_a_folder_is_of_one_specification(suite, evaluate, changed):
    evaluate(suite, [8])
    with pytest.raises(RunMismatchError, match="another specification"):
        evaluate(suite, [8], **changed)


def test_a_group_is_part_of_the_specification(suite, evaluate, own_tasks_only):
    first = evaluate(suite, [8], "local_group")
    members = ["local_choices", "local_twin"]
    with pytest.raises(RunMismatchError, match="another specification"):
        evaluate(suite, [8, 64], members)
    grouped = evaluate(suite, [8], "local_group", out=None)
    assert evaluate(suite, [8], members, out=None).path != grouped.path != first.path


def test_other_labels_are_not_mixed_in(suite, evaluate, definitions, tmp_path):
    data = tmp_path / "choices.jsonl"
    text = (definitions / "local_choices.yaml").read_text()
    text = text.replace(str(definitions / "choices.jsonl"), str(data))
    (tmp_path / "labels.yaml").write_text(text)
    rows = (definitions / "choices.jsonl").read_text()
    data.write_text(rows)
    evaluate(suite, [8], "local_choices", include_path=tmp_path)
    data.write_text(rows.replace('"label": 1', '"label": 2'))
    with pytest.raises(RunMismatchError, match="another specification"):
        evaluate(suite, [8, 64], "local_choices", include_path=tmp_path)


def test_without_a_folder_each_specification_has_its_own(suite, evaluate):
    first = evaluate(suite, [8], out=None)
    assert evaluate(suite, [64], out=None).path == first.path
    assert evaluate(suite, [8], out=None, limit=2).path != first.path
    assert evaluate(suite, [8], out=None, resume=False).path != first.path
    assert "evaluation" in first.path.name
    with pytest.raises(RunMismatchError, match="resume is False"):
        evaluate(suite, [8], out=first.path, resume=False)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"num_fewshot": -1}, ArgumentError, "num_fewshot is a number from 0 on"),
        ({"num_fewshot": 1.5}, ArgumentError, "num_fewshot is a number from 0 on"),
        ({"limit": 0}, ArgumentError, "limit is a positive number"),
        ({"limit": 2.5}, ArgumentError, "limit is a share"),
        ({"limit": float("nan")}, ArgumentError, "limit is a positive number"),
        ({"on_error": "ignore"}, ArgumentError, "on_error is"),
        ({"batch_tokens": 0}, ArgumentError, "batch_tokens is"),
        ({"tokenizer": "nowhere.json"}, MissingTokensError, "nowhere.json"),
        ({"steps": [3]}, UnknownStepError, "3"),
    ],
)
def test_arguments_that_make_no_sense(suite, evaluate, tmp_path, arguments, error, said):
    with pytest.raises(error, match=said):
        evaluate(suite, **({"steps": [8]} | arguments))
    assert not (tmp_path / "run").exists()


def test_without_the_harness_it_says_what_to_install(suite, evaluate, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ArgumentError, match=r"pip install 'pythia-fast\[eval\]'"):
        evaluate(suite, [8])


def test_a_series_without_a_tokenizer(suite, evaluate, tmp_path):
    series = shutil.copytree(suite, tmp_path / "tiny")
    for file in series.rglob("tokenizer.json"):
        file.unlink()
    with pytest.raises(MissingTokensError, match="tokenizer="):
        evaluate(series, [8])


def test_the_adapter_answers_simple_evaluate(suite, evaluate, definitions):
    import lm_eval
    from lm_eval.tasks import TaskManager

    from pythia_fast.evaluation.quiet import quiet_harness

    model = pythia_fast.load(suite, 8, dtype="float32")
    adapter = harness_model(model, load_tokenizer(suite / "tokenizer.json"))
    with quiet_harness():
        found = lm_eval.simple_evaluate(
            model=adapter,
            tasks=list(TASKS),
            num_fewshot=0,
            limit=3,
            task_manager=TaskManager(include_path=str(definitions), include_defaults=False),
        )
    ours = evaluate(suite, [8]).results[8]["results"]
    assert found["results"] == ours
    assert adapter.tok_encode("hi") == [104, 105]
    assert adapter._loglikelihood_tokens([(("", ""), [1], [2])])[0][0] < 0


def test_building_and_tokenizing_tell_how_far_they_are(suite, evaluate, monkeypatch, capsys):
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    evaluate(suite, [8], progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    told = [line.split(", ")[0] for line in captured.err.splitlines()]
    for number, task in enumerate(TASKS, 1):
        for count in (1, 2, 3):
            line = f"build requests of {task} (task {number} of 2): {count}/3 documents"
            assert told.count(line) == 1
    evaluating = [line.startswith("0/1 checkpoints: ") for line in told].index(True)
    assert told.index("tokenize requests: 3/3 texts") < evaluating


def test_of_nothing_is_told_if_nothing_is_wanted(suite, evaluate, monkeypatch, capfd):
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    evaluate(suite, [8], progress=False)
    assert capfd.readouterr() == ("", "")
