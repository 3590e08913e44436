"""The float32 referee: the same answers from files, from the arena and in any batch."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model import Model, Weights
from pythia_fast.series import LocalSeries
from pythia_fast.suite import Architecture

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def ids_BT(tiny: Architecture) -> torch.Tensor:
    return torch.randint(tiny.vocab_rows, (5, 40), generator=torch.Generator().manual_seed(3))


def assert_equal(got: TokenScores, expected: TokenScores) -> None:
    for field in fields(TokenScores):
        mine = getattr(got, field.name)
        assert mine.dtype == (torch.int64 if field.name == "argmax" else torch.float32)
        assert torch.equal(mine, getattr(expected, field.name)), field.name


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_resident_dtype_gives_the_checkpoints_own_scores(
    tiny: Architecture, tiny_series: Path, ids_BT: torch.Tensor, dtype: torch.dtype
) -> None:
    """Bit for bit, though a bfloat16 arena has lost bits of the float16 file."""
    series = LocalSeries(tiny_series)
    resident = Weights(tiny)
    resident.load(series.open(16))
    expected = Model(resident, series.spec).exact(ids_BT)
    checkpoint = series.open(16)
    weights = Weights(tiny, dtype=dtype)
    weights.load(checkpoint)
    model = Model(weights, series.spec, step=16, checkpoint=checkpoint)
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
