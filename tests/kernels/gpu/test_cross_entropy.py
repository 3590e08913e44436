"""The linear cross-entropy on tiles, against the definition in float64."""

from dataclasses import fields
from operator import itemgetter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import cross_entropy as dispatch
from pythia_fast.kernels import reference
from pythia_fast.kernels.gpu import cross_entropy as tiled
from pythia_fast.kernels.gpu.cross_entropy import NARROW, linear_nll, linear_scores
from pythia_fast.kernels.scores import TokenScores

TILE = 128  # of the vocabulary, on every chip
WHOLE = ("nll", "logsumexp", "target_logit", "margin")

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


# What numpy says in the interpreter, where a GPU goes on with NaN, as it should.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}:RuntimeWarning")
    for text in ("All-NaN slice encountered", "invalid value encountered")
]


def case(
    N: int, V: int, D: int, dtype: torch.dtype, device: torch.device, seed: int = 0, scale: int = 3
) -> Case:
    """Hidden states, weights that make logits of size `scale`, and targets."""
    g = torch.Generator().manual_seed(seed)
    h_ND, w_VD = torch.randn(N, D, generator=g), torch.randn(V, D, generator=g) * scale / D**0.5
    y_N = torch.randint(V, (N,), generator=g)
    return h_ND.to(device, dtype), w_VD.to(device, dtype), y_N.to(device)


