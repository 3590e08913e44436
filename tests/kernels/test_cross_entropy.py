"""The chunked vocabulary against the definition in float64."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import cross_entropy, reference
from pythia_fast.kernels.cross_entropy import ROWS, SLICE, linear_nll, linear_scores
from pythia_fast.kernels.scores import TokenScores

SIZES = st.sampled_from((1, 2, 3, 17, 500, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE + 5))


def case(
    N: int, V: int, D: int, seed: int = 0, scale: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, weights that make logits of size `scale`, and targets."""
    g = torch.Generator().manual_seed(seed)
    h_ND, w_VD = torch.randn(N, D, generator=g), torch.randn(V, D, generator=g)
    return h_ND, w_VD * scale / D**0.5, torch.randint(V, (N,), generator=g)


def assert_scores(got: TokenScores, expected: TokenScores, atol: float) -> None:
    for field in fields(TokenScores):
        mine, theirs = getattr(got, field.name), getattr(expected, field.name)
        assert mine.shape == theirs.shape
        if field.name == "argmax":
            clear = expected.margin > 2 * atol
            assert mine.dtype == torch.int64
            assert torch.equal(mine[clear], theirs[clear])
        else:
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=atol, msg=field.name)


@settings(deadline=None, max_examples=60)
@given(
    N=st.sampled_from((1, 2, 5, 64, ROWS, ROWS + 1)),
    V=SIZES,
    D=st.sampled_from((1, 8, 33)),
    seed=st.integers(0, 99),
)
def test_float32_is_the_definition(N: int, V: int, D: int, seed: int) -> None:
    h_ND, w_VD, y_N = case(N, V, D, seed)
    if V == 1:
        assert linear_nll(h_ND, w_VD, y_N).abs().max() <= 1e-6
        return
    expected = reference.linear_scores(h_ND.double(), w_VD.double(), y_N)
    assert_scores(linear_scores(h_ND, w_VD, y_N), expected, atol=2e-5)
    torch.testing.assert_close(
        linear_nll(h_ND, w_VD, y_N).double(), expected.nll, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_as_good_as_torchs_own(dtype: torch.dtype) -> None:
    h_ND, w_VD, y_N = case(300, 5000, 64)
    h_ND, w_VD = h_ND.to(dtype), w_VD.to(dtype)
    expected = reference.linear_scores(h_ND.double(), w_VD.double(), y_N)
    torchs = reference.linear_scores((h_ND @ w_VD.T).float(), torch.eye(5000), y_N)
    ours = linear_scores(h_ND, w_VD, y_N)
    for name in ("nll", "logsumexp", "target_logit", "margin"):
        error = (getattr(ours, name) - getattr(expected, name)).abs().max()
        torch_error = (getattr(torchs, name) - getattr(expected, name)).abs().max()
        assert error <= 2 * torch_error + 1e-6, name
    assert torch.equal(ours.nll, linear_nll(h_ND, w_VD, y_N))


@pytest.mark.parametrize("ids", [(0, 1), (3, SLICE), (SLICE - 1, 2 * SLICE), (0, 2 * SLICE + 4)])
def test_the_lowest_id_wins_a_tie_across_slices(ids: tuple[int, int]) -> None:
    w_VD = torch.zeros(2 * SLICE + 5, 4)
    w_VD[list(ids)] = 1
    scores = linear_scores(torch.ones(2, 4), w_VD, torch.tensor([ids[1], 7]))
    assert scores.argmax.tolist() == [ids[0]] * 2
    assert scores.margin.tolist() == [0, 0]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (1, 3, 2)])
def test_best_and_second_may_lie_in_any_slices(order: tuple[int, int, int]) -> None:
    w_VD = torch.zeros(3 * SLICE, 1)
    for i, value in enumerate(order):
        w_VD[i * SLICE + 11] = value
    scores = linear_scores(torch.ones(1, 1), w_VD, torch.tensor([0]))
    assert scores.argmax.item() == order.index(3) * SLICE + 11
    assert scores.margin.item() == 1


def test_large_and_small_losses_keep_their_digits() -> None:
    w_VD = torch.tensor([[0.0], [1.0]])
    h_ND = torch.tensor([[15.0], [-15.0], [300.0], [-300.0]])
    nll = linear_nll(h_ND, w_VD, torch.ones(4, dtype=torch.int64)).double()
    expected = torch.nn.functional.softplus(-h_ND[:, 0].double())
    torch.testing.assert_close(nll, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_says_so_and_spoils_no_other(value: float) -> None:
    h_ND, w_VD, y_N = case(4, SLICE + 9, 8)
    expected = linear_scores(h_ND, w_VD, y_N)
    h_ND[2, 3] = value
    scores = linear_scores(h_ND, w_VD, y_N)
    others = torch.tensor([0, 1, 3])
    assert scores.nll[2].isnan()
    assert linear_nll(h_ND, w_VD, y_N)[2].isnan()
    assert not scores.margin[2].isfinite()
    for field in fields(TokenScores):
        mine, theirs = getattr(scores, field.name), getattr(expected, field.name)
        assert torch.equal(mine[others], theirs[others])


@pytest.mark.parametrize("target", [-1, 40])
def test_a_target_outside_the_vocabulary_is_refused(target: int) -> None:
    h_ND, w_VD, y_N = case(3, 40, 4)
    y_N[1] = target
    with pytest.raises(ArgumentError, match="0 to 39"):
        linear_nll(h_ND, w_VD, y_N)


def test_no_rows_give_no_scores() -> None:
    h_ND, w_VD, y_N = case(0, 40, 4)
    assert linear_nll(h_ND, w_VD, y_N).shape == (0,)
    assert linear_scores(h_ND, w_VD, y_N).margin.shape == (0,)


class _Largest(TorchDispatchMode):
    """Remembers the bytes of all storages that an operation has made."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and not any(tensor is a for a in args):
                storage = tensor.untyped_storage()
                self.storages[storage.data_ptr()] = storage.nbytes()
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", [linear_nll, linear_scores])
def test_logits_stay_within_the_stated_bound(kernel: Any, dtype: torch.dtype) -> None:
    assert cross_entropy.BLOCK_BYTES <= 64 * 2**20
    h_ND, w_VD, y_N = case(ROWS + 100, 3 * SLICE, 4)
    inputs = h_ND.to(dtype), w_VD.to(dtype)
    given = {tensor.untyped_storage().data_ptr() for tensor in (*inputs, y_N)}
    with _Largest() as made:
        kernel(*inputs, y_N)
    large = [n for at, n in made.storages.items() if at not in given and n > 4 * SLICE * 100]
    assert sum(large) <= cross_entropy.BLOCK_BYTES
