"""Projection, rotary positions and attention together, against the definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.kernels import reference
from pythia_fast.kernels.rotary import rope_tables

HEAD_DIMS = (2, 8, 16, 30, 32, 64, 80, 128, 256)


def case(B, T, H, K, dtype=torch.float32, D=24, seed=0):
    """Hidden states, and a projection that makes queries, keys and values of size one."""
    g = torch.Generator().manual_seed(seed)
    x_BTD = torch.randn(B, T, D, generator=g)
    w_CD = torch.randn(3 * H * K, D, generator=g) / D**0.5
    b_C = torch.randn(3 * H * K, generator=g) / 4
    return x_BTD, w_CD.to(dtype), b_C


def definition(native, x_BTD, w_CD, b_C, H, rope):
    qkv_BTC = native.kept(x_BTD) @ native.kept(w_CD).T + b_C.double()
    return qkv_BTC, reference.attention(qkv_BTC, H, rope)


def torchs(native, x_BTD, w_CD, b_C, H, rope):
    qkv_BTC = native.torchs(x_BTD) @ native.torchs(w_CD).T + b_C
    if native.arithmetic == "bfloat16":
        qkv_BTC = qkv_BTC.bfloat16()
    return reference.attention(qkv_BTC, H, rope)


def check(native, x_BTD, w_CD, b_C, H, rope, B=None):
    """The first B sequences, or all; torch's error is that of all."""
    got = native.attention(x_BTD[:B], w_CD, b_C, H, rope)
    qkv_BTC, expected = definition(native, x_BTD, w_CD, b_C, H, rope)
    native.check(
        got,
        expected,
        torchs(native, x_BTD, w_CD, b_C, H, rope),
        native.left_out_of_attention(x_BTD[:B], w_CD, qkv_BTC[:B], H),
    )


@pytest.mark.parametrize("K", HEAD_DIMS)
def test_every_head_width(native, stored, K):
    rope = rope_tables(33, K // 8 * 2, 10_000.0)
    check(native, *case(2, 33, 2, K, stored), 2, rope)


@pytest.mark.parametrize("T", [1, 15, 16, 17, 32, 33, 300])
@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_every_length_and_share_of_rotation(native, T, share):
    rope = rope_tables(T, int(32 * share), 10_000.0)
    check(native, *case(3, T, 1, 32, D=33), 1, rope)


@settings(deadline=None, max_examples=15)
@given(
    B=st.integers(1, 3),
    T=st.integers(1, 70),
    H=st.integers(1, 3),
    K=st.sampled_from((2, 8, 16, 34, 48, 80)),
    D=st.sampled_from((1, 31, 32, 100)),
    share=st.sampled_from((0, 0.5, 1)),
    seed=st.integers(0, 99),
)
def test_attention_is_its_definition(native, B, T, H, K, D, share, seed):
    """Torch's error is of 24 sequences more: of a few tokens it is small by luck at times."""
    rope = rope_tables(T, int(K * share) // 2 * 2, 10_000.0)
    check(native, *case(B + 24, T, H, K, D=D, seed=seed), H, rope, B)


def test_a_wide_projection_is_cut_and_its_sums_wait(native):
    """D = 1100 takes three cuts of K, five in float32."""
    check(native, *case(1, 40, 1, 16, D=1100), 1, rope_tables(40, 4, 10_000.0))


@pytest.mark.parametrize("scale", [30.0, 1e3])
def test_scores_far_from_zero_pick_one_key(native, scale):
    """Scores of up to ±1e5 or more: all of the weight is on the largest, and nothing overflows."""
    x_BTD, w_CD, b_C = case(1, 70, 1, 16)
    rope = rope_tables(70, 0, 10_000.0)
    w_CD[:32] *= scale
    b_C[:32] = 0
    got = native.attention(x_BTD, w_CD, b_C, 1, rope)
    qkv_BTC, expected = definition(native, x_BTD, w_CD, b_C, 1, rope)
    q, k, _ = qkv_BTC.view(1, 70, 3, 16).unbind(2)
    scores_TT = ((q @ k.transpose(1, 2))[0] / 4).tril()
    best_T2 = scores_TT.masked_fill(torch.ones(70, 70).triu(1).bool(), -1e30).topk(2).values
    clear = best_T2[:, 0] - best_T2[:, 1] > 2.0**-5 * scores_TT.abs().amax(1) + 20
    clear[0] = True
    assert clear.sum() > 20
    if native.arithmetic == "bfloat16":
        expected = expected.bfloat16().double()
    error = (got - expected)[0, clear].abs().max()
    assert error <= {"bfloat16": 2.0**-6, "split-bf16": 1e-3, "float32": 1e-5}[native.arithmetic]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sequence_that_is_not_finite_says_so_and_spoils_no_other(native, value):
    x_BTD, w_CD, b_C = case(3, 40, 2, 16)
    rope = rope_tables(40, 4, 10_000.0)
    before = native.attention(x_BTD, w_CD, b_C, 2, rope)
    x_BTD[1, 34, 3] = value
    got = native.attention(x_BTD, w_CD, b_C, 2, rope)
    assert torch.equal(got[[0, 2]], before[[0, 2]])
    assert torch.equal(got[1, :32], before[1, :32])
    assert got[1, 34:].isnan().all()