def check(h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor, rows: int) -> TokenScores:
    """The first `rows`, by twice torch's error in float32 with the same numbers, in all rows.

    Its luck with a single row is no yardstick, nor how it multiplies where V is 2 or 3: W comes
    several times.
    """
    got = linear_scores(h_ND[:rows], w_VD, y_N[:rows])
    assert torch.equal(got.nll, linear_nll(h_ND[:rows], w_VD, y_N[:rows]))
    expected = reference.linear_scores(h_ND.double(), w_VD.double(), y_N)
    V = len(w_VD)
    logits_NV = (h_ND.float() @ w_VD.float().repeat(TILE // V + 1, 1).T)[:, :V]
    torchs = reference.linear_scores(logits_NV, torch.eye(V).to(logits_NV), y_N)
    for name in WHOLE:
        mine, true = getattr(got, name), getattr(expected, name)
        assert mine.dtype == torch.float32
        error, torch_error = (mine - true[:rows]).abs().max(), (getattr(torchs, name) - true).abs()
        limit = 2 * torch_error.max() + 1e-6
        assert error <= limit, f"{name}: {error:.3g}, at most {limit:.3g}"
    clear = expected.margin[:rows] > 1e-4
    assert got.argmax.dtype == torch.int64
    assert torch.equal(got.argmax[clear], expected.argmax[:rows][clear])
    return got


def assert_same_bits(a: TokenScores, b: TokenScores) -> None:
    for field in fields(TokenScores):
        mine, theirs = getattr(a, field.name), getattr(b, field.name)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True, msg=field.name)


@settings(deadline=None, max_examples=8)
@given(
    N=st.sampled_from((1, 2, 127, 128, 129)),
    V=st.sampled_from((2, 3, TILE - 1, TILE, TILE + 1, 2 * TILE + 5)),
    D=st.sampled_from((1, 8, 33, 64, 80)),
    seed=st.integers(0, 99),
)
def test_scores_are_the_definition(
    kernel_device: torch.device, dtype: torch.dtype, N: int, V: int, D: int, seed: int
) -> None:
    check(*case(130, V, D, dtype, kernel_device, seed), rows=N)


@pytest.mark.parametrize(
    ("V", "D"),
    [(393, 64), (394, 64), (396, 128), (140, NARROW), (140, NARROW + 16)],
)
def test_vocabularies_and_widths(
    kernel_device: torch.device, dtype: torch.dtype, V: int, D: int
) -> None:
    check(*case(130, V, D, dtype, kernel_device), rows=20)


def test_parts_of_the_rows_take_turns_in_the_same_memory(
    kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = case(130, 140, 16, torch.float16, kernel_device)
    whole = linear_scores(*inputs)
    monkeypatch.setattr(tiled, "SLAB", 128)
    assert_same_bits(linear_scores(*inputs), whole)


def test_bands_of_rows_cover_all_tiles(
    kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = case(2 * 128 + 1, TILE + 1, 16, torch.float16, kernel_device)
    whole = linear_scores(*inputs)
    monkeypatch.setattr(tiled, "BAND", 2 * 128)
    assert_same_bits(linear_scores(*inputs), whole)


def test_scratch_does_not_grow_with_the_rows(
    kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    h_ND, w_VD, y_N = case(2, 5, 8, torch.float16, kernel_device)
    monkeypatch.setattr(tiled, "SLAB", 1)
    monkeypatch.setattr(tiled, "_score_slab", lambda *given: shapes.append(given[4].shape))
    shapes: list[torch.Size] = []
    linear_scores(h_ND, w_VD, y_N)
    assert shapes == [(3, 1, 1)] * 2


@pytest.mark.parametrize("rows", [slice(1), slice(77), slice(128, 257), slice(33, 44)], ids=str)
def test_the_bits_of_a_row_do_not_depend_on_the_others(
    kernel_device: torch.device, dtype: torch.dtype, rows: slice
) -> None:
    if kernel_device.type == "cpu" and rows.start == 33:
        pytest.skip("numpy's products, in the interpreter, depend on a row's place in the tile")
    h_ND, w_VD, y_N = case(257, TILE + 9, 16, dtype, kernel_device)
    some = linear_scores(h_ND[rows], w_VD, y_N[rows])
    assert_same_bits(some, linear_scores(h_ND, w_VD, y_N).map(itemgetter(rows)))


@pytest.mark.parametrize(
    "ids", [(0, 1), (3, 40), (63, 64), (TILE - 1, TILE), (5, 2 * TILE), (0, 2 * TILE + 4)]
)
def test_the_lowest_id_wins_a_tie(
    kernel_device: torch.device, dtype: torch.dtype, ids: tuple[int, int]
) -> None:
    w_VD = torch.zeros(2 * TILE + 5, 4)
    w_VD[list(ids)] = 1
    h_ND, w_VD = torch.ones(2, 4).to(kernel_device, dtype), w_VD.to(kernel_device, dtype)
    scores = linear_scores(h_ND, w_VD, torch.tensor([ids[1], 7]).to(kernel_device))
    assert scores.argmax.tolist() == [ids[0]] * 2
    assert scores.margin.tolist() == [0, 0]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (1, 3, 2)])
@pytest.mark.parametrize("apart", [TILE, 7])
def test_best_and_second_may_lie_anywhere(
    kernel_device: torch.device, order: tuple[int, int, int], apart: int
) -> None:
    w_VD = torch.zeros(3 * TILE, 1, dtype=torch.float16, device=kernel_device)
    for i, value in enumerate(order):
        w_VD[i * apart + 11] = value
    h_ND, y_N = torch.ones_like(w_VD[:1]), torch.zeros_like(w_VD[0]).long()
    scores = linear_scores(h_ND, w_VD, y_N)
    assert scores.argmax.item() == order.index(3) * apart + 11
    assert scores.margin.item() == 1


def test_a_vocabulary_of_one_token_is_certain(kernel_device: torch.device) -> None:
    scores = linear_scores(*case(3, 1, 8, torch.float16, kernel_device))
    assert scores.nll.tolist() == [0, 0, 0]
    assert scores.argmax.tolist() == [0, 0, 0]
    assert scores.margin.isposinf().all()


def test_padding_is_not_taken_for_a_logit(kernel_device: torch.device) -> None:
    """Beyond the last row of W a tile is filled up with zeros, here far above all logits."""
    h_ND, w_VD, y_N = case(130, TILE + 3, 64, torch.float16, kernel_device, scale=50)
    scores = check(h_ND.abs(), -w_VD.abs(), y_N, rows=3)
    assert (scores.argmax < TILE + 3).all()


def test_large_and_small_losses_keep_their_digits(kernel_device: torch.device) -> None:
    w_VD = torch.tensor([[0.0], [1.0]], dtype=torch.float16, device=kernel_device)
    h_ND = torch.tensor([[15.0], [-15.0], [300.0], [-300.0]], device=kernel_device)
    nll = linear_nll(h_ND.half(), w_VD, torch.ones(4).long().to(kernel_device)).double()
    expected = torch.nn.functional.softplus(-h_ND[:, 0].double())
    torch.testing.assert_close(nll, expected, rtol=1e-6, atol=1e-7)


def test_logits_beyond_half_precision_are_held(kernel_device: torch.device) -> None:
    h_ND, w_VD, y_N = case(130, 200, 64, torch.float16, kernel_device)
    scores = check(h_ND * 256, w_VD * 256, y_N, rows=3)
    assert scores.logsumexp.max() > torch.finfo(torch.float16).max


EXTREMES = [(float("nan"),), (float("inf"),), (-float("inf"),), (float("inf"), float("nan"))]


@pytest.mark.parametrize("values", EXTREMES, ids=str)
@pytest.mark.parametrize("first", [3, TILE + 3])
@pytest.mark.parametrize("target", [0, 3, TILE + 3])
def test_extreme_logits_do_what_they_do_in_torch(
    kernel_device: torch.device, values: tuple[float, ...], first: int, target: int
) -> None:
    h_1D, w_VD, y_1 = case(1, 2 * TILE + 9, 8, torch.float16, kernel_device)
    h_1D[0, 0], w_VD[:, 0], y_1[0] = 1.0, 0.0, target
    w_VD[first : first + len(values), 0] = torch.tensor(values).to(w_VD)
    got = linear_scores(h_1D, w_VD, y_1)
    torchs = dispatch._joined(h_1D, w_VD, y_1, with_best=True)
    same = {"rtol": 0.0, "atol": 1e-5, "equal_nan": True}
    torch.testing.assert_close(got.nll, torchs.nll(), **same)
    torch.testing.assert_close(got.logsumexp, torchs.peak_N + torchs.sum_N.log(), **same)
    torch.testing.assert_close(got.target_logit, torchs.target_N, **same)
    torch.testing.assert_close(got.margin, torchs.peak_N - torchs.second_N, **same)
    torch.testing.assert_close(linear_nll(h_1D, w_VD, y_1), got.nll, rtol=0, atol=0, equal_nan=True)
    assert got.nll.isnan() == (max(values) != -torch.inf)
    assert 0 <= got.argmax.item() < len(w_VD)


def test_a_whole_tile_of_minus_infinity_counts_for_nothing(kernel_device: torch.device) -> None:
    h_ND, w_VD, y_N = case(3, 2 * TILE + 9, 8, torch.float16, kernel_device)
    h_ND[:, 0], w_VD[:, 0], y_N[:] = 1.0, 0.0, TILE
    w_VD[:TILE, 0] = -torch.inf
    got, rest = linear_scores(h_ND, w_VD, y_N), linear_scores(h_ND, w_VD[TILE:], y_N - TILE)
    torch.testing.assert_close(got.nll, rest.nll, rtol=0, atol=1e-6)
    assert torch.equal(got.argmax, rest.argmax + TILE)
    assert torch.equal(got.margin, rest.margin)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_says_so_and_spoils_no_other(
    kernel_device: torch.device, dtype: torch.dtype, value: float
) -> None:
    h_ND, w_VD, y_N = case(4, TILE + 9, 8, dtype, kernel_device)
    others = [0, 1, 3]
    expected = linear_scores(h_ND, w_VD, y_N).map(lambda x_N: x_N[others])
    h_ND[2, 3] = value
    scores = linear_scores(h_ND, w_VD, y_N)
    assert scores.nll[2].isnan()
    assert not scores.margin[2].isfinite()
    assert_same_bits(scores.map(lambda x_N: x_N[others]), expected)


def test_a_row_of_nothing_but_nan_still_has_an_id(kernel_device: torch.device) -> None:
    h_ND, w_VD, y_N = case(2, TILE + 9, 8, torch.float16, kernel_device)
    scores = linear_scores(torch.full_like(h_ND, torch.nan), w_VD, y_N)
    assert scores.nll.isnan().all()
    assert scores.logsumexp.isnan().all()
    assert scores.margin.isnan().all()
    assert ((scores.argmax >= 0) & (scores.argmax < len(w_VD))).all()


@pytest.mark.parametrize("target", [-1, -(2**40), 200, 255, 256, 2**40])
def test_a_target_outside_the_vocabulary_gets_nan_and_spoils_no_other(
    kernel_device: torch.device, target: int
) -> None:
    h_ND, w_VD, y_N = case(3, 200, 8, torch.float16, kernel_device)
    expected = linear_scores(h_ND, w_VD, y_N)
    y_N[1] = target
    got = linear_scores(h_ND, w_VD, y_N)
    for name in ("nll", "target_logit"):
        assert getattr(got, name).isnan().tolist() == [False, True, False]
    assert_same_bits(got.map(lambda x_N: x_N[::2]), expected.map(lambda x_N: x_N[::2]))
    assert torch.equal(got.margin, expected.margin)
    assert linear_nll(h_ND, w_VD, y_N).isnan().tolist() == [False, True, False]


def test_rows_may_be_those_of_a_wider_tensor(kernel_device: torch.device) -> None:
    h_ND, w_VD, y_N = case(5, 200, 64, torch.float16, kernel_device)
    wide_NX, expected = h_ND.new_full((5, 160), torch.nan), linear_scores(h_ND, w_VD, y_N)
    for first in (16, 13):  # where the copy engine can, and cannot, take it
        wide_NX[:, first : first + 64] = h_ND
        assert_same_bits(linear_scores(wide_NX[:, first : first + 64], w_VD, y_N), expected)
        wide_NX.fill_(torch.nan)


def test_no_rows_give_no_scores(kernel_device: torch.device) -> None:
    inputs = case(0, 40, 4, torch.float16, kernel_device)
    assert linear_nll(*inputs).shape == (0,)
    assert linear_scores(*inputs).margin.shape == (0,)


def test_what_does_not_fit_together_is_refused(kernel_device: torch.device) -> None:
    h_ND, w_VD, y_N = case(3, 40, 8, torch.float16, kernel_device)
    with pytest.raises(ArgumentError, match="one half type"):
        linear_nll(h_ND, w_VD.bfloat16(), y_N)
    with pytest.raises(ArgumentError, match="one half type"):
        linear_nll(h_ND.double(), w_VD.double(), y_N)
    with pytest.raises(ArgumentError, match="int64"):
        linear_nll(h_ND, w_VD, y_N.int())
    with pytest.raises(ArgumentError, match="not on one"):
        linear_nll(h_ND, w_VD.to("meta"), y_N)
    for h, w, y in (
        (h_ND[:2], w_VD, y_N),
        (h_ND[:, :4], w_VD, y_N),
        (h_ND, w_VD[:0], y_N),
        (h_ND[0], w_VD, y_N),
        (h_ND, w_VD, y_N[:, None]),
    ):
        with pytest.raises(ArgumentError, match=r"expected h \[N, D\]"):
            linear_scores(h, w, y)
    with pytest.raises(ArgumentError, match="contiguous"):
        linear_scores(h_ND, w_VD.T.contiguous().T, y_N)


def test_the_rooms_own_function_leads_here(
    kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = case(3, 200, 16, torch.float16, kernel_device)
    monkeypatch.setattr(dispatch, "_is_native", lambda h_ND, w_VD: False)
    monkeypatch.setattr(dispatch, "takes", lambda device, dtype: True)
    expected = linear_scores(*inputs)
    monkeypatch.setattr(dispatch, "_joined", None)
    assert_same_bits(dispatch.linear_scores(*inputs), expected)
    assert torch.equal(dispatch.linear_nll(*inputs), expected.nll)
