"""The forward pass against transformers' GPTNeoXForCausalLM."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from pythia_fast.kernels.cpu import has_amx
from pythia_fast.model import Model, neox
from pythia_fast.suite import Architecture

LOGIT_TOLERANCE = 1e-4
NLL_TOLERANCE = 1e-5


def ids_for(architecture: Architecture, B: int, T: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(architecture.vocab_rows, (B, T), generator=g)


def nll_of(logits_BTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    targets_N = ids_BT[:, 1:].flatten()
    losses_N = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), targets_N, reduction="none")
    return losses_N.view(len(ids_BT), -1)


@torch.no_grad()
def assert_same(pair, ids_BT: torch.Tensor) -> None:
    expected_BTV = pair.peer(ids_BT).logits
    assert expected_BTV.abs().max() > 5  # logits as a trained model has them
    difference = (pair.ours(ids_BT) - expected_BTV).abs().max()
    assert difference <= LOGIT_TOLERANCE
    if ids_BT.shape[1] > 1:
        # Of its float32 logits in float64: without AVX-512, torch's own float32 cross entropy errs
        # by up to 1.9e-5 here, all one way, beside 6e-6 of ours.
        expected_BT = nll_of(expected_BTV.double(), ids_BT)
        nll_difference = (pair.ours.nll(ids_BT) - expected_BT).abs().max()
        assert nll_difference <= NLL_TOLERANCE


def test_every_size_of_the_suite(size: Architecture, pair_of: Callable) -> None:
    assert_same(pair_of(size), ids_for(size, 2, 24))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("parallel_residual", [True, False])
def test_residual_activation_and_attention(
    small: Architecture,
    pair_of: Callable,
    parallel_residual: bool,
    activation: str,
    attention: str,
) -> None:
    architecture = replace(small, parallel_residual=parallel_residual, activation=activation)
    assert_same(pair_of(architecture, attention=attention), ids_for(architecture, 3, 40))


@pytest.mark.parametrize(("B", "T"), [(1, 1), (5, 1), (1, 2), (2, 2048), (3, 1000)])
def test_any_batch_and_length(small: Architecture, pair_of: Callable, B: int, T: int) -> None:
    assert_same(pair_of(small), ids_for(small, B, T))


@pytest.mark.parametrize("share", [0, 8, 16])
def test_other_rotary_shares_and_bases(small: Architecture, pair_of: Callable, share: int) -> None:
    architecture = replace(small, rotary_dims=share, rotary_base=500.0, layer_norm_eps=1e-3)
    if share == 0:
        pytest.importorskip("transformers")
    assert_same(pair_of(architecture), ids_for(architecture, 2, 64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_err_no_more_than_transformers(
    size: Architecture, pair_of: Callable, to_transformers: Callable, dtype: torch.dtype
) -> None:
    """Both against float64 with the very same weights."""
    pair = pair_of(size, dtype)
    ids_BT = ids_for(size, 2, 64)
    exact = to_transformers(size, pair.state, torch.float64)
    with torch.no_grad():
        expected_BTV, peers_BTV = exact(ids_BT).logits, pair.peer(ids_BT).logits.double()
    ours_BT, peers_BT = pair.ours.nll(ids_BT).double(), nll_of(peers_BTV, ids_BT)
    for ours, peers, expected, mean_ratio in (
        (pair.ours(ids_BT).double(), peers_BTV, expected_BTV, 1.0),
        (ours_BT, peers_BT, nll_of(expected_BTV, ids_BT), 1.5),  # few losses: 1 ± 0.15
    ):
        error, peers_error = (ours - expected).abs(), (peers - expected).abs()
        assert error.max() <= 2 * peers_error.max() + 1e-6
        assert error.mean() <= mean_ratio * peers_error.mean() + 1e-6


@pytest.mark.skipif(not has_amx(), reason="split-bf16 needs AMX")
def test_losses_in_split_bf16(size: Architecture, pair_of: Callable) -> None:
    """A product errs by up to 2^-16 of a term, so a logit by some 2^-16 · sqrt(layers + 1) · 3, the
    deviation of these logits, if each term erred by as much in a direction of its own. A typical
    term errs by less than half of that: so do losses on average, and three times as much is rare.
    """
    pair = pair_of(size)
    model = Model(pair.ours.weights, pair.ours.spec, arithmetic="split-bf16")
    unit = 2.0**-16 * (size.layers + 1) ** 0.5 * 3  # 8e-5
    ids_BT = ids_for(size, 4, 65)
    with torch.no_grad():
        difference_BT = (model.nll(ids_BT) - nll_of(pair.peer(ids_BT).logits, ids_BT)).abs()
    assert difference_BT.mean() <= unit / 2
    assert difference_BT.max() <= 1.5 * unit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_sequence_is_the_same_in_any_batch(
    small: Architecture, pair_of: Callable, dtype: torch.dtype
) -> None:
    model = pair_of(small, dtype).ours
    ids_BT = ids_for(small, 70, 96)
    together = model.nll(ids_BT)
    for row in (0, 20, 21, 69):
        alone = model.nll(ids_BT[row : row + 1])[0]
        tolerance = 20 * torch.finfo(dtype).eps * 10  # some roundings of logits of size 10
        assert (together[row] - alone).abs().max() <= tolerance


def test_large_queries_and_keys_give_finite_losses_in_float16(
    pair_of: Callable, small: Architecture
) -> None:
    """14m's q·k overflows float16; so do these, and nothing that is kept may."""
    pair = pair_of(small, torch.float16)
    state = {
        name: x * (60 if "query_key_value.weight" in name else 1) for name, x in pair.state.items()
    }
    model = pair.ours
    model.weights.load_state_dict(state)
    ids_BT = ids_for(small, 2, 200)
    w = model.weights.layers[0]
    x_BTD = neox.layer_norm(model.weights.embed_VD[ids_BT], w.ln1, 1e-5)
    q_BTHK = torch.nn.functional.linear(x_BTD, w.qkv_CD).view(2, 200, 4, 3, 16)[:, :, :, 0]
    assert q_BTHK.isfinite().all()
    assert (q_BTHK * q_BTHK).sum(-1).isinf().any()
    assert model.nll(ids_BT).isfinite().all()
    assert model(ids_BT).isfinite().all()


