"""Every Triton kernel once in small and odd shapes: what NVIDIA's compute-sanitizer looks on at.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer python tests/gpu/small_cases.py

Without torch's cache each tensor is an allocation of its own, and a byte beyond it an error.
Without a GPU triton interprets them, on the CPU. Each result is compared, roughly, with the
definition.
"""

import os
from collections.abc import Callable, Iterator

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is defined

from pythia_fast.kernels import reference
from pythia_fast.kernels.gpu.attention import rotary_attention, rotary_attention_packed
from pythia_fast.kernels.gpu.cross_entropy import linear_nll, linear_scores
from pythia_fast.kernels.gpu.decode import decode_attention
from pythia_fast.kernels.gpu.linear import linear, linear_by_cublas
from pythia_fast.kernels.gpu.norm import dual_layer_norm, layer_norm
from pythia_fast.kernels.rotary import rope_tables

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KINDS = (torch.float16, torch.bfloat16) if DEVICE.type == "cuda" else (torch.float16,)
HEAD_DIMS = (32, 64, 80, 128, 256)
ROUGHLY = 2e-2

Case = Callable[[torch.dtype], tuple[torch.Tensor, torch.Tensor]]
"""(found, exact)."""


def attention(K: int, T: int) -> Case:
    """T tokens of two heads, filling a cache."""

    def run(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        qkv_BTC, rope = _random(2, T, 6 * K, kind=kind), rope_tables(T, K // 8 * 2, 1e4, DEVICE)
        exact = reference.attention(qkv_BTC.double(), 2, rope)
        out_BTD = _poisoned(2, T, 2 * K, kind=kind)
        cache = _poisoned(2, 2, 2, T + 1, K, kind=kind)
        rotary_attention(qkv_BTC, 2, rope, out_BTD, cache=cache)
        return out_BTD, exact

    return run


def packed(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of 1, 7 and 70 tokens, one behind another."""
    lengths, K = (1, 7, 70), 64
    rope = rope_tables(max(lengths), 16, 1e4, DEVICE)
    qkv_NC = _random(sum(lengths), 6 * K, kind=kind)
    exact = torch.cat(
        [reference.attention(part[None].double(), 2, rope.at(0, len(part)))[0]
         for part in qkv_NC.split(lengths)]
    )  # fmt: skip
    starts = torch.tensor([0, 1, 8, 78], dtype=torch.int32, device=DEVICE)
    out_ND = _poisoned(sum(lengths), 2 * K, kind=kind)
    rotary_attention_packed(qkv_NC, 2, rope, starts, max(lengths), out_ND)
    return out_ND, exact


def decode(K: int) -> Case:
    """The 38th token of three sequences, whose rows of the cache are in another order."""

    def run(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        B, T = 3, 38
        qkv_BTC, rope = _random(B, T, 6 * K, kind=kind), rope_tables(T, K // 8 * 2, 1e4, DEVICE)
        exact = reference.attention(qkv_BTC.double(), 2, rope)[:, -1]
        cache, out_BTD = _poisoned(2, B, 2, T, K, kind=kind), _poisoned(B, T, 2 * K, kind=kind)
        last_BC = qkv_BTC[:, -1].clone()
        rotary_attention(qkv_BTC[:, :-1].contiguous(), 2, rope, out_BTD[:, :-1], cache=cache)
        cache = cache[:, [2, 0, 1]].contiguous()
        slots = torch.tensor([1, 2, 0], dtype=torch.int32, device=DEVICE)
        position = torch.tensor([T - 1], dtype=torch.int32, device=DEVICE)
        decode_attention(last_BC, 2, rope, cache, slots, position, out_BTD[:, -1])
        return out_BTD[:, -1], exact

    return run


def norms(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of 200, with two norms and with one."""
    x_ND, pairs = _random(5, 200, kind=kind), [_random(2, 200, kind=kind) for _ in range(2)]
    outs = [_poisoned(5, 200, kind=kind) for _ in range(3)]
    first, second = ((pair[0], pair[1]) for pair in pairs)
    dual_layer_norm(x_ND, first, second, 1e-5, outs[0], outs[1])
    layer_norm(x_ND, first, 1e-5, outs[2])
    exact = [
        reference.layer_norm(x_ND.double(), *(w.double() for w in pair), 1e-5)
        for pair in (first, second, first)
    ]
    return torch.cat(outs), torch.cat(exact)


def product(rows: int, how: Callable[..., None], gelu: str | None, *, residual: bool) -> Case:
    """88 inputs, 136 outputs, into the columns of a wider buffer."""

    def run(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        a, w, b = (_random(*shape, kind=kind) for shape in ((rows, 88), (136, 88), (136,)))
        exact = a.double() @ w.double().T + b.double()
        rest: dict[str, object] = {}
        if gelu is not None:
            exact = (reference.gelu if gelu == "none" else reference.gelu_tanh)(exact)
            rest["gelu"] = gelu
        if residual:
            rest["residual_NO"] = _random(rows, 136, kind=kind)
            exact = exact + rest["residual_NO"].double()  # type: ignore[attr-defined]
        buffer = _poisoned(rows, 152, kind=kind)
        how(a, w, b, buffer[:, 16:], **rest)
        assert buffer[:, :16].isnan().all(), "columns of others were written"
        return buffer[:, 16:], exact

    return run


def cross_entropy(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """67 rows of 48, 515 of vocabulary."""
    h_ND, w_VD = _random(67, 48, kind=kind), _random(515, 48, kind=kind)
    y_N = torch.randint(515, (67,), generator=GENERATOR, device=DEVICE)
    exact = reference.linear_scores(h_ND.double(), w_VD.double(), y_N)
    found = linear_scores(h_ND, w_VD, y_N)
    assert torch.equal(found.nll, linear_nll(h_ND, w_VD, y_N))
    return torch.stack((found.nll, found.logsumexp)), torch.stack((exact.nll, exact.logsumexp))


GENERATOR = torch.Generator(DEVICE).manual_seed(0)

CASES: dict[str, Case] = {
    **{f"attention, K = {K}, T = {T}": attention(K, T) for K in HEAD_DIMS for T in (1, 35)},
    "attention, K = 64, T = 261": attention(64, 261),
    "packed attention": packed,
    **{f"decoding, K = {K}": decode(K) for K in HEAD_DIMS},
    "norms": norms,
    **{
        f"{how.__name__}, {rows} rows, gelu {gelu}, residual {residual}": product(
            rows, how, gelu, residual=residual
        )
        for how in (linear, linear_by_cublas)
        for rows in (3, 70)
        for gelu, residual in ((None, False), ("none", False), ("tanh", False), (None, True))
    },
    "cross-entropy": cross_entropy,
}


def results() -> Iterator[tuple[str, float]]:
    """The distance of each case from its definition, relative; NaN if a place was not written."""
    for name, case in CASES.items():
        for kind in KINDS:
            found, exact = case(kind)
            yield f"{name}, {kind}", float((found.double() - exact).norm() / exact.norm())


def _random(*shape: int, kind: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, device=DEVICE).to(kind)


def _poisoned(*shape: int, kind: torch.dtype) -> torch.Tensor:
    return torch.full(shape, torch.nan, dtype=kind, device=DEVICE)


if __name__ == "__main__":
    wrong = []
    for name, distance in results():
        print(f"{distance:.1e}  {name}", flush=True)
        if not distance < ROUGHLY:
            wrong.append(name)
    if wrong:
        raise SystemExit(f"wrong: {'; '.join(wrong)}")
