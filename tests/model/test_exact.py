"""The float32 referee: the same answers from files, from the arena and in any batch."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from pythia_fast.kernels.cpu import has_amx
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model import LoadReport, Model, Weights
from pythia_fast.model.exact import Referee
from pythia_fast.series import Checkpoint, LocalSeries
from pythia_fast.suite import Architecture

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def ids_BT(tiny: Architecture) -> torch.Tensor:
    return torch.randint(tiny.vocab_rows, (5, 40), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def expected(tiny: Architecture, tiny_series: Path, ids_BT: torch.Tensor) -> TokenScores:
    """Of step 16, from a resident arena in float32."""
    return of_step(tiny, tiny_series, 16, torch.float32).exact(ids_BT)


def of_step(tiny: Architecture, folder: Path, step: int, dtype: torch.dtype) -> Model:
    series = LocalSeries(folder)
    checkpoint = series.open(step)
    weights = Weights(tiny, dtype=dtype)
    weights.load(checkpoint)
    return Model(weights, series.spec, step=step, checkpoint=checkpoint)


@pytest.fixture
def model(tiny: Architecture, tiny_series: Path) -> Model:
    """Of step 16, resident in bfloat16, with its checkpoint."""
    return of_step(tiny, tiny_series, 16, torch.bfloat16)


def assert_equal(got: TokenScores, expected: TokenScores) -> None:
    for field in fields(TokenScores):
        mine = getattr(got, field.name)
        assert mine.dtype == (torch.int64 if field.name == "argmax" else torch.float32)
        assert torch.equal(mine, getattr(expected, field.name)), field.name


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_resident_dtype_gives_the_checkpoints_own_scores(
    tiny: Architecture,
    tiny_series: Path,
    ids_BT: torch.Tensor,
    expected: TokenScores,
    dtype: torch.dtype,
) -> None:
    """Bit for bit, though a bfloat16 arena has lost bits of the float16 file."""
    model = of_step(tiny, tiny_series, 16, dtype)
    assert_equal(model.exact(ids_BT), expected)
    assert_equal(model.exact(ids_BT, start=7), expected.map(lambda x_BT: x_BT[:, 7:]))


def test_a_sequence_has_the_same_bits_in_any_batch(
    tiny: Architecture, pair_of: Callable, ids_BT: torch.Tensor
) -> None:
    model = pair_of(tiny, torch.float16).ours
    together = model.exact(ids_BT)
    for row in range(len(ids_BT)):
        alone = model.exact(ids_BT[row : row + 1])
        assert_equal(alone, together.map(lambda x_BT, row=row: x_BT[row : row + 1]))


@pytest.mark.parametrize("held", [1, 2 * 40 * 4 * 64, 1 << 20])
def test_a_checkpoint_that_is_read_block_by_block_gives_the_same_bits(
    model: Model,
    ids_BT: torch.Tensor,
    expected: TokenScores,
    held: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many sequences go through it together, and through one block."""
    monkeypatch.setattr("pythia_fast.model.exact.KEPT_BYTES", 0)
    monkeypatch.setattr("pythia_fast.model.exact.HELD_BYTES", held)
    for tokens in (1, 80, 4096):
        monkeypatch.setattr("pythia_fast.model.exact.PASS_TOKENS", tokens)
        assert_equal(model.exact(ids_BT), expected)
        assert_equal(model.exact(ids_BT, start=7), expected.map(lambda x_BT: x_BT[:, 7:]))


