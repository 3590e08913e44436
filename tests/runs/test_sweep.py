"""The whole path: numbers against the loop that everyone writes, and what an argument does."""

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_overloads

import numpy as np
import pytest
import torch
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.errors import ArgumentError, RunMismatchError, TokenRangeError, UnknownStepError
from pythia_fast.tokens import TokenDataset, write_tokens

Sweep = Callable[..., pythia_fast.SweepResult]
STEPS = (0, 1, 2, 4, 8, 16)


def loop(series: Path, ids: np.ndarray) -> dict[int, float]:
    """Loss of each step by transformers in float32, one sequence at a time."""
    losses = {}
    for step in STEPS:
        model = GPTNeoXForCausalLM.from_pretrained(series / f"step{step}", dtype=torch.float32)
        rows = torch.from_numpy(ids).split(1)
        with torch.inference_mode():
            losses[step] = float(np.mean([model(row, labels=row).loss.item() for row in rows]))
    return losses


def test_equals_the_transformers_loop(
    small_sweep: Sweep, tiny_series: Path, tiny_ids: np.ndarray
) -> None:
    table = small_sweep().table
    expected = loop(tiny_series, tiny_ids)
    assert table["step"].to_pylist() == list(STEPS)
    np.testing.assert_allclose(table["loss"], list(expected.values()), atol=1e-5)
    np.testing.assert_allclose(table["perplexity"], np.exp(table["loss"]), rtol=1e-12)
    assert set(table["tokens"].to_pylist()) == {24 * 79}
    assert set(table["status"].to_pylist()) == {"ok"}


@pytest.mark.parametrize("batch_tokens", [1, 100, 161, 10_000])
def test_the_batch_does_not_matter(small_sweep: Sweep, batch_tokens: int, tmp_path: Path) -> None:
    reference = small_sweep(steps="last")
    other = small_sweep(steps="last", batch_tokens=batch_tokens, out=tmp_path / "other")
    np.testing.assert_allclose(
        other.sequences["nll"], reference.sequences["nll"], rtol=1e-5, atol=1e-5
    )


def test_deterministic_rows_do_not_depend_on_the_others(
    small_sweep: Sweep, tiny_ids: np.ndarray, tmp_path: Path
) -> None:
    whole = small_sweep(deterministic=True, steps="last").sequences["nll"].to_pylist()
    some = small_sweep(
        deterministic=True, steps="last", sequences=slice(5, 9), out=tmp_path / "some"
    )
    assert some.sequences["nll"].to_pylist() == whole[5:9]
    assert some.sequences["sequence"].to_pylist() == [5, 6, 7, 8]


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 3e-2), ("float16", 3e-3)])
def test_half_types(small_sweep: Sweep, dtype: str, tolerance: float, tmp_path: Path) -> None:
    exact, half = small_sweep(), small_sweep(dtype=dtype, out=tmp_path / dtype)
    np.testing.assert_allclose(half.table["loss"], exact.table["loss"], atol=tolerance)
    assert set(half.table["dtype"].to_pylist()) == {dtype}


def test_tokens_from_a_file_give_the_same_as_an_array(
    small_sweep: Sweep, tiny_ids: np.ndarray, tmp_path: Path
) -> None:
    write_tokens(tmp_path / "data", tiny_ids)
    by_array = small_sweep(steps=[4])
    by_file = small_sweep(steps=[4], tokens=tmp_path / "data", out=tmp_path / "run")
    assert by_file.table.equals(by_array.table)
    by_dataset = small_sweep(steps=[8], tokens=TokenDataset(tmp_path / "data"))
    assert by_dataset.table["step"].to_pylist() == [8]


def test_several_metrics_in_one_sweep(small_sweep: Sweep) -> None:
    metrics = ("perplexity", "memorization", "memorization-score")
    result = small_sweep(metrics=metrics, steps="0,16")
    assert result.table["metric"].to_pylist() == [*metrics, *metrics]
    assert len(result.sequences) == 2 * 24
    columns = set(result.sequences.column_names)
    assert columns >= {"nll", "tokens", "memorized", "score", "first_mismatch", "margin"}


class FirstLetterRight:
    """A user's own metric."""

    name = "first-letter"

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
        scores = model.score(batch.ids_BT)
        return {"right": scores.argmax[:, 0] == batch.ids_BT[:, 1]}


def test_a_metric_of_ones_own(small_sweep: Sweep, tiny_series: Path, tiny_ids: np.ndarray) -> None:
    result = small_sweep(metrics=[FirstLetterRight()], steps=[16])
    model = GPTNeoXForCausalLM.from_pretrained(tiny_series / "step16", dtype=torch.float32)
    ids = torch.from_numpy(tiny_ids)
    with torch.inference_mode():
        right = model(ids[:, :1]).logits[:, 0].argmax(-1) == ids[:, 1]
    assert result.sequences["right"].to_pylist() == right.tolist()
    assert result.table["value"].to_pylist() == [pytest.approx(right.double().mean().item())]


class Wrong:
    name = "wrong"

    def __init__(self, columns: dict) -> None:
        self.columns = columns

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
        return self.columns


@pytest.mark.parametrize("columns", [{"x": [1.0]}, {"step": [0] * 24}, {"sequence": [0] * 24}])
def test_a_metric_that_returns_nonsense_is_told(small_sweep: Sweep, columns: dict) -> None:
    with pytest.raises(pythia_fast.PythiaFastError, match="metric 'wrong'"):
        small_sweep(metrics=[Wrong(columns)], batch_tokens=10_000)


