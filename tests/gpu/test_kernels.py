"""Kernels in the shapes of the suite: an error of twice torch's own at most, against float64.

Scratch and results are full of NaN before. B sequences, T tokens, H heads, K head width, C = 3HK.
"""

import functools

import pytest
import torch
from torch.nn.functional import cross_entropy, gelu, layer_norm

from pythia_fast.kernels import attention as by_torch
from pythia_fast.kernels import reference
from pythia_fast.kernels.gpu.attention import rotary_attention, rotary_attention_packed
from pythia_fast.kernels.gpu.cross_entropy import linear_nll, linear_scores
from pythia_fast.kernels.gpu.decode import decode_attention
from pythia_fast.kernels.gpu.linear import linear
from pythia_fast.kernels.gpu.norm import dual_layer_norm
from pythia_fast.kernels.rotary import Rope, rope_tables

pytestmark = pytest.mark.usefixtures("poisoned")

HALVES = pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
HEADS = pytest.mark.parametrize(("K", "H"), [(32, 8), (64, 12), (80, 32), (128, 16), (256, 8)])
WIDTHS = pytest.mark.parametrize("width", [128, 512, 768, 1024, 2048, 2560, 4096, 5120])
V = 50_304


def normal(*shape: int, kind: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device="cuda").mul_(scale).to(kind)


def check(found: torch.Tensor, torchs: torch.Tensor, exact: torch.Tensor) -> None:
    error, torch_error = (float((x.double() - exact).abs().max()) for x in (found, torchs))
    assert error <= 2 * torch_error + 1e-6


def rope_of(K: int, T: int) -> Rope:
    return rope_tables(T, K // 8 * 2, 10_000.0, "cuda")


@HALVES
@HEADS
@pytest.mark.parametrize("T", [2048, 2047, 129, 1])
def test_attention(kind, K, H, T):
    qkv_BTC, rope = normal(2, T, 3 * H * K, kind=kind), rope_of(K, T)
    exact = torch.cat([reference.attention(row[None].double(), H, rope) for row in qkv_BTC])
    torchs = by_torch.attention(qkv_BTC.clone(), H, rope)
    out_BTD, cache = torch.empty_like(torchs), torch.empty(2, 2, H, T, K, dtype=kind, device="cuda")
    rotary_attention(qkv_BTC, H, rope, out_BTD, cache=cache)
    check(out_BTD, torchs, exact)
    assert not cache.isnan().any()


@HALVES
def test_scores_beyond_float16_do_not_overflow(kind):
    qkv_BTC, rope = normal(1, 300, 3 * 4 * 32, kind=kind, scale=200.0), rope_of(32, 300)
    exact = reference.attention(qkv_BTC.double(), 4, rope)
    torchs, out_BTD = (
        by_torch.attention(qkv_BTC.clone(), 4, rope),
        torch.empty(1, 300, 128, dtype=kind, device="cuda"),
    )
    rotary_attention(qkv_BTC, 4, rope, out_BTD)
    check(out_BTD, torchs, exact)


@HALVES
@HEADS
def test_packed_sequences_have_the_bits_of_their_own_rows(kind, K, H):
    lengths = (2048, 1, 700, 65)
    rope = rope_of(K, max(lengths))
    qkv_NC = normal(sum(lengths), 3 * H * K, kind=kind)
    alone = []
    for part_TC in qkv_NC.split(lengths):
        out_BTD = torch.empty(1, len(part_TC), H * K, dtype=kind, device="cuda")
        own = rope.at(0, len(part_TC))
        rotary_attention(part_TC[None].clone(), H, own, out_BTD)
        alone.append(out_BTD[0])
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device="cuda")
    out_ND = torch.empty(sum(lengths), H * K, dtype=kind, device="cuda")
    rotary_attention_packed(qkv_NC, H, rope, starts, max(lengths), out_ND)
    assert torch.equal(out_ND, torch.cat(alone))


@HALVES
@HEADS
@pytest.mark.parametrize("T", [2048, 257, 2])
def test_decoding(kind, K, H, T):
    B, rope = 5, rope_of(K, T)
    qkv_BTC = normal(B, T, 3 * H * K, kind=kind)
    exact = torch.cat([reference.attention(row[None].double(), H, rope)[:, -1] for row in qkv_BTC])
    torchs = by_torch.attention(qkv_BTC.clone(), H, rope)[:, -1]
    cache = torch.empty(2, B, H, T, K, dtype=kind, device="cuda")
    last_BC, unread = (
        qkv_BTC[:, -1].clone(),
        torch.empty(B, T - 1, H * K, dtype=kind, device="cuda"),
    )
    rotary_attention(qkv_BTC[:, :-1].contiguous(), H, rope.at(0, T - 1), unread, cache=cache)
    out_BD = torch.empty(B, H * K, dtype=kind, device="cuda")
    slots = torch.arange(B, dtype=torch.int32, device="cuda")
    position = torch.tensor([T - 1], dtype=torch.int32, device="cuda")
    decode_attention(last_BC, H, rope, cache, slots, position, out_BD)
    check(out_BD, torchs, exact)