def test_passes_of_any_size_give_the_same_bits(
    model: Model,
    ids_BT: torch.Tensor,
    expected: TokenScores,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for tokens in (1, 80):
        monkeypatch.setattr("pythia_fast.model.exact.PASS_TOKENS", tokens)
        assert_equal(model.exact(ids_BT), expected)


def test_another_checkpoint_takes_the_place_of_what_was_kept(
    tiny: Architecture, tiny_series: Path, ids_BT: torch.Tensor, expected: TokenScores
) -> None:
    model, other = (of_step(tiny, tiny_series, step, torch.bfloat16) for step in (8, 16))
    assert not torch.equal(model.exact(ids_BT).nll, expected.nll)
    model.weights, model.checkpoint = other.weights, other.checkpoint
    assert_equal(model.exact(ids_BT), expected)


def test_a_checkpoint_is_read_once_and_again_after_a_failure(
    model: Model,
    ids_BT: torch.Tensor,
    expected: TokenScores,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load, reads = Weights.load, []

    def counted(self: Weights, checkpoint: Checkpoint) -> LoadReport:
        reads.append(checkpoint)
        if len(reads) == 1:
            self.flat.fill_(torch.nan)
            raise OSError("the disk is gone")
        return load(self, checkpoint)

    monkeypatch.setattr(Weights, "load", counted)
    with pytest.raises(OSError, match="gone"):
        model.exact(ids_BT)
    for _ in range(3):
        assert_equal(model.exact(ids_BT), expected)
    assert len(reads) == 2


def test_by_torch_too_a_sequence_has_the_same_bits_in_any_batch(
    tiny: Architecture,
    tiny_series: Path,
    ids_BT: torch.Tensor,
    expected: TokenScores,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, and for shapes that the kernels do not take."""
    monkeypatch.setattr("pythia_fast.model.exact.takes", lambda architecture: False)
    model = of_step(tiny, tiny_series, 16, torch.bfloat16)
    together = model.exact(ids_BT, start=7)
    alone = model.exact(ids_BT[2:3], start=7)
    assert_equal(alone, together.map(lambda x_BT: x_BT[2:3]))
    torch.testing.assert_close(together.nll, expected.nll[:, 7:], rtol=0, atol=1e-5)
    assert torch.equal(together.argmax, model.decide(ids_BT, start=7)[0])


@pytest.mark.parametrize("kept", [0, 1 << 30])
@pytest.mark.parametrize("dtype", DTYPES)
def test_decide_gives_the_arg_max_of_float32(
    tiny: Architecture,
    tiny_series: Path,
    dtype: torch.dtype,
    kept: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pythia_fast.model.exact.KEPT_BYTES", kept)
    ids_BT = torch.randint(tiny.vocab_rows, (64, 40), generator=torch.Generator().manual_seed(5))
    model = of_step(tiny, tiny_series, 16, dtype)
    scores = model.exact(ids_BT, start=7)
    argmax_BT, margin_BT = model.decide(ids_BT, start=7)
    assert torch.equal(argmax_BT, scores.argmax)
    torch.testing.assert_close(margin_BT, scores.margin, rtol=0, atol=1e-3)
    alone = model.decide(ids_BT[3:4], start=7)
    assert torch.equal(alone[1], margin_BT[3:4])


@pytest.mark.skipif(not has_amx(), reason="split-bf16 needs AMX")
def test_few_sequences_are_decided_in_float32(
    tiny: Architecture, tiny_series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, scores_of = [], Referee.scores

    def counted(
        self: Referee, ids_BT: torch.Tensor, *rest: object, arithmetic: str = "float32"
    ) -> TokenScores:
        asked.append((arithmetic, len(ids_BT)))
        return scores_of(self, ids_BT, *rest, arithmetic=arithmetic)

    monkeypatch.setattr(Referee, "scores", counted)
    ids_BT = torch.randint(tiny.vocab_rows, (64, 40), generator=torch.Generator().manual_seed(5))
    of_step(tiny, tiny_series, 16, torch.bfloat16).decide(ids_BT)
    (first, all_of_them), (second, few) = asked
    assert (first, all_of_them, second) == ("split-bf16", 64, "float32")
    assert 0 < few < 32


def test_a_single_token_has_no_targets(model: Model, ids_BT: torch.Tensor) -> None:
    assert model.exact(ids_BT[:, :1]).argmax.shape == (5, 0)
    assert [x_BT.shape for x_BT in model.decide(ids_BT[:, :8], start=7)] == [(5, 0), (5, 0)]


@pytest.mark.parametrize("parallel_residual", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_checkpoint_the_resident_values_count(
    tiny: Architecture,
    pair_of: Callable,
    ids_BT: torch.Tensor,
    dtype: torch.dtype,
    parallel_residual: bool,
) -> None:
    architecture = replace(tiny, parallel_residual=parallel_residual, layers=3)
    pair = pair_of(architecture, dtype)
    with torch.no_grad():
        logits_BTV = pair.peer.double()(ids_BT).logits[:, :-1]
    scores = pair.ours.exact(ids_BT)
    target_BT1 = ids_BT[:, 1:, None]
    nll_BT = -logits_BTV.log_softmax(-1).gather(2, target_BT1)[:, :, 0]
    torch.testing.assert_close(scores.nll.double(), nll_BT, rtol=0, atol=1e-5)
    assert torch.equal(scores.argmax, logits_BTV.argmax(-1))
