"""Checkpoint after checkpoint: what is kept, taken up again, shared, refused."""

import json
import shutil
import sys

import pyarrow as pa
import pytest

import pythia_fast
from pythia_fast.errors import (
    ArgumentError,
    FormatError,
    MissingTokensError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
    UnknownStepError,
)
from pythia_fast.evaluation import TIDY, EvaluationResult, harness_model
from pythia_fast.evaluation.harness import Harness
from pythia_fast.tokens import load_tokenizer

TASKS = ("local_choices", "local_generated")


@pytest.fixture
def evaluate(definitions, tmp_path):
    """`pythia_fast.evaluate` into one folder, with few documents."""

    def call(model, steps="all", tasks=TASKS, **more):
        given = {"include_path": definitions, "limit": 3, "dtype": "float32", "progress": False}
        return pythia_fast.evaluate(
            model, steps, tasks, **(given | {"out": tmp_path / "run"} | more)
        )

    return call


@pytest.fixture
def asked(monkeypatch):
    """Which steps the harness was asked about."""
    steps = []
    original = Harness.results

    def results(self, model, answers):
        steps.append(model.step)
        return original(self, model, answers)

    monkeypatch.setattr(Harness, "results", results)
    return steps


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
    assert "without results" not in page
    assert "weights_sha256" not in page
    some = EvaluationResult(result.path, steps=[0, 5])
    assert "without results: 5" in some._repr_html_()


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


def test_a_failing_step_is_kept_or_raised(suite, evaluate, tmp_path):
    series = shutil.copytree(suite, tmp_path / "tiny")
    (weights,) = (each for each in (series / "step8").iterdir() if "model" in each.name)
    whole = weights.read_bytes()
    weights.write_bytes(b"none")
    with pytest.raises(SweepError, match="step 8 failed") as raised:
        evaluate(series)
    assert raised.value.__cause__ is not None
    result = evaluate(series, on_error="skip")
    assert [failure.step for failure in result.failures] == [8]
    assert list(result.results) == [0, 1, 64]
    assert "1 failed" in repr(result)
    weights.write_bytes(whole)
    assert evaluate(series).failures == ()


def test_a_step_that_is_missing(suite, evaluate, tmp_path):
    series = shutil.copytree(suite, tmp_path / "tiny")
    for weights in (series / "step64").glob("*model*"):
        weights.unlink()
    with pytest.raises((SweepError, UnknownStepError)):
        evaluate(series, [8, 64])


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


def test_damaged_results_are_told(suite, evaluate):
    path = evaluate(suite, [8]).path
    file = path / "results/step=8.json"
    for text in ("{", "[]", "{}", file.read_text().replace('"step": 8', '"step": 9')):
        file.write_text(text)
        with pytest.raises(FormatError, match="remove it"):
            _ = EvaluationResult(path).table
        with pytest.raises(FormatError, match="remove it"):
            evaluate(suite, [8])


def test_a_sweep_is_no_evaluation(suite, tiny_ids, tmp_path):
    sweep = pythia_fast.sweep(
        suite, [8], tokens=tiny_ids[:2], out=tmp_path / "sweep", progress=False
    )
    with pytest.raises(FormatError, match="use SweepResult"):
        EvaluationResult(sweep.path)


def test_samples_are_kept_if_asked_for(suite, evaluate, tmp_path):
    result = evaluate(suite, [0, 1], log_samples=True)
    assert [sample["doc_id"] for sample in result.samples(0, "local_choices")] == [0, 1, 2]
    assert result.samples(1, "local_choices") == result.samples(0, "local_choices")
    bare = evaluate(suite, [0], out=tmp_path / "bare")
    with pytest.raises(ArgumentError, match="log_samples=True"):
        bare.samples(0, "local_choices")


def test_weights_that_are_not_finite(suite, evaluate, tmp_path):
    import torch

    from pythia_fast.series import write_checkpoint
    from pythia_fast.suite import Architecture
    from pythia_fast.testing import random_state_dict, tiny

    architecture: Architecture = tiny(vocab_rows=260)
    weights = random_state_dict(architecture, step=1)
    next(iter(weights.values()))[:] = torch.nan
    series = tmp_path / "tiny"
    write_checkpoint(series / "step1", weights, architecture)
    tokenizer = suite / "tokenizer.json"
    result = evaluate(series, [1], ["local_choices"], tokenizer=tokenizer)
    assert set(result.table["status"].to_pylist()) == {"non-finite"}


def test_groups_are_rows_too(suite, evaluate, own_tasks_only):
    result = evaluate(suite, [8], "local_group")
    rows = {(row["task"], row["metric"]): row for row in result.table.to_pylist()}
    mean = [rows[task, "acc"]["value"] for task in ("local_choices", "local_twin")]
    assert rows["local_group", "acc"]["value"] == pytest.approx(sum(mean) / 2)


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


def test_it_can_be_drawn(suite, evaluate):
    result = evaluate(suite)
    (axes,) = result.plot().axes
    assert axes.get_ylabel() == "local_choices: acc"
    (axes,) = result.plot("local_generated", "exact_match").axes
    assert len(axes.lines) == 1
    with pytest.raises(ArgumentError, match=r"no task 'local_choise' .*near are local_choices"):
        result.plot("local_choise")
    with pytest.raises(ArgumentError, match=r"no metric 'accuracy'.*near are acc"):
        result.plot("local_choices", "accuracy")


def test_results_are_json_of_the_harness_s_form(suite, evaluate):
    result = evaluate(suite, [8])
    record = json.loads((result.path / "results/step=8.json").read_text())
    keys = {"results", "configs", "versions", "n-shot", "n-samples", "higher_is_better", "config"}
    assert keys | {"date", "lm_eval_version", "group_subtasks", "pythia_fast"} <= record.keys()
    assert record["config"]["model_args"] == {"model": "tiny", "step": 8}
    assert result.to_pandas().shape[0] == len(result)


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
