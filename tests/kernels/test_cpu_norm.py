"""LayerNorm into one operand or two, against the definition in float64."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.functional import layer_norm

from pythia_fast.kernels import reference
from pythia_fast.kernels.panels import panelled

EPS = 1e-5


def case(N, D, count=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(N, D, generator=g) * 3 + 1
    norms = [
        (1 + torch.randn(D, generator=g) / 5, torch.randn(D, generator=g)) for _ in range(count)
    ]
    return x_ND, norms


@settings(deadline=None, max_examples=25)
@given(
    N=st.integers(1, 70),
    D=st.sampled_from((1, 2, 3, 16, 31, 32, 33, 64, 100, 512)),
    count=st.sampled_from((1, 2)),
    seed=st.integers(0, 99),
)
@example(N=46, D=3, count=1, seed=28)  # features that nearly agree: the mean's rounding counts
def test_one_or_two_outputs_are_the_definition(native, N, D, count, seed):
    x_ND, norms = case(70, D, count, seed)
    outs = native.norm(panelled(x_ND[:N]), norms, EPS)
    assert len(outs) == count
    for out, (weight_D, bias_D) in zip(outs, norms, strict=True):
        expected = reference.layer_norm(x_ND.double(), weight_D.double(), bias_D.double(), EPS)
        torchs = layer_norm(x_ND, (D,), weight_D, bias_D, EPS)
        if native.arithmetic == "bfloat16":
            torchs = torchs.bfloat16()
        got = native.rows(out)
        left_out = 2.0**-16 * expected[:N].abs() if native.arithmetic == "split-bf16" else 0.0
        native.check(got[:N, :D], expected, torchs, left_out)
        assert not got[:, D:].any(), "features that pad must be 0, or 0 · NaN spoils the product"
        assert got[N:].isfinite().all()


def test_a_bfloat16_output_is_the_float32_one_rounded(native):
    if native.arithmetic != "bfloat16":
        return
    x_ND, norms = case(40, 65)
    (out,) = native.norm(panelled(x_ND), norms, EPS)
    exact = reference.layer_norm(x_ND.double(), *(part.double() for part in norms[0]), EPS)
    error = (native.rows(out)[:40, :65] - exact).abs()
    assert (error <= 2.0**-8 * exact.abs() + 1e-6).all()


@pytest.mark.parametrize("offset", [0.0, 300.0, -2000.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_a_mean_far_from_zero_costs_no_more_than_torchs(native, offset, scale):
    g = torch.Generator().manual_seed(1)
    x_ND = torch.randn(33, 129, generator=g) * scale + offset
    norm = torch.ones(129), torch.zeros(129)
    expected = reference.layer_norm(x_ND.double(), norm[0].double(), norm[1].double(), EPS)
    torchs = layer_norm(x_ND, (129,), *norm, EPS)
    if native.arithmetic == "bfloat16":
        torchs = torchs.bfloat16()
    (out,) = native.norm(panelled(x_ND), [norm], EPS)
    left_out = 2.0**-16 * expected.abs() if native.arithmetic == "split-bf16" else 0.0
    native.check(native.rows(out)[:33, :129], expected, torchs, left_out)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e10, 3e18])
@pytest.mark.parametrize("D", [3, 31, 100])
def test_features_that_all_agree_become_the_bias(native, D, value):
    x_ND = torch.full((5, D), value)
    weight_D, bias_D = torch.full((D,), 2.0), torch.linspace(-1, 1, D)
    (out,) = native.norm(panelled(x_ND), [(weight_D, bias_D)], EPS)
    expected = reference.layer_norm(x_ND.double(), weight_D.double(), bias_D.double(), EPS)
    torchs = bias_D.expand(5, D)
    if native.arithmetic == "bfloat16":
        torchs = torchs.bfloat16()
    left_out = 2.0**-16 * expected.abs() if native.arithmetic == "split-bf16" else 0.0
    native.check(native.rows(out)[:5, :D], expected, torchs, left_out)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_token_that_is_not_finite_spoils_no_other(native, value):
    x_ND, norms = case(35, 40, 2)
    expected = [native.rows(out) for out in native.norm(panelled(x_ND), norms, EPS)]
    x_ND[20, 7] = value
    for out, before in zip(native.norm(panelled(x_ND), norms, EPS), expected, strict=True):
        got = native.rows(out)
        assert got[20, :40].isnan().all()
        others = torch.arange(len(got)) != 20
        assert torch.equal(got[others], before[others])
        assert not got[:, 40:].any()