def test_without_out_the_run_is_kept_in_the_cache(small_sweep: Sweep, tmp_path: Path) -> None:
    first = small_sweep(out=None, steps=[0])
    again = small_sweep(out=None, steps=[0, 1])
    assert first.path == again.path
    assert first.path.is_relative_to(tmp_path / "cache")
    assert small_sweep(out=None, steps=[0], resume=False).path != first.path


def test_a_run_can_be_extended_by_steps(small_sweep: Sweep) -> None:
    small_sweep(steps=[0, 1])
    assert small_sweep(steps="all").table["step"].to_pylist() == list(STEPS)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"sequences": 3},
        {"metrics": ["memorization"]},
        {"metrics": [pythia_fast.Perplexity(per_token=True)]},
        {"deterministic": True},
        {"tokens": np.zeros((24, 80), np.int64)},
    ],
)
def test_a_folder_of_another_specification_is_refused(small_sweep: Sweep, change: dict) -> None:
    small_sweep(steps=[0])
    with pytest.raises(RunMismatchError, match="another specification"):
        small_sweep(steps=[0], **change)


def test_resume_false_wants_a_new_folder(small_sweep: Sweep) -> None:
    small_sweep(steps=[0])
    with pytest.raises(RunMismatchError, match="resume is False"):
        small_sweep(steps=[0], resume=False)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"steps": [3]}, UnknownStepError),
        ({"sequences": 0}, ArgumentError),
        ({"sequences": "some"}, ArgumentError),
        ({"sequences": slice(5, 5)}, ArgumentError),
        ({"sequences": "seen"}, ArgumentError),
        ({"sequences": True}, ArgumentError),
        ({"batch_tokens": 0}, ArgumentError),
        ({"batch_tokens": "many"}, ArgumentError),
        ({"batch_tokens": -1, "deterministic": True}, ArgumentError),
        ({"dtype": "int8"}, ArgumentError),
        ({"device": "tpu9"}, ArgumentError),
        ({"on_error": "ignore"}, ArgumentError),
        ({"metrics": "bleu"}, ArgumentError),
        ({"tokens": None}, ArgumentError),
        ({"tokens": np.full((2, 80), 160)}, TokenRangeError),
        ({"tokens": np.full((2, 80), -1)}, TokenRangeError),
        ({"tokens": np.zeros((2, 130), int)}, ArgumentError),
        ({"tokens": np.zeros((2, 40), int), "metrics": "memorization"}, ArgumentError),
        ({"tokens": np.zeros((2, 1), int)}, ArgumentError),
    ],
)
def test_bad_arguments_fail_before_any_work(
    small_sweep: Sweep, change: dict, error: type, tmp_path: Path
) -> None:
    with pytest.raises(error):
        small_sweep(**change)
    assert not (tmp_path / "run").exists()


def test_of_several_models_the_one_that_lacks_a_step_is_named(
    small_sweep: Sweep, tiny_series: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_series, tmp_path / "other"))
    shutil.rmtree(other / "step2")
    with pytest.raises(UnknownStepError, match=r"^other has no checkpoint of step 2; .* 1 and 4 "):
        small_sweep(model=[tiny_series, other], steps=2)


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        (5, "5 sequences of 80 tokens, "),
        (slice(5, 6), "1 sequence of 80 tokens, "),
        (24, "24 sequences of 80 tokens, "),
        (100_000_000, r"24 sequences of 80 tokens \(all there are: fewer than 100,000,000\), "),
    ],
)
def test_how_many_sequences_are_read_is_said_before_it_begins(
    small_sweep: Sweep, capsys: pytest.CaptureFixture[str], sequences: Any, words: str
) -> None:
    small_sweep(steps="last", sequences=sequences, progress=True)
    assert re.search(rf"1 step to load, {words}.* floating-point", capsys.readouterr().err)


def test_a_token_out_of_range_is_located(small_sweep: Sweep, tiny_ids: np.ndarray) -> None:
    ids = tiny_ids.copy()
    ids[13, 37] = 160
    with pytest.raises(TokenRangeError) as caught:
        small_sweep(tokens=ids)
    assert (caught.value.sequence, caught.value.offset, caught.value.token) == (13, 37, 160)


def test_the_last_label_may_lie_behind_the_last_position(small_sweep: Sweep) -> None:
    """2049 tokens for 2048 positions, as in Pythia's data: here 129 for 128."""
    ids = np.random.default_rng(1).integers(0, 160, (3, 129))
    assert set(small_sweep(tokens=ids).table["tokens"].to_pylist()) == {3 * 128}


def test_what_types_say_is_what_there_is() -> None:
    """An argument that only the function has is unknown to whoever checks types."""
    own = inspect.signature(pythia_fast.sweep).parameters
    said = get_overloads(pythia_fast.sweep)
    assert len(said) == 2
    for each in said:
        parameters = inspect.signature(each).parameters
        assert list(parameters) == list(own)
        for name, parameter in parameters.items():
            assert parameter.kind == own[name].kind
            assert (parameter.default is ...) == (own[name].default is not inspect.Parameter.empty)
            if name != "model":
                assert parameter.annotation == own[name].annotation
