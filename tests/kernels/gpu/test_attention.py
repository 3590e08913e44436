"""Rotary attention of whole sequences against the definition in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import reference, tree
from pythia_fast.kernels.gpu import HEAD_DIMS, attention
from pythia_fast.kernels.gpu.attention import (
    CONFIGS,
    rotary_attention,
    rotary_attention_packed,
)
from pythia_fast.kernels.gpu.chips import Chip
from pythia_fast.kernels.rotary import Rope, rope_tables

MORE = 8
"""Sequences more for torch's own error: of a few tokens it is small by luck at times."""

NAN = math.nan


QUIET = pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning", "ignore:All-NaN slice:RuntimeWarning"
)
"""NumPy, with which the interpreter computes, warns of NaN."""


@pytest.fixture(params=[(8, 6), (9, 0)], ids=["by threads", "by the copy engine"])
def each_chip(request, kernel_device, monkeypatch):
    """Both ways in which tiles come: on a GPU, that of the GPU."""
    if kernel_device.type == "cpu":
        monkeypatch.setattr(attention, "chip_of", lambda device: Chip(request.param, 3))
    elif request.param != (9, 0):
        pytest.skip("a GPU is what it is")


def projection(B, T, H, K, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, 3 * H * K, generator=g).to(dtype)


def room(device, B, T, D, dtype):
    """Poisoned rows with as much behind each, as the parallel MLP has it."""
    return torch.empty(B, T, 2 * D, dtype=dtype, device=device)


def attended(device, qkv_BTC, H, rope, **options):
    """The result on the CPU; all of it written, and nothing beside it."""
    B, T, C = qkv_BTC.shape
    D = C // 3
    out = room(device, B, T, D, qkv_BTC.dtype)
    on = {name: x.to(device) for name, x in options.items()}
    there = Rope(rope.cos_TP.to(device), rope.sin_TP.to(device))
    rotary_attention(qkv_BTC.to(device, copy=True), H, there, out[:, :, :D], **on)
    assert out[:, :, D:].isnan().all()
    return out[:, :, :D].cpu()


def check(got_BTD, qkv_BTC, H, rope, seen=None, many=None):
    """`many` are the sequences that torch's own error is measured on."""
    many = qkv_BTC if many is None else many
    expected = reference.attention(many.double(), H, rope, seen)
    torch_error = (reference.attention(many, H, rope, seen) - expected).abs().max()
    error = (got_BTD - expected[: len(got_BTD)]).abs().max()
    assert error <= 2 * torch_error + 1e-6, f"{error:.3g}, torch's {torch_error:.3g}"


