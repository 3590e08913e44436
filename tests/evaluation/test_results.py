"""What an evaluation's folder holds: read, checked, drawn."""

import json

import pytest

import pythia_fast
from pythia_fast.errors import ArgumentError, FormatError
from pythia_fast.evaluation import EvaluationResult
from pythia_fast.runs.folder.run_folder import RunFolder

RESULT = "results/step=8.json"


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


def test_it_can_be_drawn(suite, evaluate):
    result = evaluate(suite)
    (axes,) = result.plot().axes
    assert axes.get_ylabel() == "local_choices: acc"
    (axes,) = result.plot("local_generated", "exact_match").axes
    assert len(axes.lines) == 1
    with pytest.raises(ArgumentError, match=r"no task 'local_choise'; near is local_choices"):
        result.plot("local_choise")
    with pytest.raises(ArgumentError, match=r"no metric 'accuracy'; there are acc"):
        result.plot("local_choices", "accuracy")


def test_results_are_json_of_the_harness_s_form(suite, evaluate):
    result = evaluate(suite, [8])
    record = json.loads((result.path / "results/step=8.json").read_text())
    keys = {"results", "configs", "versions", "n-shot", "n-samples", "higher_is_better", "config"}
    assert keys | {"date", "lm_eval_version", "group_subtasks", "pythia_fast"} <= record.keys()
    assert record["config"]["model_args"] == {"model": "tiny", "step": 8}
    assert result.to_pandas().shape[0] == len(result)


def changed(record, keys, value):
    """A copy of nested objects with one of their values replaced."""
    if not keys:
        return value
    return record | {keys[0]: changed(record.get(keys[0], {}), keys[1:], value)}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ((), []),
        ((), {}),
        (("pythia_fast",), None),
        (("pythia_fast", "step"), 9),
        (("pythia_fast", "run"), "another"),
        (("pythia_fast", "model"), 3),
        (("pythia_fast", "commit"), []),
        (("pythia_fast", "duplicate_of"), "0"),
        (("pythia_fast", "weights_nonfinite"), None),
        (("pythia_fast", "samples"), None),
        (("pythia_fast", "samples"), {"local_choices": "/etc/passwd"}),
        (("pythia_fast", "samples"), {"local_choices": f"samples/step=8/../x-{'0' * 16}.jsonl"}),
        (("results",), None),
        (("results", "local_choices"), 3),
        (("results", "local_choices", "acc,none"), 10**400),
        (("results", "local_choices", "sample_len"), "many"),
        (("n-shot", "local_choices"), "none"),
        (("n-samples",), []),
        (("n-samples", "local_choices"), 3),
        (("n-samples", "local_choices", "effective"), 2**70),
        (("higher_is_better",), None),
        (("higher_is_better", "local_choices"), True),
        (("higher_is_better", "local_choices", "acc"), "yes"),
        (("versions",), 1),
        (("lm_eval_version",), 4),
    ],
    ids=str,
)
def test_results_that_are_none_are_told(evaluated, tmp_path, keys, value):
    record = json.loads((evaluated.path / RESULT).read_text())
    file = damaged(evaluated, tmp_path, json.dumps(changed(record, keys, value)))
    with pytest.raises(FormatError, match="remove it") as told:
        _ = EvaluationResult(tmp_path).table
    assert str(file) in str(told.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"], ids=["no", "half", "deep", "x"])
def test_results_that_are_no_json_are_told(evaluated, tmp_path, text):
    damaged(evaluated, tmp_path, text)
    with pytest.raises(FormatError, match=r"damaged.*remove it"):
        _ = EvaluationResult(tmp_path).results


def damaged(evaluated, path, text):
    """A copy of an evaluation's folder, with other results."""
    (path / "results").mkdir()
    (path / "run.json").write_bytes((evaluated.path / "run.json").read_bytes())
    (path / RESULT).write_text(text, encoding="latin-1")
    return path / RESULT


@pytest.fixture(scope="module")
def evaluated(suite, definitions, tmp_path_factory):
    """One step of one task. Not to be written to."""
    out = tmp_path_factory.mktemp("results") / "run"
    given = {"include_path": definitions, "limit": 2, "dtype": "float32", "progress": False}
    return pythia_fast.evaluate(suite, [8], "local_choices", out=out, **given)


def test_samples_that_are_damaged_are_told(suite, evaluate):
    result = evaluate(suite, [8], log_samples=True)
    (file,) = (result.path / "samples/step=8").glob("local_choices-*.jsonl")
    for text in ("{\n", "{}\n", ""):
        file.write_text(text)
        with pytest.raises(FormatError, match="damaged"):
            result.samples(8, "local_choices")
    file.unlink()
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        result.samples(8, "local_choices")


def test_without_results_there_are_gaps_to_draw(evaluated, tmp_path):
    folder = RunFolder(tmp_path / "none", evaluated.specification)
    folder.ask([8, 64])
    none = EvaluationResult(folder.path)
    line = none.curve("local_choices", "acc")
    assert (line.label, line.steps, line.values, line.gaps) == ("tiny", [], [], [8, 64])
    with pytest.raises(ArgumentError, match=r"value of local_choices.*incomplete: 2 steps"):
        none.plot()
    with pytest.raises(ArgumentError, match=f"{folder.path} has no results yet"):
        none.chosen(None, None)


def test_a_run_without_results_is_drawn_beside_another(evaluated, tmp_path):
    from click.testing import CliRunner

    from pythia_fast.cli.plot import plot

    empty = RunFolder(tmp_path / "none", evaluated.specification)
    empty.ask([64])
    saved = tmp_path / "both.png"
    for runs in ([empty.path, evaluated.path], [evaluated.path, empty.path]):
        done = CliRunner().invoke(plot, [*map(str, runs), "-o", str(saved)])
        assert done.exit_code == 0, done.output
        assert "incomplete at step 64" in done.output
        assert saved.exists()


def test_a_folder_of_an_evaluation_is_no_sweep(suite, evaluate):
    found = evaluate(suite, [8])
    with pytest.raises(FormatError, match="of an evaluation, not of a sweep: use EvaluationResult"):
        pythia_fast.SweepResult(found.path)
