"""Attention in rows that are trees, against the definition in float64 with the mask written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import reference, tree
from pythia_fast.kernels.attention import attention
from pythia_fast.kernels.panels import ends_of
from pythia_fast.kernels.rotary import Rope, rope_tables


def ends(prefix, tails):
    """Of [prefix | tail | …]."""
    T = prefix + sum(tails)
    found = [T] * prefix
    for tail in tails:
        found += [len(found) + tail] * tail
    return found


def random_ends(T, random):
    """Of a tree of any depth: each token's parent is one on the way to the token before it."""
    path, found = [0], [T] * T
    for token in range(1, T):
        depth = len(path) if random.random() < 0.7 else int(random.integers(1, len(path) + 1))
        for closed in path[depth:]:
            found[closed] = token
        path = [*path[:depth], token]
    return found


def ancestors(end_T):
    """Each token's way from the root, itself included, by a walk."""
    ways, open_ = [], []
    for token, end in enumerate(end_T):
        open_ = [one for one in open_ if end_T[one] > token] + [token]
        assert end > token
        ways.append(list(open_))
    return ways


def case(B, T, H, K, D=24, seed=0):
    g = torch.Generator().manual_seed(seed)
    x_BTD = torch.randn(B, T, D, generator=g)
    w_CD = torch.randn(3 * H * K, D, generator=g) / D**0.5
    return x_BTD, w_CD, torch.randn(3 * H * K, generator=g) / 4


def check(native, end_BT, H, K, share=0.5, seed=0):
    """Torch's error is of 24 rows more: of a few tokens it is small by luck at times."""
    B, T = end_BT.shape
    many_BT = torch.cat((end_BT, end_BT[:1].expand(24, T)))
    x_BTD, w_CD, b_C = case(B + 24, T, H, K, seed=seed)
    rope = tree.rope_of(rope_tables(T, int(K * share) // 2 * 2, 10_000.0), many_BT)
    seen = tree.sight(many_BT)
    qkv_BTC = native.kept(x_BTD) @ native.kept(w_CD).T + b_C.double()
    expected = reference.attention(qkv_BTC, H, rope, seen)
    plain_BTC = native.torchs(x_BTD) @ native.torchs(w_CD).T + b_C
    if native.arithmetic == "bfloat16":
        plain_BTC = plain_BTC.bfloat16()
    torchs = reference.attention(plain_BTC, H, rope, seen)
    own = Rope(rope.cos_TP[:B], rope.sin_TP[:B])
    got = native.attention(x_BTD[:B], w_CD, b_C, H, own, end_BT)
    left_out = native.left_out_of_attention(x_BTD[:B], w_CD, qkv_BTC[:B], H)
    native.check(got, expected, torchs, left_out)


def test_positions_and_sight_are_those_of_a_walk():
    random = np.random.default_rng(0)
    for T in (1, 2, 17, 60):
        end_T = random_ends(T, random)
        ways = ancestors(end_T)
        end_BT = torch.tensor([end_T, [T] * T])
        assert tree.positions(end_BT).tolist() == [[len(way) - 1 for way in ways], list(range(T))]
        seen_TT = tree.sight(end_BT)[:, 0]
        assert [row.nonzero()[:, 0].tolist() for row in seen_TT[0]] == ways
        assert seen_TT[1].equal(torch.ones(T, T).tril().bool())


@pytest.mark.parametrize("K", [2, 16, 30, 64, 80, 256])
def test_every_head_width(native, K):
    check(native, torch.tensor([ends(21, [5, 1, 9]), ends(1, [20, 15])]), 2, K)


@pytest.mark.parametrize(
    ("prefix", "tails"),
    [
        (1, [1]),
        (1, [40, 40, 40]),
        (32, [32, 32]),
        (31, [1, 1, 1, 1]),
        (33, []),
        (100, [3, 4, 5, 6]),
        (300, [40, 70, 5]),  # more keys than are weighed at a time
        (5, [290, 300]),  # blocks between the prefix and the tail are left out
    ],
)
def test_prefixes_and_tails(native, prefix, tails):
    check(native, torch.tensor([ends(prefix, tails)]), 1, 16)


@settings(deadline=None, max_examples=15)
@given(
    B=st.integers(1, 3),
    T=st.integers(1, 90),
    H=st.integers(1, 3),
    K=st.sampled_from((2, 8, 34, 48)),
    share=st.sampled_from((0, 0.5, 1)),
    seed=st.integers(0, 999),
)
def test_any_tree(native, B, T, H, K, share, seed):
    random = np.random.default_rng(seed)
    end_BT = torch.tensor([random_ends(T, random) for _ in range(B)])
    check(native, end_BT, H, K, share, seed)


@pytest.mark.parametrize("T", [1, 17, 33, 300])
def test_a_tree_without_branches_has_the_bits_of_causal_attention(native, T):
    x_BTD, w_CD, b_C = case(3, T, 2, 16)
    rope, end_BT = rope_tables(T, 8, 10_000.0), torch.full((3, T), T)
    causal = native.attention(x_BTD, w_CD, b_C, 2, rope)
    own = tree.rope_of(rope, end_BT)
    assert native.attention(x_BTD, w_CD, b_C, 2, own, end_BT).equal(causal)


def test_threads_and_company_change_no_bit(native, threads):
    end_BT = torch.tensor([ends(100, [40, 30, 20]), ends(3, [100, 87]), ends(190, [])])
    x_BTD, w_CD, b_C = case(3, 190, 2, 16)
    rope = tree.rope_of(rope_tables(190, 8, 10_000.0), end_BT)
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(native.attention(x_BTD, w_CD, b_C, 2, rope, end_BT))
    assert found[0].equal(found[1])
    alone = tree.rope_of(rope_tables(190, 8, 10_000.0), end_BT[1:2])
    assert native.attention(x_BTD[1:2], w_CD, b_C, 2, alone, end_BT[1:2]).equal(found[0][1:2])


@settings(deadline=None, max_examples=20)
@given(T=st.integers(1, 70), seed=st.integers(0, 999), share=st.sampled_from((0, 0.25, 1)))
def test_torch_does_the_same(T, seed, share):
    random = np.random.default_rng(seed)
    end_BT = torch.tensor([random_ends(T, random) for _ in range(2)])
    rope = tree.rope_of(rope_tables(T, int(32 * share), 10_000.0), end_BT)
    qkv_BTC = torch.randn(2, T, 3 * 3 * 32, generator=torch.Generator().manual_seed(seed))
    seen = tree.sight(end_BT)
    expected = reference.attention(qkv_BTC.double(), 3, rope, seen)
    got = attention(qkv_BTC.clone(), 3, rope, seen=seen)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=5e-6)


def test_ends_are_filled_up_to_whole_panels():
    assert ends_of(torch.tensor([[5, 3, 3, 5, 5]])).tolist() == [[16, 3, 3, 16, 16, *range(6, 17)]]


@pytest.mark.parametrize(
    "change", [(0, 15), (5, 5), (5, 0), (5, -1), (5, 17), (5, 2**31 - 1), (17, 1)]
)
def test_ends_that_hide_a_token_from_itself_or_the_first_one_are_refused(native, change):
    place, end = change
    end_BX = torch.full((2, 16), 16)
    end_BX.view(-1)[place] = end
    room = native.kernels.room_for_heads(2, 1, 16, 1)
    out = native.kernels.operand(16, 2)
    with pytest.raises(ArgumentError, match="ends"):
        native.kernels.attention(room, out, end_BX)
    with pytest.raises(ArgumentError, match="ends"):
        native.kernels.attention(room, out, end_BX[:1])
