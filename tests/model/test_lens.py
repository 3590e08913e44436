"""What every layer would say, beside transformers' hidden states put through its own head."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pythia_fast.errors import ArgumentError, TokenRangeError
from pythia_fast.kernels import reference
from pythia_fast.model import Model
from pythia_fast.suite import Architecture

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYERS = 3


@pytest.fixture(scope="module")
def shape(tiny: Architecture) -> Architecture:
    return replace(tiny, layers=LAYERS)


@pytest.fixture(scope="module")
def ids_BT(tiny: Architecture) -> torch.Tensor:
    return torch.randint(tiny.vocab_rows, (40, 24), generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def _in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch does not go through the blocks as a whole."""
    monkeypatch.setattr("pythia_fast.model.scoring.PASS_TOKENS", 400)
    monkeypatch.setattr("pythia_fast.model.scoring.NATIVE_PASS_TOKENS", 400)


def by_torch(model: Model) -> Model:
    """The same, computed as on a GPU."""
    model.native = None
    return model


def theirs(peer: torch.nn.Module, ids_BT: torch.Tensor) -> list[torch.Tensor]:
    """Logits of each layer's hidden state by transformers' modules; the last is normed already."""
    with torch.no_grad():
        states = peer(ids_BT, output_hidden_states=True).hidden_states
        normed = [*map(peer.gpt_neox.final_layer_norm, states[:-1]), states[-1]]
        return [peer.get_output_embeddings()(h_BTD) for h_BTD in normed]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("parallel", [True, False])