@HALVES
@WIDTHS
def test_norms(kind, width):
    x_ND, pairs = normal(2049, width, kind=kind), [normal(2, width, kind=kind) for _ in range(2)]
    outs = [torch.empty_like(x_ND) for _ in range(2)]
    dual_layer_norm(x_ND, *((pair[0], pair[1]) for pair in pairs), 1e-5, *outs)
    for out_ND, pair in zip(outs, pairs, strict=True):
        exact = reference.layer_norm(x_ND.double(), *(w.double() for w in pair), 1e-5)
        check(out_ND, layer_norm(x_ND, (width,), pair[0], pair[1], 1e-5), exact)


@HALVES
@WIDTHS
@pytest.mark.parametrize("rows", [4096, 4095, 64, 1])
def test_products_of_a_block(kind, width, rows):
    """Qkv, the MLP's first product with GELU, and the output product with the residual in place."""
    x_ND = normal(rows, width, kind=kind)
    products = {
        "none": (x_ND, normal(4 * width, width, kind=kind, scale=width**-0.5)),
        None: (x_ND, normal(3 * width, width, kind=kind, scale=width**-0.5)),
        "residual": (
            normal(rows, 5 * width, kind=kind),
            normal(width, 5 * width, kind=kind, scale=(5 * width) ** -0.5),
        ),
    }
    for epilogue, (a_NI, w_OI) in products.items():
        b_O = normal(len(w_OI), kind=kind, scale=0.1)
        exact = a_NI.double() @ w_OI.double().T + b_O.double()
        torchs = torch.nn.functional.linear(a_NI, w_OI, b_O)
        out_NO = torch.empty(rows, len(w_OI), dtype=kind, device="cuda")
        if epilogue == "none":
            exact, torchs = reference.gelu(exact), gelu(torchs)
            linear(a_NI, w_OI, b_O, out_NO, gelu="none")
        elif epilogue is None:
            linear(a_NI, w_OI, b_O, out_NO)
        else:
            exact, torchs = exact + x_ND.double(), torchs + x_ND
            out_NO.copy_(x_ND)
            linear(a_NI, w_OI, b_O, out_NO, residual_NO=out_NO)
        check(out_NO, torchs, exact)


@HALVES
@pytest.mark.parametrize("width", [128, 1024, 5120])
def test_a_row_has_the_same_bits_in_any_batch(kind, width):
    a_NI, w_OI = normal(4096, width, kind=kind), normal(3 * width, width, kind=kind)
    b_O, y_N = normal(3 * width, kind=kind), torch.arange(4096, device="cuda") % (3 * width)
    whole, rows = torch.empty(4096, 3 * width, dtype=kind, device="cuda"), (0, 1, 63, 64, 100, 4095)
    multiply = functools.partial(linear, deterministic=True)
    multiply(a_NI, w_OI, b_O, whole)
    nll_N = linear_nll(a_NI, w_OI, y_N)
    for row in rows:
        for batch in (1, 64, 65, 1000):
            first = min(row, 4096 - batch)
            part = torch.empty(batch, 3 * width, dtype=kind, device="cuda")
            multiply(a_NI[first : first + batch], w_OI, b_O, part)
            assert torch.equal(part[row - first], whole[row]), (row, batch)
            some = linear_nll(a_NI[first : first + batch], w_OI, y_N[first : first + batch])
            assert some[row - first] == nll_N[row], (row, batch)


@HALVES
@pytest.mark.parametrize("width", [128, 512, 1024, 2048, 5120])
@pytest.mark.parametrize("rows", [3000, 17])
def test_cross_entropy(kind, width, rows):
    h_ND, w_VD = normal(rows, width, kind=kind), normal(V, width, kind=kind, scale=width**-0.5)
    y_N = torch.randint(V, (rows,), generator=torch.Generator("cuda").manual_seed(0), device="cuda")
    exact = [
        reference.linear_scores(h, w_VD.double(), y)
        for h, y in zip(h_ND.double().split(500), y_N.split(500), strict=True)
    ]
    logits_NV = (h_ND @ w_VD.T).float()
    torchs = cross_entropy(logits_NV, y_N, reduction="none")
    found = linear_scores(h_ND, w_VD, y_N)
    check(found.nll, torchs, torch.cat([part.nll for part in exact]))
    check(found.logsumexp, logits_NV.logsumexp(-1), torch.cat([part.logsumexp for part in exact]))
    margin_N = torch.cat([part.margin for part in exact])
    best_N2 = logits_NV.topk(2).values
    check(found.margin, best_N2[:, 0] - best_N2[:, 1], margin_N)
    error = float((found.margin.double() - margin_N).abs().max())
    clear_N = margin_N > 2 * error
    argmax_N = torch.cat([part.argmax for part in exact])
    assert clear_N.float().mean() > 0.9
    assert torch.equal(found.argmax[clear_N], argmax_N[clear_N])
    assert torch.equal(linear_nll(h_ND, w_VD, y_N), found.nll)
