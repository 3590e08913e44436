"""One token after another against the definition in float64, and the product as it is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import reference
from pythia_fast.kernels.panels import LANES, KeyValues, PanelRope
from pythia_fast.kernels.rotary import rope_tables


def case(B, T, H, K, dtype=torch.float32, D=24, seed=0):
    """Hidden states, and a projection that makes queries, keys and values of size one."""
    g = torch.Generator().manual_seed(seed)
    x_BTD = torch.randn(B, T, D, generator=g)
    w_CD = torch.randn(3 * H * K, D, generator=g) / D**0.5
    b_C = torch.randn(3 * H * K, generator=g) / 4
    return x_BTD, w_CD.to(dtype), b_C


def prompt(native, x_BTD, w_CD, b_C, H, rope, capacity):
    """A cache with room for `capacity` positions that holds those of x."""
    B, T, D = x_BTD.shape
    K, panels = len(w_CD) // (3 * H), -(-T // LANES)
    cache = native.kernels.room_for_keys(B, H, K, capacity)
    padded_BTD = torch.zeros(B, panels * LANES, D)
    padded_BTD[:, :T] = x_BTD
    heads = native.kernels.heads_into(cache, panels)
    native.kernels.heads(native.operand(padded_BTD.view(-1, D)), w_CD, b_C, PanelRope(rope), heads)
    return cache


def step(native, x_BD, w_CD, b_C, rope, position, cache):
    """Attention of one token of each sequence, [B, H K] float64."""
    width = cache.heads * cache.width
    qkv_PCL = native.kernels.project(native.operand(x_BD), w_CD, b_C)
    out = native.kernels.operand(width + 6, len(qkv_PCL))
    native.kernels.decode(qkv_PCL, PanelRope(rope), position, cache, out)
    return native.rows(out)[: len(x_BD), :width]


def decoded(native, x_BTD, w_CD, b_C, H, rope, start, capacity=None):
    """The positions from `start` on, one after another, [B, T - start, H K]."""
    T = x_BTD.shape[1]
    cache = prompt(native, x_BTD[:, :start], w_CD, b_C, H, rope, capacity or T)
    steps = [step(native, x_BTD[:, t], w_CD, b_C, rope, t, cache) for t in range(start, T)]
    return torch.stack(steps, 1)


def check(native, x_BTD, w_CD, b_C, H, rope, start, capacity=None):
    """As exact as all positions at once, which test_cpu_attention.py holds against torch."""
    qkv_BTC = native.kept(x_BTD) @ native.kept(w_CD).T + b_C.double()
    expected = reference.attention(qkv_BTC, H, rope)
    at_once = (native.attention(x_BTD, w_CD, b_C, H, rope) - expected).abs().max()
    got = decoded(native, x_BTD, w_CD, b_C, H, rope, start, capacity)
    error = (got - expected[:, start:]).abs().max()
    assert error <= 2 * at_once + 1e-6, f"{error:.3g}, at once {at_once:.3g}"


@pytest.mark.parametrize("K", [2, 8, 16, 30, 32, 64, 80, 128, 256])
def test_every_head_width(native, stored, K):
    rope = rope_tables(36, K // 8 * 2, 10_000.0)
    check(native, *case(3, 36, 2, K, stored), 2, rope, 30)


@pytest.mark.parametrize("start", [1, 15, 16, 17, 31, 32, 33, 63, 64])
@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_every_length_of_a_prompt_and_share_of_rotation(native, start, share):
    T = start + 3
    rope = rope_tables(T, int(32 * share), 10_000.0)
    check(native, *case(2, T, 1, 32, D=33), 1, rope, start)


@pytest.mark.parametrize("B", [1, 15, 16, 17, 40])
def test_every_number_of_sequences(native, B):
    rope = rope_tables(70, 8, 10_000.0)
    check(native, *case(B, 70, 2, 16), 2, rope, 62, capacity=100)


@pytest.mark.parametrize("start", [1022, 2047])
def test_more_keys_than_are_scored_at_a_time(native, start):
    rope = rope_tables(start + 4, 8, 10_000.0)
    x_BTD, w_CD, b_C = case(2, start + 4, 1, 16)
    check(native, x_BTD, 2 * w_CD, b_C, 1, rope, start)


def test_the_highest_score_may_come_last(native):
    """Later keys that outweigh all before them, and some that nobody looks at."""
    rope = rope_tables(1100, 0, 10_000.0)
    x_BTD, w_CD, b_C = case(1, 1100, 1, 16)
    x_BTD = x_BTD * torch.linspace(0.1, 6, 1100)[None, :, None]
    check(native, x_BTD, w_CD, b_C, 1, rope, 1090)


@settings(deadline=None, max_examples=15)
@given(
    B=st.integers(1, 35),
    start=st.integers(1, 40),
    more=st.integers(1, 5),
    H=st.integers(1, 3),
    pairs=st.integers(1, 40),
    spare=st.integers(0, 40),
    data=st.data(),
)
def test_any_shape(native, B, start, more, H, pairs, spare, data):
    rotary = 2 * data.draw(st.integers(0, pairs))
    T = start + more
    rope = rope_tables(T, rotary, 10_000.0)
    check(native, *case(B, T, H, 2 * pairs, seed=B), H, rope, start, T + spare)


@pytest.mark.usefixtures("threads")
def test_threads_and_company_change_no_bit(native):
    rope = rope_tables(40, 8, 10_000.0)
    x_BTD, w_CD, b_C = case(37, 40, 3, 16)
    torch.set_num_threads(1)
    one = decoded(native, x_BTD, w_CD, b_C, 3, rope, 30)
    torch.set_num_threads(2)
    assert torch.equal(decoded(native, x_BTD, w_CD, b_C, 3, rope, 30), one)
    for rows in (slice(0, 1), slice(20, 21), slice(5, 25), slice(36, 37)):
        alone = decoded(native, x_BTD[rows], w_CD, b_C, 3, rope, 30, capacity=100)
        assert torch.equal(alone, one[rows])


def test_nan_stays_with_its_sequence(native):
    rope = rope_tables(40, 8, 10_000.0)
    x_BTD, w_CD, b_C = case(20, 40, 1, 16)
    clean = decoded(native, x_BTD, w_CD, b_C, 1, rope, 33)
    x_BTD[7, 35] = torch.nan
    got = decoded(native, x_BTD, w_CD, b_C, 1, rope, 33)
    assert got[7, 2:].isnan().all()
    got[7, 2:] = clean[7, 2:]
    assert torch.equal(got, clean)


@pytest.mark.parametrize(("N", "C"), [(1, 1), (17, 33), (40, 100), (32, 513)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_as_it_is(native, stored, N, C, biased):
    g = torch.Generator().manual_seed(N)
    x_ND = torch.randn(N, 70, generator=g)
    w_CD = (torch.randn(C, 70, generator=g) / 8).to(stored)
    b_C = torch.randn(C, generator=g) if biased else None
    got_PCL = native.kernels.project(native.operand(x_ND), w_CD, b_C)
    got = native.kernels.unpack(got_PCL)[:N]
    bias = 0 if b_C is None else b_C
    expected = native.kept(x_ND) @ native.kept(w_CD).T + bias
    torchs = native.torchs(x_ND) @ native.torchs(w_CD).T + bias
    native.check(got, expected, torchs, native.left_out(x_ND, w_CD))


def test_what_does_not_fit_is_refused(native):
    kernels = native.kernels
    rope = rope_tables(64, 8, 10_000.0)
    cache = kernels.room_for_keys(3, 2, 16, 32)
    qkv_PCL, out = torch.zeros(2, 96, LANES), kernels.operand(32, 2)

    def refused(match, qkv=qkv_PCL, position=5, of=cache, into=out):
        with pytest.raises(ArgumentError, match=match):
            kernels.decode(qkv, PanelRope(rope), position, of, into)

    kernels.decode(qkv_PCL, PanelRope(rope), 31, cache, out)
    refused("room for 2 panels", position=32)
    refused("below 64", position=64, of=kernels.room_for_keys(3, 2, 16, 96))
    refused("qkv", qkv=torch.zeros(2, 95, LANES))
    refused("output's panels", into=kernels.operand(32, 4))
    refused("output's rows", into=kernels.operand(30, 2))
    refused("values", of=KeyValues(cache.keys_BX, cache.values_BX[:, 1:].contiguous(), 2, 16, 32))
    refused("at most 256", of=KeyValues(cache.keys_BX, cache.values_BX, 2, 258, 32))
    with pytest.raises(ArgumentError, match="bias"):
        kernels.project(native.operand(torch.zeros(1, 8)), torch.zeros(4, 8), torch.zeros(5))
