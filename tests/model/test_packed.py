"""What the native kernels read follows the arena, packed or not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pythia_fast.core import PackedWeight, instruction_sets
from pythia_fast.kernels.cpu import Arithmetic
from pythia_fast.model import Model, Weights
from pythia_fast.model.decode import NativeDecoder
from pythia_fast.model.native import Native
from pythia_fast.model.neox import Shape
from pythia_fast.suite import Architecture

KINDS = ["float32", *(["bfloat16", "split-bf16"] if "amx" in instruction_sets() else [])]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Arithmetic:
    kind: Arithmetic = request.param
    return kind


@pytest.fixture(params=["parallel", "sequential"])
def architecture(small: Architecture, request: pytest.FixtureRequest) -> Architecture:
    return replace(small, parallel_residual=request.param == "parallel")


@pytest.fixture
def ids_BT(small: Architecture) -> torch.Tensor:
    return torch.randint(small.vocab_rows, (3, 40), generator=torch.Generator().manual_seed(0))


def fresh(kind: Arithmetic, weights: Weights) -> Native:
    return Native(weights.architecture, Shape.of(weights.architecture), kind)


def test_after_each_load_and_each_arena_it_is_that_one(
    pair_of: Callable, architecture: Architecture, kind: Arithmetic, ids_BT: torch.Tensor
) -> None:
    model: Model = pair_of(architecture).ours
    one, y_BT, ids = model.weights, ids_BT[:, 1:], ids_BT[:, :-1]
    other = Weights(architecture)
    other.load_state_dict({name: tensor / 2 for name, tensor in one.state_dict().items()})
    native = fresh(kind, one)
    seen = []
    for weights in (one, other, one):
        seen.append(native.nll(ids, y_BT, weights))
        assert torch.equal(seen[-1], fresh(kind, weights).nll(ids, y_BT, weights))
    assert torch.equal(seen[0], seen[2])
    one.flat.mul_(0.5)
    one.refresh()
    again = native.nll(ids, y_BT, one)
    assert torch.equal(again, seen[1])
    assert not torch.equal(again, seen[0])


def test_copies_are_made_where_they_pay_and_fit_and_change_nothing(
    pair_of: Callable,
    architecture: Architecture,
    kind: Arithmetic,
    ids_BT: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = pair_of(architecture).ours.weights
    packed = fresh(kind, weights)
    expected = packed.nll(ids_BT[:, :-1], ids_BT[:, 1:], weights)
    copied = isinstance(packed.packed(weights).unembed, PackedWeight)
    assert copied == (kind != "float32")
    monkeypatch.setattr("pythia_fast.model.packed.LARGEST_COPY", 0)
    lying = fresh(kind, weights)
    assert lying.packed(weights).unembed is weights.unembed_VD
    assert torch.equal(lying.nll(ids_BT[:, :-1], ids_BT[:, 1:], weights), expected)


def test_memory_is_used_again(pair_of: Callable, small: Architecture, kind: Arithmetic) -> None:
    weights = pair_of(small).ours.weights
    native = fresh(kind, weights)
    before = native.packed(weights)
    assert native.packed(weights) is before
    weights.refresh()
    after = native.packed(weights)
    assert after is not before
    assert after.unembed is before.unembed


def test_decoders_of_two_arenas_take_turns(
    pair_of: Callable, architecture: Architecture, kind: Arithmetic, ids_BT: torch.Tensor
) -> None:
    """What is packed for one is not what the other multiplies by."""
    one = pair_of(architecture).ours.weights
    other = Weights(architecture)
    other.load_state_dict({name: tensor / 2 for name, tensor in one.state_dict().items()})
    shared = fresh(kind, one)

    def decoders(natives: list[Native]) -> list[NativeDecoder]:
        return [
            NativeDecoder(native, weights, len(ids_BT), 40)
            for native, weights in zip(natives, (one, other), strict=True)
        ]

    together, alone = decoders([shared, shared]), decoders([fresh(kind, one), fresh(kind, other)])
    for part_BT in (ids_BT[:, :20], ids_BT[:, 20:22], ids_BT[:, 22:23]):
        for decoder in (*together, *alone):
            decoder.feed(part_BT)
        for mine, expected in zip(together, alone, strict=True):
            assert torch.equal(mine.logits(), expected.logits())
            assert torch.equal(mine.best()[0], expected.best()[0])
