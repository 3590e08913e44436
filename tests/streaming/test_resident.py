"""One resident model: the same object and memory, other weights."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.errors import ArgumentError, UnknownModelError, UnknownStepError
from pythia_fast.series import Checkpoint, LocalSeries
from pythia_fast.series.hub import HubSeries
from pythia_fast.streaming import arenas, resident
from pythia_fast.testing import HubServer, make_series, tiny

STEPS = [0, 1, 2, 4, 8, 16]


def test_every_step_has_its_own_weights(tiny_series: Path) -> None:
    steps = []
    for step, model in pythia_fast.stream(tiny_series):
        theirs = GPTNeoXForCausalLM.from_pretrained(
            tiny_series / f"step{step}", dtype=torch.float32
        ).state_dict()
        ours = model.state_dict()
        theirs["embed_out.weight"] = theirs.pop("lm_head.weight")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert model.step == step
        steps.append(step)
    assert steps == STEPS


def test_one_model_in_two_places(tiny_series: Path) -> None:
    models, addresses = set(), set()
    for _, model in pythia_fast.stream(tiny_series):
        models.add(id(model))
        addresses.add(model.weights.flat.data_ptr())
    assert len(models) == 1
    assert len(addresses) == 2


def test_one_arena_where_two_do_not_fit(
    tiny_series: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arenas, "free_bytes", lambda device: 1_000_000)
    sums, addresses = [], set()
    for _, model in pythia_fast.stream(tiny_series):
        sums.append(float(model.weights.flat.sum()))
        addresses.add(model.weights.flat.data_ptr())
    assert len(addresses) == 1
    assert len(set(sums)) == len(STEPS)
    assert "take turns" in caplog.text


def test_a_stream_may_be_left_early(tiny_series: Path) -> None:
    for step, _ in pythia_fast.stream(tiny_series):
        if step == 2:
            break


def test_load_is_one_step(tiny_series: Path) -> None:
    assert pythia_fast.load(tiny_series).step == 16
    model = pythia_fast.load(tiny_series, 4, dtype="bfloat16")
    assert (model.step, model.dtype) == (4, torch.bfloat16)
    assert model.spec.name == "tiny"


def test_what_load_downloads_is_told_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("pythia_fast.streaming.prefetching.TELL_EVERY_S", 0.01)
    source = make_series(tmp_path / "source", tiny(), (0,))
    spec = dataclasses.replace(pythia_fast.spec("14m"), architecture=tiny())
    with HubServer({spec.repo: {"step0": source / "step0"}}) as hub:
        hub.slow("model", bytes_per_s=1e5, times=9)
        for progress in (True, False):
            series = HubSeries(spec, tmp_path / f"{progress}", endpoint=hub.url)
            monkeypatch.setattr(resident, "open_series", lambda *_, to=series, **__: to)
            assert pythia_fast.load("14m", 0, progress=progress).step == 0
            told = capsys.readouterr()
            assert any("load 14m at step 0: " in line for line in told.err.splitlines()) is progress
            assert told.out == ""


def test_steps_come_in_order_and_once(tiny_series: Path) -> None:
    assert [step for step, _ in pythia_fast.stream(tiny_series, [8, 0, 8])] == [0, 8]


def test_deterministic_is_the_models(tiny_series: Path) -> None:
    assert pythia_fast.load(tiny_series, deterministic=True).deterministic
    assert not pythia_fast.load(tiny_series).deterministic
    for _, model in pythia_fast.stream(tiny_series, [4], deterministic=True):
        assert model.deterministic


def test_auto_is_float32_on_a_cpu(tiny_series: Path) -> None:
    assert pythia_fast.load(tiny_series, device="cpu").dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"steps": [3]}, UnknownStepError),
        ({"device": "nowhere"}, ArgumentError),
        ({"device": "meta"}, ArgumentError),
        ({"dtype": torch.int8}, ArgumentError),
    ],
)
def test_bad_arguments_fail_at_the_call(tiny_series: Path, arguments: dict, error: type) -> None:
    with pytest.raises(error):
        pythia_fast.stream(tiny_series, **arguments)


def test_an_unknown_model_is_told_at_the_call() -> None:
    with pytest.raises(UnknownModelError, match="12b"):
        pythia_fast.stream("12bb")


def test_a_broken_step_comes_with_its_number(tiny_series: Path, tmp_path: Path) -> None:
    import shutil

    series = Path(shutil.copytree(tiny_series, tmp_path / "series"))
    (series / "step2" / "model.safetensors").unlink()
    seen = []
    with pytest.raises(pythia_fast.PythiaFastError) as caught:
        seen.extend(step for step, _ in pythia_fast.stream(series))
    assert "while loading step 2" in caught.value.__notes__[0]


def test_results_equal_whatever_is_loaded_meanwhile(
    tiny_series: Path, tiny_ids: np.ndarray
) -> None:
    streamed = {
        step: model.nll(tiny_ids).numpy().copy() for step, model in pythia_fast.stream(tiny_series)
    }
    for step in STEPS:
        alone = pythia_fast.load(tiny_series, step).nll(tiny_ids).numpy()
        np.testing.assert_array_equal(streamed[step], alone)


def test_the_next_step_is_loaded_while_this_one_is_used(
    tiny_series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = {step: threading.Event() for step in STEPS}

    class Watched(LocalSeries):
        def open(self, step: int) -> Checkpoint:
            opened[step].set()
            return super().open(step)

    monkeypatch.setattr(resident, "open_series", lambda model, **_: Watched(model))
    for step, _ in pythia_fast.stream(tiny_series):
        following = STEPS[STEPS.index(step) + 1 :]
        if following:
            assert opened[following[0]].wait(timeout=30)
        assert not any(opened[later].is_set() for later in following[1:])


def test_in_inference_mode(tiny_series: Path, tiny_ids: np.ndarray) -> None:
    """The arenas are made in the mode of whoever asks first, and loaded by another thread."""
    expected = [model.nll(tiny_ids) for _, model in pythia_fast.stream(tiny_series)]
    with torch.inference_mode():
        found = [model.nll(tiny_ids) for _, model in pythia_fast.stream(tiny_series)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
