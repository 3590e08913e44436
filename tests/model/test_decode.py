"""Decoders, native and torch's: one token after another against all at once."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pythia_fast.core import instruction_sets
from pythia_fast.errors import ArgumentError
from pythia_fast.model import Model
from pythia_fast.model.decode import Decoder, NativeDecoder, TorchDecoder
from pythia_fast.model.native import Native
from pythia_fast.model.neox import Shape
from pythia_fast.suite import Architecture

KINDS = ["torch", "float32", *(["bfloat16", "split-bf16"] if "amx" in instruction_sets() else [])]


def decoder_of(kind: str, model: Model, sequences: int, positions: int) -> Decoder:
    architecture, weights = model.architecture, model.weights
    shape = Shape.of(architecture)
    if kind == "torch":
        return TorchDecoder(architecture, shape, weights.views, sequences, positions)
    native = Native(architecture, shape, kind)  # type: ignore[arg-type]
    return NativeDecoder(native, weights, sequences, positions)


@pytest.fixture(params=["parallel", "sequential"])
def architecture(small: Architecture, request: pytest.FixtureRequest) -> Architecture:
    return replace(small, parallel_residual=request.param == "parallel")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def some_ids(architecture: Architecture, B: int, T: int) -> torch.Tensor:
    return torch.randint(
        architecture.vocab_rows, (B, T), generator=torch.Generator().manual_seed(B)
    )


@pytest.mark.parametrize(("B", "start"), [(1, 31), (17, 20), (40, 32)])
def test_fed_the_true_tokens_it_says_what_the_whole_sequence_says(
    pair_of: Callable, architecture: Architecture, kind: str, B: int, start: int
) -> None:
    T = start + 4
    model, ids_BT = pair_of(architecture).ours, some_ids(architecture, B, T)
    expected_BTV = model(ids_BT)
    # The largest errors of logits as large as these, up to 13; see also test_near_tie.py.
    tolerance = 0.3 if kind == "bfloat16" else 1e-3 if kind == "split-bf16" else 1e-4
    decoder = decoder_of(kind, model, B, T)
    fed = 0
    for end in range(start, T + 1):
        decoder.feed(ids_BT[:, fed:end])
        fed = end
        logits_BV = decoder.logits()
        token_B, margin_B = decoder.best()
        assert logits_BV.dtype == torch.float32
        assert (logits_BV - expected_BTV[:, end - 1]).abs().max() < tolerance
        best_B2 = logits_BV.topk(2).values
        assert torch.equal(token_B, logits_BV.argmax(-1))
        assert (margin_B - (best_B2[:, 0] - best_B2[:, 1])).abs().max() < 1e-5


def test_several_tokens_at_a_time_are_one_after_another(
    pair_of: Callable, architecture: Architecture, kind: str
) -> None:
    model, ids_BT = pair_of(architecture).ours, some_ids(architecture, 3, 40)
    one, several = (decoder_of(kind, model, 3, 40) for _ in range(2))
    for decoder in (one, several):
        decoder.feed(ids_BT[:, :30])
    for t in range(30, 40):
        one.feed(ids_BT[:, t : t + 1])
    several.feed(ids_BT[:, 30:])
    torch.testing.assert_close(several.logits(), one.logits(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_company_changes_no_bit(pair_of: Callable, small: Architecture, kind: str) -> None:
    """Prompts that go through the kernels in two parts, and each sequence by itself."""
    B, T = 150, 33
    model, ids_BT = pair_of(small).ours, some_ids(small, B, T + 3)
    logits = []
    for rows in (slice(0, B), slice(0, 1), slice(140, 150)):
        decoder = decoder_of(kind, model, len(ids_BT[rows]), T + 3)
        decoder.feed(ids_BT[rows, :T])
        decoder.feed(ids_BT[rows, T:])
        logits.append(decoder.logits())
    assert torch.equal(logits[1], logits[0][:1])
    assert torch.equal(logits[2], logits[0][140:])


def test_what_there_is_no_room_for_is_refused(pair_of: Callable, small: Architecture) -> None:
    model, ids_BT = pair_of(small).ours, some_ids(small, 2, 10)
    decoder = model.decoder(2, 9)
    with pytest.raises(ArgumentError, match="10 tokens after 0 are more than the 9"):
        decoder.feed(ids_BT)
    decoder.feed(ids_BT[:, :8])
    decoder.feed(ids_BT[:, :1])
    with pytest.raises(ArgumentError, match="1 tokens after 9"):
        decoder.feed(ids_BT[:, :1])


def test_a_model_on_a_cpu_decodes_natively(pair_of: Callable, small: Architecture) -> None:
    model = pair_of(small).ours
    assert isinstance(model.decoder(1, 1), NativeDecoder)
    few = model.decoder(4, 1, reproducible=False)
    many = model.decoder(5, 1, reproducible=False)
    assert isinstance(few, TorchDecoder)
    assert isinstance(many, NativeDecoder)
    model.native = None
    assert isinstance(model.decoder(1, 1), TorchDecoder)
