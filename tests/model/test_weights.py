"""The arena: its map, loads from files, and round trips."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pythia_fast.errors import PythiaFastError, WeightsError
from pythia_fast.model import Weights
from pythia_fast.model.parameters import ALIGNMENT_BYTES, Layout
from pythia_fast.series import LocalSeries
from pythia_fast.suite import Architecture

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@settings(deadline=None, max_examples=30)
@given(
    layers=st.integers(1, 3),
    width=st.integers(1, 9),
    intermediate=st.integers(1, 40),
    vocab_rows=st.integers(1, 50),
    itemsize=st.sampled_from((2, 4)),
)
def test_places_fill_the_arena_without_overlap(
    layers: int, width: int, intermediate: int, vocab_rows: int, itemsize: int
) -> None:
    architecture = Architecture(
        layers=layers,
        width=width,
        heads=1,
        vocab_rows=vocab_rows,
        intermediate=intermediate,
        rotary_dims=0,
    )
    layout = Layout(architecture, itemsize)
    taken = torch.zeros(layout.numel, dtype=torch.int64)
    for name, place in layout.places.items():
        assert place.shape == architecture.shapes()[name]
        taken.as_strided((place.rows, place.columns), (place.stride, 1), place.offset).add_(1)
    assert taken.max() == 1
    assert taken.sum() == architecture.parameters
    assert all(offset * itemsize % ALIGNMENT_BYTES == 0 for offset, _ in layout.slots)
    ends = [offset + prod(shape) for offset, shape in layout.slots]
    starts = [offset for offset, _ in layout.slots[1:]] + [layout.numel]
    assert all(end <= start for end, start in zip(ends, starts, strict=True))


def test_the_views_are_the_weights(tiny: Architecture, pair_of: Callable) -> None:
    pair = pair_of(tiny)
    weights, state = pair.ours.weights, pair.state
    block, prefix = weights.layers[1], "gpt_neox.layers.1."
    for view, name in (
        (weights.embed_VD, "gpt_neox.embed_in.weight"),
        (weights.unembed_VD, "embed_out.weight"),
        (weights.final_norm.weight_D, "gpt_neox.final_layer_norm.weight"),
        (block.ln1.bias_D, prefix + "input_layernorm.bias"),
        (block.ln2.weight_D, prefix + "post_attention_layernorm.weight"),
        (block.qkv_CD, prefix + "attention.query_key_value.weight"),
        (block.mlp_in_bias_F, prefix + "mlp.dense_h_to_4h.bias"),
        (block.attention_out_DD, prefix + "attention.dense.weight"),
        (block.mlp_out_DF, prefix + "mlp.dense_4h_to_h.weight"),
    ):
        assert torch.equal(view, state[name]), name
        assert view.untyped_storage().data_ptr() == weights.flat.untyped_storage().data_ptr()
    assert torch.equal(block.out_DE, torch.cat((block.attention_out_DD, block.mlp_out_DF), 1))
    assert torch.equal(
        block.out_bias_D,
        state[prefix + "attention.dense.bias"] + state[prefix + "mlp.dense_4h_to_h.bias"],
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_load_is_what_safetensors_and_torch_read(
    tiny: Architecture, tiny_series: Path, dtype: torch.dtype
) -> None:
    """Steps alternate between the two formats; both, in every dtype, over an arena in use."""
    weights = Weights(tiny, dtype=dtype)
    address = weights.flat.data_ptr()
    series = LocalSeries(tiny_series)
    for step in series.steps[:4]:
        folder = tiny_series / f"step{step}"
        if (folder / "model.safetensors").exists():
            expected = load_file(folder / "model.safetensors")
        else:
            expected = torch.load(folder / "pytorch_model.bin", weights_only=True)
        report = weights.load(series.open(step))
        assert report.nonfinite == {}
        assert report.read_bytes == 2 * tiny.parameters
        assert report.copy_s == 0.0  # on a CPU the arena itself is read into
        state = weights.state_dict()
        for name in tiny.shapes():
            assert torch.equal(state[name], expected[name].to(dtype)), name
        block = weights.layers[0]
        expected_bias = block.attention_out_bias_D + block.mlp_out_bias_D
        assert torch.equal(block.out_bias_D, expected_bias)
    assert weights.flat.data_ptr() == address
    assert weights.generation == 4


def checkpoint_folder(
    folder: Path, architecture: Architecture, state: dict[str, torch.Tensor]
) -> LocalSeries:
    step = folder / "step1"
    step.mkdir(parents=True)
    (step / "config.json").write_text(json.dumps(architecture.to_config()))
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, step / "model.safetensors"
    )
    return LocalSeries(folder)


def test_what_is_not_finite_is_counted_by_name(
    tmp_path: Path, tiny: Architecture, pair_of: Callable
) -> None:
    state = dict(pair_of(tiny).state)
    name = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
    state[name] = state[name].clone()
    state[name][3, 5], state[name][0, 0], state[name][63, 255] = torch.nan, torch.inf, -torch.inf
    series = checkpoint_folder(tmp_path, tiny, state)
    weights = Weights(tiny)
    assert weights.load(series.open(1)).nonfinite == {name: 3}
    assert weights.layers[1].mlp_out_DF.isfinite().logical_not().sum() == 3


def test_a_value_that_float16_cannot_hold_is_counted(
    tmp_path: Path, tiny: Architecture, pair_of: Callable
) -> None:
    state = dict(pair_of(tiny).state)
    state["embed_out.weight"] = state["embed_out.weight"] * 1e6
    weights = Weights(tiny, dtype=torch.float16)
    report = weights.load(checkpoint_folder(tmp_path, tiny, state).open(1))
    expected = weights.unembed_VD.isfinite().logical_not().sum()
    assert report.nonfinite == {"embed_out.weight": expected}


def test_another_architecture_is_refused_before_anything_is_written(
    tiny: Architecture, tiny_series: Path
) -> None:
    weights = Weights(replace(tiny, intermediate=128))
    with pytest.raises(WeightsError, match="resident model"):
        weights.load(LocalSeries(tiny_series).open(1))
    assert weights.flat.count_nonzero() == 0
    assert weights.generation == 0


@pytest.mark.parametrize(
    "other",
    [{"parallel_residual": False}, {"rotary_dims": 8}, {"activation": "gelu_tanh"}],
    ids=str,
)
def test_equal_shapes_do_not_make_equal_models(
    tiny: Architecture, tiny_series: Path, other: dict
) -> None:
    """The forward pass follows the resident architecture: another one would be silently wrong."""
    weights = Weights(replace(tiny, **other))
    with pytest.raises(WeightsError, match="resident model"):
        weights.load(LocalSeries(tiny_series).open(1))
    assert weights.generation == 0


def test_a_read_that_fails_leaves_nothing_to_be_mistaken_for_weights(
    tmp_path: Path, tiny: Architecture, pair_of: Callable
) -> None:
    pair = pair_of(tiny)
    series = checkpoint_folder(tmp_path, tiny, pair.state)
    checkpoint = series.open(1)
    with (tmp_path / "step1" / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(PythiaFastError, match=r"model\.safetensors"):
        pair.ours.weights.load(checkpoint)
    assert pair.ours.weights.flat.isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_load_state_dict_goes_round(
    tiny: Architecture, pair_of: Callable, dtype: torch.dtype
) -> None:
    state = {name: x.to(dtype) for name, x in pair_of(tiny).state.items()}
    weights = Weights(tiny, dtype=dtype)
    weights.load_state_dict(state)
    for name, tensor in weights.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_state_that_does_not_fit_is_refused(tiny: Architecture, pair_of: Callable) -> None:
    state = pair_of(tiny).state
    weights = Weights(tiny)
    bias = "gpt_neox.layers.0.attention.dense.bias"
    without = {name: x for name, x in state.items() if name != bias}
    for bad, words in (
        (without, f"lack {bias}"),
        ({**state, "lm_head.weight": state["embed_out.weight"]}, "unknown lm_head.weight"),
        ({**state, bias: torch.zeros(63)}, r"\(63,\).*\(64,\)"),
        ({}, "and 24 more"),
    ):
        with pytest.raises(WeightsError, match=words):
            weights.load_state_dict(bad)
    assert weights.flat.count_nonzero() == 0


@pytest.mark.parametrize(("a", "b"), [*itertools.permutations((1, 2, 4), 2)])
def test_a_swap_leaves_nothing_of_the_last_checkpoint(
    tiny: Architecture, tiny_series: Path, a: int, b: int
) -> None:
    series = LocalSeries(tiny_series)
    fresh, used = Weights(tiny), Weights(tiny)
    used.load(series.open(a))
    used.load(series.open(b))
    fresh.load(series.open(b))
    assert torch.equal(fresh.flat, used.flat)
