"""Queries and keys turned in place, and what goes into a cache, against torch's own rotation."""

import pytest
import torch

from pythia_fast.kernels.gpu.rotary import rotate_and_store_
from pythia_fast.kernels.rotary import Rope, rope_tables, rotate_


def projection(B, T, H, K, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, 3 * H * K, generator=g).to(dtype)


def turned(device, qkv_BTC, H, rope, cache=None, starts_B=None, B=None, T=None):
    """A copy of the rows after the kernel, on the CPU."""
    there = Rope(rope.cos_TP.to(device), rope.sin_TP.to(device))
    rows = qkv_BTC.to(device, copy=True)
    B, T = B or rows.shape[0], T or rows.shape[1]
    rotate_and_store_(rows, H, there, cache, starts_B, B, T)
    return rows.cpu()


def check(got_BTC, expected_BTC):
    last_bit = torch.finfo(got_BTC.dtype).eps  # a product and a sum may be rounded at once
    torch.testing.assert_close(got_BTC, expected_BTC, rtol=last_bit, atol=last_bit / 16)


def test_queries_and_keys_are_turned_in_place(kernel_device, dtype):
    rope = rope_tables(37, 20, 10_000.0)
    qkv_BTC = projection(2, 37, 3, 80, dtype)
    got = turned(kernel_device, qkv_BTC, 3, rope)
    check(got, rotate_(qkv_BTC.clone(), 3, rope))
    parts, before = got.view(2, 37, 3, 3, 80), qkv_BTC.view(2, 37, 3, 3, 80)
    assert torch.equal(parts[:, :, :, 2], before[:, :, :, 2])
    assert torch.equal(parts[..., 20:], before[..., 20:])


def test_each_sequence_may_have_its_own_tables(kernel_device, dtype):
    shared = rope_tables(20, 8, 10_000.0)
    rope = Rope(*(torch.stack((x_TP[:9], x_TP[5:14])) for x_TP in (shared.cos_TP, shared.sin_TP)))
    qkv_BTC = projection(2, 9, 2, 32, dtype)
    check(turned(kernel_device, qkv_BTC, 2, rope), rotate_(qkv_BTC.clone(), 2, rope))


def test_packed_sequences_begin_at_position_0_each(kernel_device, dtype):
    lengths, rope = [3, 0, 70, 1], rope_tables(70, 16, 10_000.0)
    starts_B = torch.tensor([0, *lengths]).cumsum(0).int().to(kernel_device)
    qkv_1NC = projection(1, sum(lengths), 2, 64, dtype)
    got = turned(kernel_device, qkv_1NC, 2, rope, starts_B=starts_B, B=len(lengths), T=70)
    apart = qkv_1NC[0].split(lengths)
    alone = [rotate_(x_TC[None].clone(), 2, rope.at(0, len(x_TC)))[0] for x_TC in apart]
    check(got[0], torch.cat(alone))


@pytest.mark.parametrize(("K", "R"), [(32, 8), (80, 20), (128, 0), (256, 64)])
def test_a_cache_has_the_turned_keys_and_the_values_and_nothing_else(kernel_device, dtype, K, R):
    B, T, H, P = 2, 45, 2, 50
    rope, qkv_BTC = rope_tables(T, R, 10_000.0), projection(2, 45, 2, K, dtype)
    cache = torch.empty(2, B + 2, H, P, K, dtype=dtype, device=kernel_device)
    got = turned(kernel_device, qkv_BTC, H, rope, cache=cache[:, 1:-1])
    assert torch.equal(got, turned(kernel_device, qkv_BTC, H, rope))
    _, k_BHTK, v_BHTK = got.view(B, T, H, 3, K).permute(3, 0, 2, 1, 4)
    cache = cache.cpu()
    assert torch.equal(cache[0, 1:-1, :, :T], k_BHTK)
    assert torch.equal(cache[1, 1:-1, :, :T], v_BHTK)
    assert cache[:, [0, -1]].isnan().all()
    assert cache[:, :, :, T:].isnan().all()