@pytest.mark.parametrize("parallel_residual", [True, False])
def test_gradients_are_those_of_transformers(
    small: Architecture, pair_of: Callable, parallel_residual: bool
) -> None:
    architecture = replace(small, parallel_residual=parallel_residual)
    pair = pair_of(architecture)
    ids_BT = ids_for(architecture, 3, 30)
    nll_of(pair.peer(ids_BT).logits, ids_BT).mean().backward()
    weights = pair.ours.weights
    leaf, parameters = weights.trainable()
    shape = neox.Shape.of(architecture)
    for _ in range(2):  # the same views serve twice
        leaf.grad = None
        nll_of(neox.logits(ids_BT, parameters, shape), ids_BT).mean().backward()
    assert leaf.grad is not None
    for name, place in weights.layout.places.items():
        strides = (place.stride, 1)[-len(place.shape) :]
        ours = leaf.grad.as_strided(place.shape, strides, place.offset)
        theirs = pair.peer.get_parameter(name.replace("embed_out.", "lm_head.")).grad
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6, msg=name)


def test_training_reaches_inference_after_a_refresh(small: Architecture, pair_of: Callable) -> None:
    model = pair_of(small).ours
    ids_BT = ids_for(small, 4, 30)
    before = model.nll(ids_BT).mean()
    shape = neox.Shape.of(small)
    leaf, _ = model.weights.trainable()
    optimizer = torch.optim.Adam([leaf], lr=1e-2)
    for _ in range(10):
        _, parameters = model.weights.trainable()
        loss = nll_of(neox.logits(ids_BT, parameters, shape), ids_BT).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.weights.refresh()
    with torch.no_grad():
        _, parameters = model.weights.trainable()
        trained_BTV = neox.logits(ids_BT, parameters, shape)
    after = model.nll(ids_BT)
    assert after.mean() < before - 1
    torch.testing.assert_close(after, nll_of(trained_BTV, ids_BT), rtol=0, atol=1e-5)