def test_logits_are_those_of_transformers(
    shape: Architecture, pair_of: Callable, ids_BT: torch.Tensor, native: bool, parallel: bool
) -> None:
    pair = pair_of(replace(shape, parallel_residual=parallel))
    ours = pair.ours if native else by_torch(pair.ours)
    expected = theirs(pair.peer, ids_BT)
    found = ours.logit_lens(ids_BT)
    assert list(found) == [0, 1, 2, 3]
    for layer, logits_BTV in enumerate(expected):
        torch.testing.assert_close(found[layer], logits_BTV, rtol=0, atol=1e-4)
    assert (expected[0] - expected[-1]).abs().max() > 1  # or nothing was compared


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("native", [True, False])
def test_logits_in_half_precision_are_as_near_as_transformers_own(
    shape: Architecture, pair_of: Callable, ids_BT: torch.Tensor, native: bool, dtype: torch.dtype
) -> None:
    pair = pair_of(shape, dtype)
    ours = pair.ours if native else by_torch(pair.ours)
    some = ids_BT[:8]
    half = theirs(pair.peer, some)
    truth = theirs(pair.peer.double(), some)
    for layer, logits_BTV in ours.logit_lens(some).items():
        assert logits_BTV.dtype == dtype
        error = (logits_BTV - truth[layer]).abs().max()
        peers_error = (half[layer] - truth[layer]).abs().max()
        assert error <= 2 * peers_error + 1e-6


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_last_layer_is_the_model_itself(
    shape: Architecture, pair_of: Callable, ids_BT: torch.Tensor, native: bool, dtype: torch.dtype
) -> None:
    ours = pair_of(shape, dtype).ours
    ours = ours if native else by_torch(ours)
    assert torch.equal(ours.logit_lens(ids_BT, [-1])[-1], ours(ids_BT))
    for start in (0, 11):
        found = ours.lens_scores(ids_BT, [LAYERS], start)[LAYERS]
        expected = ours.score(ids_BT, start)
        for name in ("nll", "logsumexp", "target_logit", "argmax", "margin"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("start", [0, 1, 17, 22])
def test_scores_are_those_of_the_lens(
    shape: Architecture, pair_of: Callable, ids_BT: torch.Tensor, native: bool, start: int
) -> None:
    ours = pair_of(shape).ours
    ours = ours if native else by_torch(ours)
    logits = ours.logit_lens(ids_BT)
    found = ours.lens_scores(ids_BT, start=start)
    assert list(found) == [0, 1, 2, 3]
    targets_N = ids_BT[:, start + 1 :].flatten()
    for layer, scores in found.items():
        logits_NV = logits[layer][:, start:-1].double().flatten(0, 1)
        expected = reference.linear_scores(logits_NV, torch.eye(160).double(), targets_N)
        clear_N = expected.margin > 1e-4
        assert torch.equal(scores.argmax.flatten()[clear_N], expected.argmax[clear_N])
        for name in ("nll", "logsumexp", "target_logit", "margin"):
            got_N = getattr(scores, name).double().flatten()
            torch.testing.assert_close(got_N, getattr(expected, name), rtol=0, atol=1e-4)
        assert scores.nll.shape == (40, 23 - start)


@pytest.mark.parametrize("native", [True, False])
def test_layers_are_asked_for_as_one_likes(
    shape: Architecture, pair_of: Callable, ids_BT: torch.Tensor, native: bool
) -> None:
    ours = pair_of(shape).ours
    ours = ours if native else by_torch(ours)
    every = ours.logit_lens(ids_BT[:3])
    some = ours.logit_lens(ids_BT[:3], (-1, 1, 3, -3))
    assert list(some) == [-1, 1, 3, -3]
    for layer, logits_BTV in some.items():
        assert torch.equal(logits_BTV, every[layer % (LAYERS + 1)])
    scores = ours.lens_scores(ids_BT[:3], (i for i in (-2, 0)))
    whole = ours.lens_scores(ids_BT[:3])
    assert torch.equal(scores[-2].nll, whole[2].nll)
    assert torch.equal(scores[0].argmax, whole[0].argmax)
    assert ours.logit_lens(ids_BT[:3], []) == {} == ours.lens_scores(ids_BT[:3], [])


def test_no_block_after_the_last_that_is_asked_for_is_computed(
    shape: Architecture, pair_of: Callable, ids_BT: torch.Tensor
) -> None:
    ours = pair_of(shape).ours
    for layers in ([0], [1], [2, 0]):
        before = {layer: ours.logit_lens(ids_BT[:1])[layer] for layer in layers}
        kept = ours.weights.flat.clone()
        for block in ours.weights.layers[max(layers) :]:
            block.qkv_CD.fill_(torch.nan)
        ours.weights.refresh()
        for model in (ours, by_torch(ours)):
            for layer, logits_BTV in model.logit_lens(ids_BT[:1], layers).items():
                torch.testing.assert_close(logits_BTV, before[layer], rtol=0, atol=1e-4)
            assert model.hidden_states(ids_BT[:1], layers)[layers[0]].isfinite().all()
            assert model.lens_scores(ids_BT[:1], layers)[layers[0]].nll.isfinite().all()
        ours.weights.flat.copy_(kept)
        ours.weights.refresh()
        ours = pair_of(shape).ours


@pytest.mark.parametrize("native", [True, False])
def test_there_may_be_no_target(shape: Architecture, pair_of: Callable, native: bool) -> None:
    ours = pair_of(shape).ours
    ours = ours if native else by_torch(ours)
    for scores in ours.lens_scores([[1], [2]]).values():
        assert scores.nll.shape == scores.argmax.shape == (2, 0)
        assert scores.argmax.dtype == torch.int64
    long = torch.zeros(1, 129, dtype=torch.int64)
    assert ours.lens_scores(long, [1])[1].nll.shape == (1, 128)
    with pytest.raises(ArgumentError, match="1 to 128 tokens"):
        ours.logit_lens(long)


@pytest.mark.parametrize("layers", [[4], [-5], [0, 9], 2, "12", [1.5], [None]])
def test_layers_that_are_none_are_refused(
    shape: Architecture, pair_of: Callable, layers: object
) -> None:
    ours = pair_of(shape).ours
    for ask in (ours.logit_lens, ours.lens_scores, ours.hidden_states):
        with pytest.raises(ArgumentError, match="layers are"):
            ask([[1, 2, 3]], layers)


def test_bad_ids_and_starts_are_refused(shape: Architecture, pair_of: Callable) -> None:
    ours = pair_of(shape).ours
    for ask in (ours.logit_lens, ours.lens_scores):
        with pytest.raises(TokenRangeError):
            ask([[1, 160]])
        with pytest.raises(ArgumentError, match="ids"):
            ask([[1.5, 2.5]])
    for start in (-1, 2, 1.0, "a", None):
        for asked in (ours.lens_scores, ours.score, ours.exact, ours.decide):
            with pytest.raises(ArgumentError, match="start"):
                asked([[1, 2]], start=start)


def test_a_nan_in_the_weights_is_seen(shape: Architecture, pair_of: Callable) -> None:
    ours = pair_of(shape).ours
    ours.weights.layers[1].mlp_out_DF.fill_(torch.nan)
    ours.weights.refresh()
    scores = ours.lens_scores([[1, 2, 3]])
    assert [bool(scores[layer].nll.isnan().any()) for layer in range(4)] == [False] * 2 + [True] * 2
