"""The questions a model answers, and the input it refuses."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pythia_fast.errors import ArgumentError, TokenRangeError
from pythia_fast.kernels import reference
from pythia_fast.kernels.panels import LANES
from pythia_fast.model import Model, Weights
from pythia_fast.suite import Architecture

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def ids_BT(tiny: Architecture) -> torch.Tensor:
    return torch.randint(tiny.vocab_rows, (50, 60), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("start", [0, 1, 31, 58, 59])
def test_scores_are_those_of_the_logits(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor, start: int
) -> None:
    model = pair_of(tiny).ours
    scores = model.score(ids_BT, start)
    logits_BTV = model(ids_BT)[:, start:-1].double()
    expected = reference.linear_scores(
        logits_BTV.flatten(0, 1), torch.eye(160).double(), ids_BT[:, start + 1 :].flatten()
    )
    shape = (50, 59 - start)
    for name in ("nll", "logsumexp", "target_logit", "margin"):
        got = getattr(scores, name)
        assert got.dtype == torch.float32
        assert got.shape == shape
        torch.testing.assert_close(
            got.double(), getattr(expected, name).view(shape), rtol=0, atol=1e-5
        )
    clear = expected.margin.view(shape) > 1e-4
    assert torch.equal(scores.argmax[clear], expected.argmax.view(shape)[clear])
    torch.testing.assert_close(model.nll(ids_BT)[:, start:], scores.nll, rtol=0, atol=1e-5)


def test_the_last_label_takes_no_position(tiny: Architecture, pair_of: Callable) -> None:
    """A row of the training data is max_positions inputs and one more label."""
    model = pair_of(tiny).ours
    ids_BT = torch.randint(160, (3, 129), generator=torch.Generator().manual_seed(1))
    nll_BT = model.nll(ids_BT)
    assert nll_BT.shape == (3, 128)
    torch.testing.assert_close(nll_BT[:, :-1], model.nll(ids_BT[:, :-1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.score(ids_BT, 100).nll, nll_BT[:, 100:], rtol=0, atol=1e-5)
    torch.testing.assert_close(model.exact(ids_BT).nll, nll_BT, rtol=0, atol=1e-5)
    for ask in (model, model.hidden_states):
        with pytest.raises(ArgumentError, match="1 to 128 tokens"):
            ask(ids_BT)


def test_one_token_has_no_loss(tiny: Architecture, pair_of: Callable) -> None:
    model = pair_of(tiny).ours
    assert model.nll([[1], [2]]).shape == (2, 0)
    assert model.score([[1], [2]]).margin.shape == (2, 0)
    assert model.exact([[1], [2]]).margin.shape == (2, 0)
    assert model([[1], [2]]).shape == (2, 1, 160)


@pytest.mark.parametrize("dtype", DTYPES)
def test_hidden_states_are_those_of_transformers(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor, dtype: torch.dtype
) -> None:
    pair = pair_of(replace(tiny, layers=3), dtype)
    with torch.no_grad():
        expected = pair.peer(ids_BT, output_hidden_states=True).hidden_states
    ours = pair.ours.hidden_states(ids_BT)
    assert list(ours) == [0, 1, 2, 3]
    for layer, theirs in enumerate(expected):
        tolerance = 1e-5 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
        assert ours[layer].dtype == dtype
        assert (ours[layer] - theirs).abs().max() <= tolerance * theirs.abs().max()
    some = pair.ours.hidden_states(ids_BT, (-1, 1))
    assert list(some) == [-1, 1]
    assert torch.equal(some[-1], ours[3])
    assert torch.equal(some[1], ours[1])


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_is_refused(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor, layer: int
) -> None:
    with pytest.raises(ArgumentError, match="0 to 2"):
        pair_of(tiny).ours.hidden_states(ids_BT, (0, layer))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint8])
def test_every_integer_type_will_do(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor, dtype: type
) -> None:
    model = pair_of(tiny).ours
    assert torch.equal(model.nll(ids_BT.numpy().astype(dtype)), model.nll(ids_BT))
    assert torch.equal(model.nll(ids_BT.tolist()), model.nll(ids_BT))
    read_only = ids_BT.numpy().astype(dtype)
    read_only.flags.writeable = False  # as those of a file that is mapped
    assert torch.equal(model.nll(read_only), model.nll(ids_BT))


BAD_IDS = {
    "one dimension": torch.zeros(4, dtype=torch.int64),
    "three dimensions": torch.zeros(1, 1, 4, dtype=torch.int64),
    "floats": torch.zeros(1, 4),
    "complex numbers": torch.zeros(1, 4, dtype=torch.complex64),
    "booleans": torch.zeros(1, 4, dtype=torch.bool),
    "no sequence": torch.zeros(0, 4, dtype=torch.int64),
    "no token": torch.zeros(2, 0, dtype=torch.int64),
    "too long": torch.zeros(1, 130, dtype=torch.int64),
    "ragged": [[1, 2], [3]],
    "words": [["a"]],
}


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
def test_other_input_is_refused(tiny: Architecture, pair_of: Callable, bad: object) -> None:
    model = pair_of(tiny).ours
    for ask in (
        model,
        model.nll,
        model.score,
        model.exact,
        model.hidden_states,
        lambda ids: model.generate(ids, 1),
    ):
        with pytest.raises(ArgumentError, match="ids"):
            ask(bad)


@pytest.mark.parametrize("ids", [[1, 2, 3], np.array([1, 2, 3]), torch.tensor([1, 2, 3])])
def test_how_one_sequence_is_given_is_told(
    tiny: Architecture, pair_of: Callable, ids: object
) -> None:
    model = pair_of(tiny).ours
    with pytest.raises(ArgumentError, match=r"shape \(3,\): a single sequence is ids\[None\]"):
        model.nll(ids)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"shape \(1, 1, 3\)$"):
        model.nll(np.ones((1, 1, 3), int))


@pytest.mark.parametrize("token", [-1, 160, 2**40])
def test_an_id_outside_the_embedding_is_named(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor, token: int
) -> None:
    bad = ids_BT.clone()
    bad[7, 11] = bad[9, 2] = token
    with pytest.raises(TokenRangeError, match=r"sequence 7 .* offset 11") as caught:
        pair_of(tiny).ours.nll(bad)
    assert (caught.value.sequence, caught.value.offset, caught.value.token) == (7, 11, token)


@pytest.mark.parametrize("start", [-1, 60])
def test_a_start_outside_the_sequence_is_refused(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor, start: int
) -> None:
    with pytest.raises(ArgumentError, match="0 to 59"):
        pair_of(tiny).ours.score(ids_BT, start)


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_bounded_by_passes_that_change_nothing(
    tiny: Architecture,
    pair_of: Callable,
    ids_BT: torch.Tensor,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Model = pair_of(tiny, dtype).ours
    assert model.native is not None
    whole, hidden = model(ids_BT), model.hidden_states(ids_BT)
    seen = []
    room = model.native.room
    monkeypatch.setattr(model.native, "room", lambda panels: seen.append(panels) or room(panels))
    monkeypatch.setattr("pythia_fast.model.scoring.NATIVE_PASS_TOKENS", 7 * 60)
    monkeypatch.setattr("pythia_fast.model.native.LOGIT_ROWS", 96)
    assert torch.equal(model(ids_BT), whole)
    for layer, x_BTD in model.hidden_states(ids_BT).items():
        assert torch.equal(x_BTD, hidden[layer])
    assert 0 < max(seen) <= 7 * 4  # sequences of four panels


@pytest.mark.parametrize("tokens", [2, 3, 17, 18])
def test_short_sequences_take_no_more_memory_than_long_ones(
    tiny: Architecture, pair_of: Callable, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """A pass is of so many tokens with what fills up their panels."""
    model: Model = pair_of(tiny).ours
    assert model.native is not None
    ids_BT = torch.arange(50 * tokens).view(50, tokens) % tiny.vocab_rows
    whole = model.nll(ids_BT)
    seen = []
    room = model.native.room
    monkeypatch.setattr(model.native, "room", lambda panels: seen.append(panels) or room(panels))
    monkeypatch.setattr("pythia_fast.model.scoring.NATIVE_PASS_TOKENS", 8 * LANES)
    assert torch.equal(model.nll(ids_BT), whole)
    assert max(seen) == 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_and_scores_are_of_one_arithmetic(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor, dtype: torch.dtype
) -> None:
    """They differ by the rounding of the result: half a unit of the largest logit."""
    model: Model = pair_of(tiny, dtype).ours
    logits_BTV, scores = model(ids_BT)[:, :-1].float(), model.score(ids_BT)
    rounding = torch.finfo(dtype).eps / 2 * float(logits_BTV.abs().max()) + 1e-5
    logit_BT = logits_BTV.gather(2, ids_BT[:, 1:, None])[..., 0]
    assert (logit_BT - scores.target_logit).abs().max() <= rounding
    assert (logits_BTV.logsumexp(-1) - scores.logsumexp).abs().max() <= rounding
    clear_BT = scores.margin > 2 * rounding
    assert clear_BT.float().mean() > 0.8
    assert torch.equal(logits_BTV.argmax(-1)[clear_BT], scores.argmax[clear_BT])


def test_another_arena_takes_the_place_of_the_first(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor
) -> None:
    first, second = pair_of(tiny, seed=1).ours, pair_of(tiny, torch.float16, seed=2).ours
    expected = second.nll(ids_BT)
    first.weights = second.weights
    assert first.dtype == torch.float16
    assert torch.equal(first.nll(ids_BT), expected)
    with pytest.raises(ArgumentError, match="arena"):
        first.weights = Weights(replace(tiny, layers=1))


def test_another_dtype_is_refused(tiny: Architecture) -> None:
    with pytest.raises(ArgumentError, match="float64"):
        Weights(tiny, dtype=torch.float64)


def test_the_state_goes_round(tiny: Architecture, pair_of: Callable) -> None:
    pair = pair_of(tiny)
    state = pair.ours.state_dict()
    assert list(state) == list(tiny.shapes())
    for name, tensor in state.items():
        assert torch.equal(tensor, pair.state[name])
        tensor.zero_()  # a copy: the model keeps its own
    assert torch.equal(pair.ours.state_dict()["embed_out.weight"], pair.state["embed_out.weight"])


def test_an_arena_of_another_dtype_is_multiplied_in_its_own_way(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor
) -> None:
    other, expected = pair_of(tiny).ours, pair_of(tiny, torch.bfloat16).ours
    other.weights = expected.weights
    assert repr(other) == repr(expected)
    assert torch.equal(other.nll(ids_BT), expected.nll(ids_BT))


def test_a_model_says_what_it_is(tiny: Architecture, pair_of: Callable) -> None:
    model: Model = pair_of(tiny).ours
    assert repr(model) == "Model('random', step=None, torch.float32, cpu)"
    half = pair_of(tiny, torch.float16).ours
    assert repr(half) == "Model('random', step=None, torch.float16 by float32, cpu)"
    assert model.architecture == tiny


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_or_pickle_says_what_to_do_instead(
    tiny: Architecture, pair_of: Callable, how: Callable[[Model], object]
) -> None:
    with pytest.raises(TypeError, match=r"pythia_fast\.load.*to_transformers"):
        how(pair_of(tiny).ours)
