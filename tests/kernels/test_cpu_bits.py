"""Bits: a token's results depend neither on threads, nor on the batch, nor on what comes later."""

import pytest
import torch

from pythia_fast.core import instruction_sets
from pythia_fast.kernels.cpu import CpuKernels
from pythia_fast.kernels.panels import Heads, PanelRope, panelled
from pythia_fast.kernels.rotary import rope_tables

D, F, V, H = 72, 200, 4500, 3
ROPE = rope_tables(300, 6, 10_000.0)
NORMS = [(torch.rand(D) + 0.5, torch.randn(D)) for _ in range(2)]


def weights(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) / columns**0.5


QKV, IN, OUT, UNEMBED = (
    weights(*shape, seed) for seed, shape in enumerate(((3 * D, D), (F, D), (D, F), (V, D)))
)


def everything(native, x_BTD):
    """Each kernel's results, token by token: [B, T, …] each."""
    B, T, _ = x_BTD.shape
    x_PDL, flat = panelled(x_BTD.flatten(0, 1)), slice(B * T)
    normed = native.norm(x_PDL, NORMS, 1e-5)
    branch = native.kernels.operand(F, len(x_PDL))
    native.kernels.mlp(normed[0], IN, torch.ones(F), "none", branch, 0)
    native.kernels.residual_(x_PDL, branch, OUT, torch.ones(D))
    y_N = torch.arange(B * T) % T
    scores = native.kernels.scores(normed[1], UNEMBED, y_N)
    found = {
        "norm": native.rows(normed[0])[flat],
        "mlp": native.rows(branch)[flat],
        "residual": native.kernels.unpack(x_PDL)[flat],
        "nll": native.kernels.nll(normed[1], UNEMBED, y_N),
        "argmax": scores.argmax,
        "margin": scores.margin,
        "logsumexp": scores.logsumexp,
        "attention": native.attention(x_BTD, QKV, torch.ones(3 * D), H, ROPE).flatten(0, 1),
    }
    assert found["nll"].equal(scores.nll)
    return {name: value.unflatten(0, (B, T)) for name, value in found.items()}


def states(B, T, seed=5):
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 40), (1, 270), (9, 130)])
def test_any_number_of_threads_gives_the_same_bits(native, threads, B, T):
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(everything(native, states(B, T)))
    for name, value in found[0].items():
        assert value.equal(found[1][name]), name
        assert value.equal(found[2][name]), name


@pytest.mark.parametrize("T", [1, 17, 33, 270])
def test_a_sequence_alone_and_anywhere_in_a_batch_has_the_same_bits(native, T):
    x_BTD = states(4, T)
    batch = everything(native, x_BTD)
    for order in ([2], [3, 2], [0, 2, 1, 3, 2]):
        part = everything(native, x_BTD[order])
        for name, value in part.items():
            assert value.equal(batch[name][order]), name


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 250, 257, 260, 271, 288, 299])
def test_what_comes_later_changes_no_bit(native, cut):
    """A flag of memorization must be the same whether 64 or 2048 tokens were looked at."""
    x_BTD = states(1, 300) * 3
    whole = native.attention(x_BTD, QKV, torch.ones(3 * D), H, ROPE)
    assert native.attention(x_BTD[:, :cut], QKV, torch.ones(3 * D), H, ROPE).equal(whole[:, :cut])


def test_tokens_that_fill_a_panel_up_reach_no_other(native):
    """Every product and norm; what fills up is NaN here, and the last panel is whole of it."""
    x_ND = states(1, 37)[0]
    filled_ND = torch.full((64, D), float("nan"))
    filled_ND[:37] = x_ND
    y_N = torch.arange(37)
    results = []
    for rows in (x_ND, filled_ND):
        h, x_PDL = native.operand(rows), panelled(rows)
        branch = native.kernels.operand(F, h.panels)
        native.kernels.mlp(h, IN, torch.ones(F), "tanh", branch, 0)
        native.kernels.residual_(x_PDL, branch, OUT, torch.ones(D))
        (normed,) = native.norm(x_PDL, NORMS[:1], 1e-5)
        scores = native.kernels.scores(normed, UNEMBED, y_N)
        results.append((native.rows(normed)[:37], scores.nll, scores.margin, scores.argmax))
    for mine, theirs in zip(*results, strict=True):
        assert mine.equal(theirs)
        assert mine.isfinite().all()


def test_attention_never_reads_the_panel_that_a_sequence_lacks(native):
    """Three panels take the room of four; of the fourth, only values need to be numbers."""
    x_ND = states(1, 48)[0]
    x, rope, bias = native.operand(x_ND), PanelRope(ROPE), torch.ones(3 * D)
    expected = native.attention(x_ND[None], QKV, bias, H, ROPE)[0]
    plain = native.kernels.room_for_heads(1, H, D // H, 3)
    poisoned = Heads(
        torch.full_like(plain.queries, float("nan")),
        torch.full_like(plain.keys, float("nan")),
        torch.full_like(plain.values, 1e30),
        plain.shape,
    )
    native.kernels.heads(x, QKV, bias, rope, poisoned)
    out = native.kernels.operand(D, x.panels)
    native.kernels.attention(poisoned, out)
    torch.testing.assert_close(native.rows(out)[:48, :D], expected, rtol=0, atol=1e-6)


def test_instruction_sets_agree_to_rounding():
    """They differ in the order of nothing, only in whether a product is rounded before its sum."""
    x_ND, y_N = states(1, 40)[0], torch.arange(40)
    found = []
    for isa in instruction_sets():
        kernels = CpuKernels("float32", instructions=isa)
        x_PDL = panelled(x_ND)
        h = kernels.operand(D, len(x_PDL))
        kernels.norm(x_PDL, NORMS[:1], 1e-5, [h])
        found.append(kernels.nll(h, UNEMBED, y_N))
    for nll_N in found[1:]:
        torch.testing.assert_close(nll_N, found[0], rtol=0, atol=1e-5)