@pytest.mark.parametrize("T", [1, 33, 150])
@pytest.mark.parametrize("K", sorted(HEAD_DIMS))
def test_every_head_width(kernel_device, dtype, K, T):
    H = 1 if T > 100 else 2
    rope = rope_tables(T, K // 4, 10_000.0)
    many = projection(1 + MORE, T, H, K, dtype)
    check(attended(kernel_device, many[:1], H, rope), many, H, rope, many=many)


@pytest.mark.parametrize("K", [64, 80, 256])
def test_tiles_that_the_threads_load(kernel_device, monkeypatch, K):
    if kernel_device.type == "cuda":
        pytest.skip("a GPU is what it is")
    monkeypatch.setattr(attention, "chip_of", lambda device: Chip((8, 0), 3))
    rope = rope_tables(140, K // 4, 10_000.0)
    many = projection(1 + MORE, 140, 1, K, torch.float16)
    check(attended(kernel_device, many[:1], 1, rope), many, 1, rope, many=many)


@pytest.mark.parametrize("share", [0, 0.5, 1])
@pytest.mark.parametrize("K", [32, 80])
def test_every_share_of_rotation(kernel_device, dtype, K, share):
    rope = rope_tables(40, int(K * share), 10_000.0)
    many = projection(1 + MORE, 40, 2, K, dtype)
    check(attended(kernel_device, many[:1], 2, rope), many, 2, rope, many=many)


@settings(deadline=None, max_examples=6)
@given(
    B=st.integers(1, 2),
    T=st.integers(1, 140),
    H=st.integers(1, 2),
    K=st.sampled_from((32, 64, 80)),
    pairs=st.integers(0, 16),
    seed=st.integers(0, 99),
)
def test_attention_is_its_definition(kernel_device, B, T, H, K, pairs, seed):
    rope = rope_tables(T, 2 * pairs, 10_000.0)
    many = projection(B + MORE, T, H, K, torch.float16, seed)
    check(attended(kernel_device, many[:B], H, rope), many, H, rope, many=many)


@pytest.mark.parametrize("T", [1, 7, 64])
def test_scores_beyond_the_range_of_float16(kernel_device, T):
    """q·k of 14m overflows float16: here it is 32 · 200² = 1.3e6, its limit 65504."""
    qkv_BTC = (200 * projection(1, T, 4, 32).sign()).half()
    q_BTHK = qkv_BTC.view(1, T, 4, 3, 32)[:, :, :, 0]
    assert (q_BTHK * q_BTHK).sum(-1).isinf().all()
    assert attended(kernel_device, qkv_BTC, 4, rope_tables(T, 8, 10_000.0)).isfinite().all()
    unturned = rope_tables(T, 0, 10_000.0)  # whole numbers: no score is rounded, none decides by it
    got = attended(kernel_device, qkv_BTC, 4, unturned)
    assert torch.equal(got.double(), reference.attention(qkv_BTC.double(), 4, unturned).half())


@pytest.mark.parametrize(("K", "R"), [(32, 8), (80, 20), (128, 0), (256, 64)])
def test_a_cache_is_filled_and_changes_nothing(kernel_device, dtype, K, R):
    B, T, H, P = 2, 45, 2, 50
    rope = rope_tables(T, R, 10_000.0)
    qkv_BTC = projection(B, T, H, K, dtype)
    cache = torch.empty(2, B + 2, H, P, K, dtype=dtype, device=kernel_device)
    out = room(kernel_device, B, T, H * K, dtype)[:, :, : H * K]
    turned = qkv_BTC.to(kernel_device, copy=True)
    there = Rope(rope.cos_TP.to(kernel_device), rope.sin_TP.to(kernel_device))
    rotary_attention(turned, H, there, out, cache=cache[:, 1:-1])
    assert torch.equal(out.cpu(), attended(kernel_device, qkv_BTC, H, rope))
    _, k_BHTK, v_BHTK = turned.view(B, T, H, 3, K).permute(3, 0, 2, 1, 4)
    assert torch.equal(cache[0, 1:-1, :, :T], k_BHTK)
    assert torch.equal(cache[1, 1:-1, :, :T], v_BHTK)
    assert cache[:, [0, -1]].isnan().all()
    assert cache[:, :, :, T:].isnan().all()


def random_ends(T, random):
    """Of a tree of any depth: each token's parent is one on the way to the token before it."""
    path, found = [0], [T] * T
    for token in range(1, T):
        depth = len(path) if random.random() < 0.7 else int(random.integers(1, len(path) + 1))
        for closed in path[depth:]:
            found[closed] = token
        path = [*path[:depth], token]
    return found


@pytest.mark.usefixtures("each_chip")
@pytest.mark.parametrize(("K", "T"), [(32, 150), (80, 70), (256, 40)])
def test_trees(kernel_device, dtype, K, T):
    random = np.random.default_rng(0)
    end_BT = torch.tensor([random_ends(T, random) for _ in range(2 + MORE)])
    rope = tree.rope_of(rope_tables(T, K // 4, 10_000.0), end_BT)
    many = projection(2 + MORE, T, 1, K, dtype)
    own = Rope(rope.cos_TP[:2], rope.sin_TP[:2])
    got = attended(kernel_device, many[:2], 1, own, end_BT=end_BT[:2])
    check(got, many, 1, rope, tree.sight(end_BT), many=many)


@settings(deadline=None, max_examples=6)
@given(B=st.integers(1, 3), T=st.integers(1, 140), seed=st.integers(0, 999))
def test_any_tree(kernel_device, B, T, seed):
    random = np.random.default_rng(seed)
    end_BT = torch.tensor([random_ends(T, random) for _ in range(B + MORE)])
    rope = tree.rope_of(rope_tables(T, 16, 10_000.0), end_BT)
    many = projection(B + MORE, T, 1, 64, torch.float16, seed)
    own = Rope(rope.cos_TP[:B], rope.sin_TP[:B])
    got = attended(kernel_device, many[:B], 1, own, end_BT=end_BT[:B])
    check(got, many, 1, rope, tree.sight(end_BT), many=many)


@pytest.mark.parametrize("T", [1, 17, 150])
def test_a_tree_without_branches_has_the_bits_of_causal_attention(kernel_device, T):
    rope, end_BT = rope_tables(T, 16, 10_000.0), torch.full((2, T), T)
    qkv_BTC = projection(2, T, 2, 64, torch.float16)
    causal = attended(kernel_device, qkv_BTC, 2, rope)
    own = tree.rope_of(rope, end_BT)
    assert torch.equal(attended(kernel_device, qkv_BTC, 2, own, end_BT=end_BT), causal)


def packed(device, sequences, H, rope, longest=None):
    """All of them one behind another, and the results apart again."""
    lengths = [len(x_TC) for x_TC in sequences]
    starts_B = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
    qkv_NC = torch.cat(sequences).to(device)
    N, C = qkv_NC.shape
    out = room(device, 1, N, C // 3, qkv_NC.dtype)[0]
    there = Rope(rope.cos_TP.to(device), rope.sin_TP.to(device))
    longest = longest or max(lengths)
    rotary_attention_packed(qkv_NC, H, there, starts_B, longest, out[:, : C // 3])
    assert out[:, C // 3 :].isnan().all()
    return out[:, : C // 3].cpu().split(lengths)


@pytest.mark.usefixtures("each_chip")
@pytest.mark.parametrize("K", [64, 80])
def test_packed_sequences_have_the_bits_that_they_have_alone(kernel_device, dtype, K):
    rope = rope_tables(150, K // 4, 10_000.0)
    sequences = [projection(1, T, 2, K, dtype, seed=T)[0] for T in (1, 140, 0, 33)]
    found = packed(kernel_device, sequences, 2, rope, longest=145)
    for qkv_TC, got_TD in zip(sequences, found, strict=True):
        if len(qkv_TC):
            own = rope.at(0, len(qkv_TC))
            assert torch.equal(got_TD, attended(kernel_device, qkv_TC[None], 2, own)[0])


@settings(deadline=None, max_examples=5)
@given(
    lengths=st.lists(st.integers(0, 140), min_size=1, max_size=4).filter(any),
    H=st.integers(1, 2),
    K=st.sampled_from((32, 64, 80)),
)
def test_any_packing(kernel_device, lengths, H, K):
    rope = rope_tables(max(lengths), K // 4, 10_000.0)
    many = projection(MORE, max(lengths), H, K, torch.float16)
    sequences = [many[b, :length] for b, length in enumerate(lengths)]
    expected = reference.attention(many.double(), H, rope)
    torch_error = (reference.attention(many, H, rope) - expected).abs().max()
    for b, got_TD in enumerate(packed(kernel_device, sequences, H, rope)):
        error = (got_TD - expected[b, : len(got_TD)]).abs()
        assert (error <= 2 * torch_error + 1e-6).all()


@QUIET
@pytest.mark.usefixtures("each_chip")
@pytest.mark.parametrize("value", [NAN, math.inf])
def test_packed_neighbours_that_are_not_finite_spoil_nothing(kernel_device, value):
    rope = rope_tables(40, 20, 10_000.0)
    sequences = [projection(1, T, 2, 80, torch.float16, seed=T)[0] for T in (20, 40, 30)]
    clean = packed(kernel_device, sequences, 2, rope)[1]
    sequences[0].fill_(value)
    sequences[2].fill_(value)
    before, got, behind = packed(kernel_device, sequences, 2, rope)
    assert torch.equal(got, clean)
    assert before.isnan().all()
    assert behind.isnan().all()


@QUIET
@pytest.mark.usefixtures("each_chip")
@pytest.mark.parametrize("value", [NAN, math.inf])
def test_a_sequence_that_is_not_finite_says_so_and_spoils_no_other(kernel_device, value):
    rope = rope_tables(150, 8, 10_000.0)
    qkv_BTC = projection(3, 150, 1, 32, torch.float16)
    before = attended(kernel_device, qkv_BTC, 1, rope)
    qkv_BTC[1, 134] = value
    got = attended(kernel_device, qkv_BTC, 1, rope)
    assert torch.equal(got[[0, 2]], before[[0, 2]])
    assert torch.equal(got[1, :128], before[1, :128])
    assert got[1, 134:].isnan().all()


def test_company_changes_no_bit(kernel_device):
    rope = rope_tables(140, 20, 10_000.0)
    qkv_BTC = projection(2, 140, 2, 80, torch.float16)
    together = attended(kernel_device, qkv_BTC, 2, rope)
    assert torch.equal(attended(kernel_device, qkv_BTC[1:], 2, rope)[0], together[1])
    one_head = attended(kernel_device, qkv_BTC[:1, :, 240:].contiguous(), 1, rope)
    assert torch.equal(one_head[0], together[0, :, 80:])


@pytest.mark.parametrize("heads_nearby", [1, 2, 3])
def test_the_order_of_programs_changes_no_bit(kernel_device, monkeypatch, heads_nearby):
    """Two groups of the three heads, or one, or each its own."""
    rope = rope_tables(140, 8, 10_000.0)
    qkv_BTC = projection(1, 140, 3, 32, torch.float16)
    expected = attended(kernel_device, qkv_BTC, 3, rope)
    monkeypatch.setattr(attention, "NEAR_BYTES", heads_nearby * 140 * 2 * 32 * 2)
    assert torch.equal(attended(kernel_device, qkv_BTC, 3, rope), expected)


def test_nothing_is_asked_of_no_tokens(kernel_device):
    rope = rope_tables(4, 8, 10_000.0)
    for B, T in ((0, 4), (2, 0)):
        assert attended(kernel_device, projection(B, T, 1, 32), 1, rope).shape == (B, T, 32)


def test_every_chip_has_every_head_width_and_tiles_that_fit_together():
    for configs in CONFIGS.values():
        assert configs.keys() == HEAD_DIMS
        for tiles in configs.values():
            assert tiles.M % tiles.S == 0


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("heads of width 32, 64", {"heads": 3}),
        ("tables are", {"rope": rope_tables(7, 8, 1e4)}),
        ("out", {"out": torch.zeros(2, 7, 64)}),
        ("ends", {"end_BT": torch.ones(2, 7)}),
        ("do not fit a cache", {"cache": torch.zeros(2, 2, 2, 7, 32)}),
        ("do not fit a cache", {"cache": torch.zeros(2, 3, 2, 8, 32)}),
        ("a cache is", {"cache": torch.zeros(2, 2, 1, 8, 32)}),
    ],
)
def test_what_does_not_fit_is_refused(match, change):
    given = {"qkv": torch.zeros(2, 8, 192), "heads": 2, "rope": rope_tables(8, 8, 1e4)}
    given["out"] = torch.zeros(2, 8, 64)
    given |= change
    qkv, heads, rope, out = (given.pop(name) for name in ("qkv", "heads", "rope", "out"))
    with pytest.raises(ArgumentError, match=match):
        rotary_attention(qkv, heads, rope, out, **given)


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("starts", {"starts": torch.tensor([0, 8])}),
        ("starts", {"starts": torch.zeros(2, 1).int()}),
        ("rows", {"out": torch.zeros(9, 64)}),
        ("tables are", {"longest": 9}),
        ("tables are", {"rope": Rope(torch.zeros(1, 8, 4), torch.zeros(1, 8, 4))}),
    ],
)
def test_a_packing_that_does_not_fit_is_refused(match, change):
    given = {"rope": rope_tables(8, 8, 1e4), "starts": torch.tensor([0, 8]).int(), "longest": 8}
    given["out"] = torch.zeros(8, 64)
    given |= change
    with pytest.raises(ArgumentError, match=match):
        rotary_attention_packed(
            torch.zeros(8, 192), 2, given["rope"], given["starts"], given["longest"], given["out"]
        )
