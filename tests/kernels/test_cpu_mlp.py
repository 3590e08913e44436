"""The MLP's two products with what follows each, against the definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.kernels import reference
from pythia_fast.kernels.panels import panelled

GELUS = {"none": reference.gelu, "tanh": reference.gelu_tanh}
SIZES = st.sampled_from((1, 2, 31, 32, 33, 64, 100, 300))
EVEN = st.sampled_from((2, 30, 32, 34, 64, 66, 290))


def weights(rows, columns, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=g) / columns**0.5
    return w.to(dtype), torch.randn(rows, generator=g) / 4


def check_gelu(native, h_ND, w_FD, b_F, gelu, rows=None, row=0, count=None):
    """gelu(W h + b) of `count` tokens at rows `row` and on of an operand; returns all it holds."""
    x = native.operand(h_ND[:count])
    out = native.kernels.operand(rows or len(w_FD), x.panels)
    native.kernels.mlp(x, w_FD, b_F, gelu, out, row)
    everything = native.rows(out)
    got_NF = everything[: count or len(h_ND), row : row + len(w_FD)]
    expected = GELUS[gelu](native.kept(h_ND) @ native.kept(w_FD).T + b_F.double())
    torchs = torch.nn.functional.gelu(
        native.torchs(h_ND) @ native.torchs(w_FD).T + b_F, approximate=gelu
    )
    left_out = native.left_out(h_ND[:count], w_FD)
    if native.arithmetic == "bfloat16":
        torchs = torchs.bfloat16()
    if native.arithmetic == "split-bf16":  # no gelu is steeper than 1.13
        left_out = 1.13 * left_out + 2.0**-16 * expected[:count].abs()
    native.check(got_NF, expected, torchs, left_out)
    return everything


@settings(deadline=None, max_examples=15)
@given(N=st.integers(1, 70), F=EVEN, D=SIZES, gelu=st.sampled_from(sorted(GELUS)))
def test_bias_and_gelu_are_the_definition(native, stored, N, F, D, gelu):
    h_ND = torch.randn(70, D, generator=torch.Generator().manual_seed(N))
    check_gelu(native, h_ND, *weights(F, D, stored, seed=D), gelu, count=N)


@pytest.mark.parametrize("gelu", GELUS)
def test_both_gelus_over_all_that_a_float_is_good_for(native, gelu):
    """One feature per value: W is a column of values, so nothing is summed."""
    fine = torch.linspace(-12, 12, 1500)
    wide = torch.tensor([1e-30, 1e-6, 6.0, 100.0, 1e4, 1e6, 1e20, 1e38])
    for values in (fine, wide, -wide):
        check_gelu(native, torch.ones(1, 1), values[:, None], torch.zeros(len(values)), gelu)


@pytest.mark.parametrize("gelu", GELUS)
def test_gelu_of_what_is_not_finite(native, gelu):
    values = torch.tensor([float("inf"), float("-inf"), float("nan"), 1.0])
    x = native.operand(torch.zeros(1, 1))
    out = native.kernels.operand(4, 2)
    native.kernels.mlp(x, torch.zeros(4, 1), values, gelu, out, 0)
    got = native.rows(out)[0, :4]
    # Split, an infinity is inf + (inf - inf).
    assert got[0].isnan() if native.arithmetic == "split-bf16" else got[0].isposinf()
    assert abs(got[1]) <= 1e-7
    assert got[2].isnan()
    assert got[3].isfinite()


@pytest.mark.parametrize("row", [0, 2, 34])
def test_only_the_rows_asked_for_are_written(native, row):
    h_ND = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    everything = check_gelu(native, h_ND, *weights(30, 16), "none", rows=row + 50, row=row)
    untouched = torch.cat((everything[:, :row], everything[:, row + 30 : row + 50]), 1)
    assert (untouched.isnan() | (untouched == 0)).all()


def check_residual(native, a_NE, w_DE, b_D, x_ND, count=None):
    x_PDL = panelled(x_ND[:count])
    native.kernels.residual_(x_PDL, native.operand(a_NE[:count]), w_DE, b_D)
    got_ND = native.kernels.unpack(x_PDL)[: count or len(x_ND)]
    expected = x_ND.double() + (native.kept(a_NE) @ native.kept(w_DE).T + b_D.double())
    torchs = x_ND + (native.torchs(a_NE) @ native.torchs(w_DE).T + b_D)
    native.check(got_ND, expected, torchs, native.left_out(a_NE[:count], w_DE))


@settings(deadline=None, max_examples=15)
@given(N=st.integers(1, 70), D=SIZES, E=SIZES)
def test_the_residual_is_added_to(native, stored, N, D, E):
    g = torch.Generator().manual_seed(N)
    a_NE, x_ND = torch.randn(70, E, generator=g), torch.randn(70, D, generator=g)
    check_residual(native, a_NE, *weights(D, E, stored, seed=E), x_ND, count=N)


@settings(deadline=None, max_examples=15)
@given(N=st.integers(1, 70), C=SIZES, D=SIZES, biased=st.booleans())
def test_a_product_as_it_is(native, stored, N, C, D, biased):
    h_ND = torch.randn(70, D, generator=torch.Generator().manual_seed(N))
    w_CD, b_C = weights(C, D, stored, seed=D)
    if not biased:
        b_C = torch.zeros(C)
    x = native.operand(h_ND[:N])
    got_NC = native.kernels.unpack(native.kernels.project(x, w_CD, b_C if biased else None))[:N]
    expected = native.kept(h_ND) @ native.kept(w_CD).T + b_C.double()
    torchs = native.torchs(h_ND) @ native.torchs(w_CD).T + b_C
    native.check(got_NC, expected, torchs, native.left_out(h_ND[:N], w_CD))


@pytest.mark.parametrize("E", [256, 257, 512, 513, 2500])
def test_long_rows_are_cut_and_their_sums_wait(native, stored, E):
    g = torch.Generator().manual_seed(E)
    a_NE, x_ND = torch.randn(33, E, generator=g), torch.randn(33, 300, generator=g)
    check_residual(native, a_NE, *weights(300, E, stored), x_ND)


def test_small_branches_are_summed_before_a_large_residual_is_added(native):
    """1 + 1e-4 in float32 keeps few digits: bias and product must meet first."""
    x_ND = torch.full((1, 2), 2.0**20)
    w_DE, b_D = torch.full((2, 2), 0.03125), torch.full((2,), -0.0625)
    x_PDL = panelled(x_ND)
    native.kernels.residual_(x_PDL, native.operand(torch.ones(1, 2)), w_DE, b_D)
    assert native.kernels.unpack(x_PDL)[0].tolist() == [2.0**20] * 2


@pytest.mark.parametrize(("D", "F"), [(2, 2), (10, 20), (32, 34), (30, 66), (64, 64)])
def test_what_pads_an_operand_never_reaches_a_product(native, D, F):
    """Attention and the MLP write an operand's real rows only: the rest must not be NaN."""
    h_ND = torch.randn(40, D, generator=torch.Generator().manual_seed(3))
    x, x_PDL = native.operand(h_ND), panelled(torch.zeros(40, D))
    branches = native.kernels.operand(F, x.panels)
    native.kernels.mlp(x, *weights(F, D), "none", branches, 0)
    a_NF = native.rows(branches)[:40, :F]
    w_DF, b_D = weights(D, F, seed=1)
    native.kernels.residual_(x_PDL, branches, w_DF, b_D)
    expected = a_NF @ native.kept(w_DF).T + b_D.double()
    torchs = a_NF.float() @ native.torchs(w_DF).T + b_D
    native.check(native.kernels.unpack(x_PDL)[:40], expected, torchs, native.left_out(a_NF, w_DF))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_token_that_is_not_finite_spoils_no_other(native, value):
    a_NE = torch.randn(40, 48, generator=torch.Generator().manual_seed(3))
    w_DE, b_D = weights(33, 48)
    x_PDL, before_PDL = panelled(torch.zeros(40, 33)), panelled(torch.zeros(40, 33))
    native.kernels.residual_(before_PDL, native.operand(a_NE), w_DE, b_D)
    a_NE[17, 47] = value
    native.kernels.residual_(x_PDL, native.operand(a_NE), w_DE, b_D)
    got, before = native.kernels.unpack(x_PDL), native.kernels.unpack(before_PDL)
    others = torch.arange(len(got)) != 17
    assert torch.equal(got[others], before[others])
    assert not got[17].isfinite().any()
