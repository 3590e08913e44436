"""`Model.near_tie` bounds what rounding does to a margin, and is no larger than it need be."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch.nn.functional import cross_entropy

from pythia_fast.kernels.cpu import Arithmetic, has_amx
from pythia_fast.model import Model, Weights, neox
from pythia_fast.suite import Architecture, ModelSpec

ARITHMETICS = ("float32", *(("bfloat16", "split-bf16") if has_amx() else ()))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KINDS = [(dtype, by) for dtype in DTYPES for by in (*ARITHMETICS, "torch")]
"""The dtype of weights, and the arithmetic of the native kernels, or torch's."""


def test_these_are_all_arithmetics() -> None:
    assert set(ARITHMETICS) | {"bfloat16", "split-bf16"} == set(get_args(Arithmetic))


def model_of(
    architecture: Architecture, state: dict[str, torch.Tensor], dtype: torch.dtype, by: str
) -> Model:
    weights = Weights(architecture, dtype=dtype)
    weights.load_state_dict(state)
    spec = ModelSpec.local("of a state", architecture, (0,))
    if by != "torch":
        return Model(weights, spec, arithmetic=by)
    model = Model(weights, spec)
    model.native = None
    return model


@torch.no_grad()
def assert_bounds(model: Model, exact_BTV: torch.Tensor, ids_BT: torch.Tensor) -> None:
    """Logits and the lead of the truly best over the truly second err by less than the bound."""
    logits_BTV = model(ids_BT).double()
    assert (logits_BTV - exact_BTV).abs().max() <= model.near_tie
    best = exact_BTV.topk(2, -1)
    lead_BT1 = logits_BTV.gather(2, best.indices).diff(dim=-1)
    assert (lead_BT1 - best.values.diff(dim=-1)).abs().max() <= 0.7 * model.near_tie
    scores = model.score(ids_BT)
    clear_BT = scores.margin > model.near_tie
    assert torch.equal(scores.argmax[clear_BT], best.indices[:, :-1, 0][clear_BT])


@pytest.mark.parametrize(("dtype", "by"), KINDS)
@pytest.mark.parametrize("size", ["14m", "12b"])
def test_random_weights(
    scaled: Callable, pair_of: Callable, size: str, dtype: torch.dtype, by: str
) -> None:
    """Whose rounding to the dtype counts, too: what they are compared with is float16's."""
    architecture = scaled(size)
    pair = pair_of(architecture, torch.float16)
    g = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(architecture.vocab_rows, (2, 64), generator=g)
    with torch.no_grad():
        exact_BTV = pair.peer.double()(ids_BT).logits
    assert_bounds(model_of(architecture, pair.state, dtype, by), exact_BTV, ids_BT)


@pytest.mark.parametrize(("dtype", "by"), KINDS)
@pytest.mark.parametrize("layers", [1, 6, 18])
def test_depth(
    tiny: Architecture, pair_of: Callable, layers: int, dtype: torch.dtype, by: str
) -> None:
    architecture = replace(tiny, layers=layers)
    pair = pair_of(architecture, torch.float16)
    ids_BT = torch.randint(160, (8, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact_BTV = pair.peer.double()(ids_BT).logits
    assert_bounds(model_of(architecture, pair.state, dtype, by), exact_BTV, ids_BT)


@pytest.fixture(scope="module")
def trained(tiny: Architecture, pair_of: Callable) -> tuple[Weights, torch.Tensor]:
    """A model that has learnt 16 sequences by heart, which makes its logits large."""
    architecture = replace(tiny, layers=3)
    ids_BT = torch.randint(160, (16, 64), generator=torch.Generator().manual_seed(1))
    weights = pair_of(architecture).ours.weights
    with torch.no_grad():
        weights.flat.mul_(0.3)
    shape = neox.Shape.of(architecture)
    leaf, _ = weights.trainable()
    optimizer = torch.optim.Adam([leaf], lr=5e-3)
    for _ in range(120):
        logits_BTV = neox.logits(ids_BT, weights.trainable()[1], shape)
        loss = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    leaf.requires_grad_(False)
    weights.refresh()
    return weights, ids_BT


@pytest.mark.parametrize(("dtype", "by"), KINDS)
def test_trained_weights(
    trained: tuple[Weights, torch.Tensor], to_transformers: Callable, dtype: torch.dtype, by: str
) -> None:
    source, ids_BT = trained
    architecture = source.architecture
    state = {name: x.half().float() for name, x in source.state_dict().items()}
    peer = to_transformers(architecture, state)
    with torch.no_grad():
        exact_BTV = peer.double()(ids_BT).logits
    model = model_of(architecture, state, dtype, by)
    assert_bounds(model, exact_BTV, ids_BT)
    assert (model.score(ids_BT).margin <= model.near_tie).float().mean() <= 0.02


@pytest.mark.skipif(not has_amx(), reason="split-bf16 needs AMX")
def test_split_bf16_is_nearly_float32(scaled: Callable, pair_of: Callable) -> None:
    pair = pair_of(scaled("14m"))
    model = model_of(pair.architecture, pair.state, torch.float32, "split-bf16")
    assert pair.ours.near_tie < model.near_tie < 0.01


@pytest.mark.skipif(not has_amx(), reason="bfloat16 is multiplied with AMX")
def test_it_follows_the_coarser_of_dtype_and_arithmetic(tiny: Architecture) -> None:
    architecture = replace(tiny, layers=1)

    def bound(dtype: torch.dtype, arithmetic: Arithmetic) -> float:
        weights = Weights(architecture, dtype=dtype)
        weights.flat.fill_(1)
        spec = ModelSpec.local("ones", architecture, (0,))
        return Model(weights, spec, arithmetic=arithmetic).near_tie

    coarsest = bound(torch.bfloat16, "bfloat16")
    assert bound(torch.float32, "bfloat16") == coarsest
    assert bound(torch.bfloat16, "split-bf16") == coarsest
    assert bound(torch.float32, "split-bf16") < coarsest / 100


def test_it_follows_the_weights(tiny: Architecture, pair_of: Callable) -> None:
    model = pair_of(tiny).ours
    before = model.near_tie
    state = model.state_dict()
    state["embed_out.weight"] *= 10
    model.weights.load_state_dict(state)
    assert model.near_tie == pytest.approx(10 * before)
