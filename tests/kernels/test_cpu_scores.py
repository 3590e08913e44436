"""The last product and the cross-entropy in one, against the definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import reference

PART = 4096  # of the vocabulary, that one thread takes at a time
WHOLE = ("nll", "logsumexp", "target_logit", "margin")


def case(N, V, D, dtype=torch.float32, seed=0):
    """Hidden states, weights that make logits of size one, and targets."""
    g = torch.Generator().manual_seed(seed)
    h_ND, w_VD = torch.randn(N, D, generator=g), torch.randn(V, D, generator=g) / D**0.5
    return h_ND, w_VD.to(dtype), torch.randint(V, (N,), generator=g)


def check(native, h_ND, w_VD, y_N, count=None):
    """The first `count` tokens; an error of logits counts twice where two are subtracted."""
    h = native.operand(h_ND[:count])
    got = native.kernels.scores(h, w_VD, y_N[:count])
    assert torch.equal(got.nll, native.kernels.nll(h, w_VD, y_N[:count]))
    if len(w_VD) == 1:
        assert got.nll.abs().max() <= 1e-6
        assert got.margin.isposinf().all()
        assert not got.argmax.any()
        return got
    expected = reference.linear_scores(native.kept(h_ND), native.kept(w_VD), y_N)
    torchs = reference.linear_scores(native.torchs(h_ND), native.torchs(w_VD), y_N)
    left_out = native.left_out(h_ND[:count], w_VD)
    if isinstance(left_out, torch.Tensor):
        left_out = left_out.amax(1)
    for name in WHOLE:
        times = 2 if name in ("nll", "margin") else 1
        native.check(
            getattr(got, name), getattr(expected, name), getattr(torchs, name), times * left_out
        )
    clear = expected.margin[:count] > 2 * left_out + 1e-5
    assert torch.equal(got.argmax[clear], expected.argmax[:count][clear])
    assert ((got.argmax >= 0) & (got.argmax < len(w_VD))).all()
    return got


@settings(deadline=None, max_examples=15)
@given(
    N=st.integers(1, 70),
    V=st.sampled_from((1, 2, 31, 32, 33, 255, 257, 1000)),
    D=st.sampled_from((1, 2, 31, 32, 33, 64, 300)),
    seed=st.integers(0, 99),
)
def test_scores_are_the_definition(native, stored, N, V, D, seed):
    check(native, *case(70, V, D, stored, seed), count=N)


@pytest.mark.parametrize("V", [PART - 1, PART, PART + 1, 3 * PART + 5])
def test_parts_of_the_vocabulary_are_joined(native, V):
    h_ND, w_VD, y_N = case(40, V, 33)
    y_N[:4] = torch.tensor([0, V - 1, min(PART, V - 1), PART - 2])
    check(native, h_ND, w_VD, y_N)


@pytest.mark.parametrize("D", [257, 512, 513, 1100])
def test_wide_states_are_cut_and_their_sums_wait(native, D):
    check(native, *case(40, 333, D))


@pytest.mark.parametrize(
    "ids", [(0, 1), (3, 40), (31, 32), (PART - 1, PART), (5, 2 * PART), (0, 2 * PART + 4)]
)
def test_the_lowest_id_wins_a_tie(native, stored, ids):
    w_VD = torch.zeros(2 * PART + 5, 4)
    w_VD[list(ids)] = 1
    targets = torch.tensor([ids[1], 7])
    scores = native.kernels.scores(native.operand(torch.ones(2, 4)), w_VD.to(stored), targets)
    assert scores.argmax.tolist() == [ids[0]] * 2
    assert scores.margin.tolist() == [0, 0]
    assert scores.target_logit.tolist() == [4, 0]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (1, 3, 2)])
@pytest.mark.parametrize("apart", [1, 32, PART])
def test_best_and_second_may_lie_anywhere(native, order, apart):
    w_VD = torch.zeros(3 * apart + 12, 1)
    for i, value in enumerate(order):
        w_VD[i * apart + 11] = value
    scores = native.kernels.scores(native.operand(torch.ones(1, 1)), w_VD, torch.tensor([0]))
    assert scores.argmax.item() == order.index(3) * apart + 11
    assert scores.margin.item() == 1


def test_all_logits_equal(native):
    scores = native.kernels.scores(
        native.operand(torch.zeros(3, 5)), torch.ones(5000, 5), torch.tensor([0, 1, 4999])
    )
    assert scores.argmax.tolist() == scores.margin.tolist() == [0, 0, 0]
    torch.testing.assert_close(
        scores.nll.double(), torch.full((3,), 5000.0).double().log(), rtol=1e-6, atol=0
    )


def test_large_and_small_losses_keep_their_digits(native):
    w_VD = torch.tensor([[0.0], [1.0]])
    h_ND = torch.tensor([[15.0], [-15.0], [304.0], [-304.0]])
    got = native.kernels.nll(native.operand(h_ND), w_VD, torch.ones(4, dtype=torch.int64))
    torchs = reference.linear_scores(h_ND, w_VD, torch.ones(4, dtype=torch.int64)).nll
    native.check(got, torch.nn.functional.softplus(-h_ND[:, 0].double()), torchs)


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_extreme_logits(native, scale):
    """Exact in every arithmetic: one factor is a power of two."""
    h_ND = torch.ones(20, 1)
    h_ND[10:] = -1
    w_VD = torch.randn(600, 1, generator=torch.Generator().manual_seed(2)).bfloat16().float()
    w_VD = torch.cat((w_VD, torch.tensor([[0.0], [1.0], [-1.0]]))) * 2 ** round(scale).bit_length()
    y_N = torch.arange(583, 603)
    expected = reference.linear_scores(h_ND.double(), w_VD.double(), y_N)
    got = native.kernels.scores(native.operand(h_ND), w_VD, y_N)
    torchs = reference.linear_scores(h_ND, w_VD, y_N)
    for name in WHOLE:
        native.check(*(getattr(scores, name) for scores in (got, expected, torchs)))
    assert torch.equal(got.argmax, expected.argmax)


def test_a_logit_of_minus_infinity_is_harmless(native, stored):
    """It comes of an overflow, in every second row of the vocabulary and in a whole part."""
    V = 2 * PART + 40
    lost = torch.zeros(V, dtype=torch.bool)
    lost[1::2] = lost[PART : 2 * PART] = True
    w_VD = torch.zeros(V, 4, dtype=stored)
    w_VD[lost] = -0.99 * torch.finfo(stored).max
    h = native.operand(torch.full((20, 4), 1e35))
    got = native.kernels.scores(h, w_VD, torch.arange(20) * 2)
    left = (~lost).sum().double().log()
    for value in (got.nll, got.logsumexp):
        torch.testing.assert_close(value.double(), left.expand(20), rtol=1e-6, atol=0)
    assert not lost[got.argmax].any()
    assert native.kernels.nll(h, w_VD, torch.ones(20, dtype=torch.int64)).isposinf().all()


def test_a_target_at_minus_infinity_costs_infinitely_much(native):
    w_VD = torch.tensor([[-3e38], [1.0], [0.5]])
    nll_N = native.kernels.nll(native.operand(torch.full((2, 1), 4.0)), w_VD, torch.tensor([0, 1]))
    assert nll_N[0].isposinf()
    assert nll_N[1].isfinite()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("V", [2, 40, PART + 9])
def test_a_token_that_is_not_finite_says_so_and_spoils_no_other(native, value, V):
    h_ND, w_VD, y_N = case(35, V, 8)
    before = native.kernels.scores(native.operand(h_ND), w_VD, y_N)
    h_ND[17, 3] = value
    h = native.operand(h_ND)
    scores = native.kernels.scores(h, w_VD, y_N)
    assert scores.nll[17].isnan()
    assert scores.margin[17].isnan()
    assert native.kernels.nll(h, w_VD, y_N)[17].isnan()
    assert 0 <= scores.argmax[17] < V
    others = torch.arange(35) != 17
    for name in (*WHOLE, "argmax"):
        assert torch.equal(getattr(scores, name)[others], getattr(before, name)[others])


@pytest.mark.parametrize("row", [0, 5, 31, 32, PART - 1, PART, PART + 8])
def test_a_row_of_weights_that_is_not_a_number_says_so_everywhere(native, stored, row):
    h_ND, w_VD, y_N = case(33, PART + 9, 8, stored)
    w_VD[row, 2] = float("nan")
    scores = native.kernels.scores(native.operand(h_ND), w_VD, y_N)
    assert scores.nll.isnan().all()
    assert scores.margin.isnan().all()


@pytest.mark.parametrize("target", [-1, 40])
def test_a_target_outside_the_vocabulary_is_refused(native, target):
    h_ND, w_VD, y_N = case(3, 40, 4)
    y_N[1] = target
    with pytest.raises(ArgumentError, match="0 to 39"):
        native.kernels.nll(native.operand(h_ND), w_VD, y_N)


def test_no_tokens_have_no_scores(native):
    h_ND, w_VD, y_N = case(3, 40, 4)
    assert native.kernels.nll(native.operand(h_ND), w_VD, y_N[:0]).shape == (0,)
    assert native.kernels.scores(native.operand(h_ND), w_VD, y_N[:0]).margin.shape == (0,)
