"""Packed weights give the bits that weights give as they lie."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.cpu import CpuKernels
from pythia_fast.kernels.panels import LANES, PanelRope
from pythia_fast.kernels.rotary import rope_tables

SIZES = st.sampled_from((1, 2, 31, 32, 33, 64, 100, 300, 600, 1056))
EVEN = st.sampled_from((2, 30, 32, 34, 64, 66, 290))


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(deadline=None, max_examples=20)
@given(N=st.integers(1, 130), rows=EVEN, K=SIZES)
def test_every_product_is_the_same(native, stored, N, rows, K):
    """Long K are cut."""
    check_products(native, stored, N, rows, K)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("N", "rows"), [(1100, 34), (40, 4100)])
def test_so_it_is_for_many_tokens_and_many_rows(native, N, rows):
    """Tokens come in groups of another size, and a vocabulary in parts."""
    torch.set_num_threads(1)
    check_products(native, torch.float32, N, rows, 64)


def check_products(native, stored, N, rows, K):
    kernels, x = native.kernels, native.operand(random(N, K, seed=N))
    w, bias, y_N = random(rows, K, seed=K, dtype=stored), random(rows), torch.arange(N) % rows
    packed = kernels.pack(w)
    assert (packed.rows, packed.columns) == (rows, K)
    found = []
    for matrix in (w, packed):
        mlp, x_PDL = kernels.operand(rows, x.panels), torch.ones(x.panels, rows, LANES)
        kernels.mlp(x, matrix, bias, "none", mlp, 0)
        kernels.residual_(x_PDL, x, matrix, bias)
        scores = kernels.scores(x, matrix, y_N)
        found.append(
            (
                native.rows(mlp),
                x_PDL,
                kernels.project(x, matrix, bias),
                kernels.nll(x, matrix, y_N),
                scores.argmax,
                scores.margin,
            )
        )
    for as_it_lies, as_packed in zip(*found, strict=True):
        assert torch.equal(as_it_lies, as_packed)


@pytest.mark.parametrize(
    ("heads", "width", "turning"), [(2, 32, 8), (1, 80, 20), (3, 8, 8), (1, 256, 64)]
)
@pytest.mark.parametrize("D", [96, 600])
def test_heads_and_attention_are_the_same(native, stored, heads, width, turning, D):
    x_BTD, b_C = random(2, 40, D), random(3 * heads * width)
    w_CD = random(3 * heads * width, D, seed=1, dtype=stored) / 10
    rope = rope_tables(64, turning, 10_000.0)
    packed = native.kernels.pack(w_CD, head_dim=width, rotary_dims=PanelRope(rope).rotary_dims)
    expected = native.attention(x_BTD, w_CD, b_C, heads, rope)
    assert torch.equal(native.attention(x_BTD, packed, b_C, heads, rope), expected)


@pytest.mark.usefixtures("threads")
def test_packed_anew_nothing_of_the_last_matrix_is_left(native):
    x, y_N = native.operand(random(40, 70)), torch.zeros(40, dtype=torch.int64)
    packed = native.kernels.pack(torch.full((50, 70), torch.nan))
    assert native.kernels.nll(x, packed, y_N).isnan().all()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        w = random(50, 70, seed=threads)
        assert native.kernels.pack(w, into=packed) is packed
        assert torch.equal(native.kernels.nll(x, packed, y_N), native.kernels.nll(x, w, y_N))


def test_what_does_not_fit_is_refused(native):
    kernels = native.kernels
    w_CD = random(96, 64)
    x, packed = native.operand(random(32, 64)), kernels.pack(w_CD)
    for matrix, order in (
        (random(96, 32), {}),
        (random(64, 64), {}),
        (w_CD, {"head_dim": 32, "rotary_dims": 8}),
    ):
        with pytest.raises(ArgumentError, match="into"):
            kernels.pack(matrix, into=packed, **order)
    with pytest.raises(ArgumentError, match="a PackedWeight"):
        kernels.pack(w_CD, into=w_CD)
    for order in ({"head_dim": 31}, {"head_dim": 20}, {"head_dim": 32, "rotary_dims": 7}):
        with pytest.raises(ArgumentError, match="heads"):
            kernels.pack(w_CD, **order)
    for_heads = kernels.pack(w_CD, head_dim=32, rotary_dims=8)
    with pytest.raises(ArgumentError, match="order"):
        kernels.project(x, for_heads)
    others = CpuKernels("float32", instructions="portable")
    if native.instructions != "portable":
        with pytest.raises(ArgumentError, match="these kernels"):
            others.project(others.operand(64, 2), packed)
