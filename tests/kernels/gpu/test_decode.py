"""One token after another against a cache, as exact as all positions at once."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import reference
from pythia_fast.kernels.gpu import HEAD_DIMS
from pythia_fast.kernels.gpu.decode import CHUNK, decode_attention
from pythia_fast.kernels.rotary import Rope, rope_tables, rotate_

MORE = 8
"""Sequences more for torch's own error: of a few tokens it is small by luck at times."""


def projection(B, T, H, K, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, 3 * H * K, generator=g).to(dtype)


class Cache:
    """Of B sequences in slots from the last one down; what nobody stored is NaN."""

    def __init__(self, device, qkv_BTC, H, rope, length, positions):
        """The first `length` positions are those of qkv."""
        B, _, C = qkv_BTC.shape
        K = C // (3 * H)
        self.device, self.H = device, H
        self.rope = Rope(rope.cos_TP.to(device), rope.sin_TP.to(device))
        self.slots = list(range(B + 1, 1, -1))
        self.cache = torch.empty(2, B + 2, H, positions, K, dtype=qkv_BTC.dtype, device=device)
        turned = rotate_(qkv_BTC[:, :length].clone(), H, rope.at(0, length))
        _, k_BHTK, v_BHTK = turned.view(B, length, H, 3, K).permute(3, 0, 2, 1, 4)
        self.cache[0, self.slots, :, :length] = k_BHTK.to(device)
        self.cache[1, self.slots, :, :length] = v_BHTK.to(device)

    def step(self, qkv_BC, position, rows=slice(None)):
        """Attention of one token of each sequence, or of some, on the CPU."""
        given = qkv_BC[rows].to(self.device).contiguous()
        B, C = given.shape
        out = torch.empty(B, C, dtype=given.dtype, device=self.device)
        slot_B = torch.tensor(self.slots[rows], dtype=torch.int32, device=self.device)
        position_1 = torch.tensor([position], dtype=torch.int32, device=self.device)
        before = given.clone()
        decode_attention(given, self.H, self.rope, self.cache, slot_B, position_1, out[:, : C // 3])
        assert torch.equal(given.nan_to_num(), before.nan_to_num())
        assert out[:, C // 3 :].isnan().all()
        return out[:, : C // 3].cpu()


def check(got_BD, many_BTC, H, rope):
    """Of the last position; torch's error is of all positions of all sequences."""
    T = many_BTC.shape[1]
    expected = reference.attention(many_BTC.double(), H, rope.at(0, T))
    torch_error = (reference.attention(many_BTC, H, rope.at(0, T)) - expected).abs().max()
    error = (got_BD - expected[: len(got_BD), -1]).abs().max()
    assert error <= 2 * torch_error + 1e-6, f"{error:.3g}, torch's {torch_error:.3g}"


@pytest.mark.parametrize("position", [0, 31, 300])
@pytest.mark.parametrize("K", sorted(HEAD_DIMS))
def test_every_head_width(kernel_device, dtype, K, position):
    rope = rope_tables(310, K // 4, 10_000.0)
    many = projection(1 + MORE, position + 1, 1, K, dtype)
    cache = Cache(kernel_device, many[:1], 1, rope, position, 310)
    check(cache.step(many[:1, -1], position), many, 1, rope)


@pytest.mark.parametrize("share", [0, 0.5, 1])
@pytest.mark.parametrize("K", [32, 80])
def test_every_share_of_rotation(kernel_device, dtype, K, share):
    rope = rope_tables(20, int(K * share), 10_000.0)
    many = projection(2 + MORE, 18, 2, K, dtype)
    cache = Cache(kernel_device, many[:2], 2, rope, 17, 20)
    check(cache.step(many[:2, -1], 17), many, 2, rope)


@pytest.mark.parametrize("position", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK])
@pytest.mark.parametrize("spare", [1, CHUNK])
def test_chunks_begin_and_end(kernel_device, position, spare):
    rope = rope_tables(position + spare, 8, 10_000.0)
    many = projection(1 + MORE, position + 1, 1, 32, torch.float16)
    cache = Cache(kernel_device, many[:1], 1, rope, position, position + spare)
    check(cache.step(many[:1, -1], position), many, 1, rope)


@settings(deadline=None, max_examples=5)
@given(
    B=st.integers(1, 3),
    position=st.integers(0, 2 * CHUNK),
    spare=st.integers(1, CHUNK),
    H=st.integers(1, 2),
    K=st.sampled_from((32, 64, 80)),
    pairs=st.integers(0, 16),
)
def test_any_shape(kernel_device, B, position, spare, H, K, pairs):
    rope = rope_tables(position + spare, 2 * pairs, 10_000.0)
    many = projection(B + MORE, position + 1, H, K, torch.float16, seed=B)
    cache = Cache(kernel_device, many[:B], H, rope, position, position + spare)
    check(cache.step(many[:B, -1], position), many, H, rope)


def test_a_step_stores_its_key_and_value_and_nothing_else(kernel_device, dtype):
    rope = rope_tables(40, 20, 10_000.0)
    qkv_BTC = projection(2, 31, 3, 80, dtype)
    cache = Cache(kernel_device, qkv_BTC, 3, rope, 30, 40)
    before = cache.cache.clone()
    cache.step(qkv_BTC[:, 30], 30)
    expected = Cache(kernel_device, qkv_BTC, 3, rope, 31, 40).cache
    stored, at_once = cache.cache[:, cache.slots, :, 30], expected[:, cache.slots, :, 30]
    last_bit = torch.finfo(dtype).eps  # a product and a sum may be rounded at once
    torch.testing.assert_close(stored, at_once, rtol=last_bit, atol=last_bit / 16)
    assert torch.equal(stored[1], at_once[1])
    cache.cache[:, cache.slots, :, 30] = torch.nan
    torch.testing.assert_close(cache.cache, before, rtol=0, atol=0, equal_nan=True)


def test_steps_follow_each_other(kernel_device, dtype):
    """What a step stored is what the next one reads."""
    rope = rope_tables(40, 8, 10_000.0)
    many = projection(2 + MORE, 33, 2, 32, dtype)
    cache = Cache(kernel_device, many[:2], 2, rope, 30, 40)
    for position in range(30, 33):
        found = cache.step(many[:2, position], position)
        check(found, many[:, : position + 1], 2, rope)


def test_the_highest_score_may_come_last(kernel_device):
    """Chunks that outweigh all before them, and some that nobody looks at."""
    rope = rope_tables(700, 0, 10_000.0)
    many = projection(1 + MORE, 700, 1, 32, torch.float16)
    many[:, :, 32:64] *= torch.linspace(0.1, 6, 700)[None, :, None].half()
    cache = Cache(kernel_device, many[:1], 1, rope, 699, 700)
    check(cache.step(many[:1, -1], 699), many, 1, rope)


def test_scores_beyond_the_range_of_float16(kernel_device):
    qkv_BTC = (200 * projection(2, 300, 4, 32).sign()).half()
    rope = rope_tables(300, 0, 10_000.0)
    cache = Cache(kernel_device, qkv_BTC, 4, rope, 299, 300)
    expected = reference.attention(qkv_BTC.double(), 4, rope)[:, -1]
    assert torch.equal(cache.step(qkv_BTC[:, -1], 299), expected.half())


@pytest.mark.parametrize("positions", [40, 400])
def test_company_and_the_cache_s_size_change_no_bit(kernel_device, positions):
    rope = rope_tables(400, 20, 10_000.0)
    qkv_BTC = projection(4, 40, 2, 80, torch.float16)
    together = Cache(kernel_device, qkv_BTC, 2, rope, 39, 40).step(qkv_BTC[:, 39], 39)
    for rows in (slice(0, 1), slice(2, 4)):
        cache = Cache(kernel_device, qkv_BTC, 2, rope, 39, positions)
        assert torch.equal(cache.step(qkv_BTC[:, 39], 39, rows), together[rows])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_sequence_that_is_not_finite_says_so_and_spoils_no_other(kernel_device, value):
    rope = rope_tables(300, 8, 10_000.0)
    qkv_BTC = projection(3, 300, 1, 32, torch.float16)
    clean = Cache(kernel_device, qkv_BTC, 1, rope, 299, 300).step(qkv_BTC[:, 299], 299)
    qkv_BTC[1, 20] = value
    got = Cache(kernel_device, qkv_BTC, 1, rope, 299, 300).step(qkv_BTC[:, 299], 299)
    assert torch.equal(got[[0, 2]], clean[[0, 2]])
    assert got[1].isnan().all()


def test_nothing_is_asked_of_no_sequences(kernel_device):
    rope = rope_tables(8, 8, 10_000.0)
    qkv_BTC = projection(2, 8, 1, 32)
    cache = Cache(kernel_device, qkv_BTC, 1, rope, 7, 8)
    assert cache.step(qkv_BTC[:, 7], 7, slice(0, 0)).shape == (0, 32)


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("heads of width 32, 64", {"heads": 3}),
        ("tables are", {"rope": rope_tables(7, 8, 1e4)}),
        ("tables are", {"rope": Rope(torch.zeros(3, 8, 4), torch.zeros(3, 8, 4))}),
        ("a cache is", {"cache": torch.zeros(2, 4, 2, 8, 64)}),
        ("rows of out", {"out_BD": torch.zeros(2, 64)}),
        ("rows of out", {"slot_B": torch.arange(2).int()}),
        ("rows of out", {"position": torch.zeros(2).int()}),
        ("int32", {"slot_B": torch.arange(3)}),
        ("int32", {"position": torch.zeros(1)}),
        ("out has rows", {"out_BD": torch.zeros(3, 65)}),
    ],
)
def test_what_does_not_fit_is_refused(match, change):
    fits = {
        "qkv_BC": torch.zeros(3, 192),
        "heads": 2,
        "rope": rope_tables(8, 8, 1e4),
        "cache": torch.zeros(2, 4, 2, 8, 32),
        "slot_B": torch.arange(3).int(),
        "position": torch.zeros(1).int(),
        "out_BD": torch.zeros(3, 64),
    }
    with pytest.raises(ArgumentError, match=match):
        decode_attention(**(fits | change))
