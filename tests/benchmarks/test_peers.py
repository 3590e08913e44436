"""The peers answer the question that they are timed at."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bigram_series import make_bigram_series, sequences, successors
from comparison import Comparison
from forms import forward_flops, multiplied_dtypes, offered_dtypes
from generate_peer import Decoder, Decoding, TeacherForced
from transformers_peer import (
    Runner,
    Setting,
    best_of_two,
    from_pretrained,
    linear_errors,
    load_into,
    token_nll,
)

import pythia_fast
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import make_series, tiny

PROMPT = 32


@pytest.fixture(scope="module")
def shape() -> Architecture:
    return tiny(width=128, vocab_rows=512)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, shape: Architecture) -> Path:
    return make_series(
        tmp_path_factory.mktemp("s") / "random", shape, range(2), formats=("safetensors",)
    )


@pytest.mark.parametrize("loss", ["the model's own loss", "F.linear_cross_entropy"])
@pytest.mark.parametrize("loading", ["from_pretrained", "load_state_dict"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_setting_of_the_loop_gives_our_losses(series, loss, loading, attention):
    ids = np.random.default_rng(0).integers(0, 512, (3, 40))
    runner = Runner(Setting("float32", attention, batch=2, loss=loss, loading=loading))
    found = runner.sweep([series / "step0", series / "step1"], torch.from_numpy(ids))
    ours = [float(model.nll(ids).mean()) for _, model in pythia_fast.stream(series)]
    np.testing.assert_allclose(found, ours, atol=2e-6)


def test_a_models_weights_are_replaced(series):
    ids_BT = torch.randint(512, (1, 16))
    model = from_pretrained(series / "step0", Setting("float32"))
    load_into(model, series / "step1")
    fresh = from_pretrained(series / "step1", Setting("float32"))
    assert torch.equal(token_nll(model, ids_BT), token_nll(fresh, ids_BT))


def test_checkpoints_memorize_what_was_planted_and_nothing_else(tmp_path, shape):
    folder = make_bigram_series(tmp_path / "bigrams", shape, 2)
    ids = sequences(shape, 2, 8, memorized=2, tokens=64, prompt=PROMPT)
    ids_BT, paths = torch.from_numpy(ids), [folder / "step0", folder / "step1"]
    planted = np.zeros((2, 8), dtype=bool)
    planted[0, :2] = planted[1, 2:4] = True
    decoded = Decoder(Decoding("float32", batch=4)).sweep(paths, ids_BT)
    forced = TeacherForced(Decoding("float32", batch=4)).sweep(paths, ids_BT)
    np.testing.assert_array_equal([right.all(1) for right in decoded], planted)
    np.testing.assert_array_equal([right.all(1) for right in forced], planted)
    np.testing.assert_array_equal(ids[0, PROMPT:], successors(shape, 0)[ids[0, PROMPT - 1 : -1]])


def test_the_second_call_is_saved_where_the_first_is_hopeless():
    calls: list[int] = []
    best_of_two(lambda: calls.append(1), unless_beyond=0.0)
    assert len(calls) == 1
    best_of_two(lambda: calls.append(1), warm=True)
    assert len(calls) == 4


def test_the_work_of_a_pass_is_two_flops_a_weight_and_the_attention():
    shape = spec("70m").architecture
    one = forward_flops(shape, 1, 1)
    products = shape.non_embedding_parameters + shape.vocab_rows * shape.width
    assert one == pytest.approx(2 * products, rel=0.01)  # biases and norms are left out
    assert forward_flops(shape, 3, 2048) == 3 * forward_flops(shape, 1, 2048)


def test_float32_and_bfloat16_are_offered_everywhere():
    assert {"float32", "bfloat16"} <= set(offered_dtypes())


@pytest.mark.parametrize(("instructions", "timed"), [(False, False), (True, True)])
def test_bfloat16_is_timed_where_the_processor_multiplies_it(monkeypatch, instructions, timed):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": instructions})
    dtypes = multiplied_dtypes.__wrapped__()
    assert ("bfloat16" in dtypes) == timed
    assert "float32" in dtypes


def test_a_theme_notes_how_a_peer_was_chosen():
    comparison = Comparison("theme")
    comparison.calibrated("case", "setting", {"s": 1.0})
    assert comparison.calibration == [{"case": "case", "setting": "setting", "s": 1.0}]


def test_losses_in_bfloat16_are_not_admitted_as_those_of_bfloat16_logits(series):
    ids_BT = torch.randint(512, (1, 100))
    errors = linear_errors(series / "step0", Setting("bfloat16"), ids_BT)
    assert errors["error"] > 2 * errors["error_of_own_logits"]
    errors = linear_errors(series / "step0", Setting("float32"), ids_BT)
    assert errors["error"] <= 1e-5
