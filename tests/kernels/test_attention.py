"""Rotary positions and attention, against the definition and transformers' own functions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb

from pythia_fast.kernels import reference
from pythia_fast.kernels.attention import attention
from pythia_fast.kernels.rotary import rope_tables, rotate_

HEAD_DIMS = (32, 64, 80, 128, 256)


def projection(B: int, T: int, H: int, K: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(B, T, 3 * H * K, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("K", HEAD_DIMS)
def test_rotation_is_that_of_transformers(K: int) -> None:
    R, H, T = K // 4, 3, 50
    rope = rope_tables(T, R, 10_000.0)
    qkv_BTC = projection(2, T, H, K)
    q, k, v = qkv_BTC.view(2, T, H, 3, K).unbind(3)
    cos, sin = (torch.cat((table, table), -1)[None] for table in (rope.cos_TP, rope.sin_TP))
    expected_q, expected_k = apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2)
    got = rotate_(qkv_BTC.clone(), H, rope).view(2, T, H, 3, K)
    torch.testing.assert_close(got[:, :, :, 0], expected_q, rtol=0, atol=1e-6)
    torch.testing.assert_close(got[:, :, :, 1], expected_k, rtol=0, atol=1e-6)
    assert torch.equal(got[:, :, :, 2], v)


def test_a_share_of_zero_rotates_nothing() -> None:
    qkv_BTC = projection(1, 4, 2, 8)
    assert torch.equal(rotate_(qkv_BTC.clone(), 2, rope_tables(4, 0, 10_000.0)), qkv_BTC)


@settings(deadline=None, max_examples=40)
@given(
    B=st.integers(1, 3),
    T=st.integers(1, 70),
    H=st.integers(1, 3),
    K=st.sampled_from((8, *HEAD_DIMS)),
    share=st.sampled_from((0, 0.25, 1)),
    seed=st.integers(0, 99),
)
def test_attention_is_its_definition(
    B: int, T: int, H: int, K: int, share: float, seed: int
) -> None:
    rope = rope_tables(T, int(K * share), 10_000.0)
    qkv_BTC = projection(B, T, H, K, seed)
    expected = reference.attention(qkv_BTC.double(), H, rope)
    torch.testing.assert_close(
        attention(qkv_BTC.clone(), H, rope).double(), expected, rtol=0, atol=5e-6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("K", HEAD_DIMS)
def test_half_types_round_once_on_the_way_in_and_once_out(K: int, dtype: torch.dtype) -> None:
    rope = rope_tables(64, K // 4, 10_000.0)
    qkv_BTC = projection(2, 64, 2, K).to(dtype)
    expected = reference.attention(qkv_BTC.double(), 2, rope)
    naive = reference.attention(qkv_BTC, 2, rope).double()
    ours = attention(qkv_BTC.clone(), 2, rope).double()
    assert (ours - expected).abs().max() <= 2 * (naive - expected).abs().max() + 1e-6


@pytest.mark.parametrize("T", [1, 7, 64])
def test_scores_beyond_the_range_of_float16_stay_finite(T: int) -> None:
    """q·k of 14m overflows float16: here it is 32 · 200² = 1.3e6, its limit 65504."""
    qkv_BTC = (200 * projection(1, T, 4, 32).sign()).half()
    rope = rope_tables(T, 8, 10_000.0)
    q_BTHK = qkv_BTC.view(1, T, 4, 3, 32)[:, :, :, 0]
    assert (q_BTHK * q_BTHK).sum(-1).isinf().all()
    assert attention(qkv_BTC.clone(), 4, rope).isfinite().all()


@pytest.mark.parametrize("cuts", [(5,), (1, 1, 3), (4, 1), (2, 3)])
def test_a_cache_changes_nothing(cuts: tuple[int, ...]) -> None:
    B, H, K, T = 2, 3, 16, sum(cuts)
    rope = rope_tables(T, 4, 10_000.0)
    qkv_BTC = projection(B, T, H, K)
    whole = attention(qkv_BTC.clone(), H, rope)
    cache = torch.empty(2, B, H, T, K)
    start, parts = 0, []
    for length in cuts:
        new = qkv_BTC[:, start : start + length].clone()
        parts.append(attention(new, H, rope.at(start, length), cache=cache, start=start))
        start += length
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-6)


def test_gradients_are_those_of_the_definition() -> None:
    rope = rope_tables(6, 4, 10_000.0)
    leaf = projection(2, 6, 2, 16).double().requires_grad_()
    weight = torch.randn(2, 6, 32).double()
    (reference.attention(leaf, 2, rope) * weight).sum().backward()
    expected, leaf.grad = leaf.grad, None
    (attention(leaf * 1, 2, rope) * weight).sum().backward()
    assert expected is not None
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected)
