"""Rotary attention beside torch's: each backend of its SDPA, named, behind a rotation of its own.

B sequences, T tokens, H heads, K head width, R rotated dimensions, C = 3HK, D = HK, P positions.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from roofline import Work
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from on_gpu.bench import Bench, name_of
from pythia_fast.kernels.gpu.attention import rotary_attention
from pythia_fast.kernels.gpu.decode import decode_attention
from pythia_fast.kernels.reference import attention as reference
from pythia_fast.kernels.rotary import Rope, rope_tables

BASE = 10_000.0
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
TARGETS = {64: 1.1, 80: 1.1, 128: 1.0, 256: 1.3}
"""Against the best of them, by head width."""
CHECKED_HEADS = 2
"""So many heads of the first sequence are compared with float64, which has all scores in memory."""


@dataclass(frozen=True, slots=True)
class Form:
    """Heads of one model, as many sequences as fill a chip."""

    head_dim: int
    heads: int
    sequences: int
    tokens: int

    def __str__(self) -> str:
        return f"B = {self.sequences}, H = {self.heads}, T = {self.tokens}, K = {self.head_dim}"

    @property
    def flops(self) -> float:
        """Of q kᵀ and p v, over half the positions; the rotation is not counted."""
        pairs = self.tokens * (self.tokens + 1) / 2
        return 4.0 * self.sequences * self.heads * pairs * self.head_dim


FORMS = (
    Form(64, 16, 16, 2048),
    Form(80, 32, 8, 2048),
    Form(128, 32, 8, 2048),
    Form(256, 8, 16, 2048),
    Form(32, 8, 32, 2048),
)
TINY = (Form(32, 2, 1, 17), Form(80, 2, 1, 17))

Rotate = Callable[[torch.Tensor, Rope], torch.Tensor]


def run(bench: Bench) -> None:
    """Prefill in every head width, then a step of decoding."""
    rotate = rotated if bench.rehearsal else torch.compile(rotated, dynamic=False)
    cases = [(form, kind) for kind in bench.halves for form in (TINY if bench.rehearsal else FORMS)]
    for form, kind in bench.within_time(cases):
        case = f"{form}, {name_of(kind)}"
        with bench.attempt(case), torch.inference_mode():
            prefill(bench, case, form, kind, rotate)
    for form in bench.within_time(TINY if bench.rehearsal else FORMS):
        with bench.attempt(f"decode {form}"), torch.inference_mode():
            decode(bench, f"decode, {form}, float16", form)


def prefill(bench: Bench, case: str, form: Form, kind: torch.dtype, rotate: Rotate) -> None:
    """From the projection to what the output product reads."""
    B, H, T, K = form.sequences, form.heads, form.tokens, form.head_dim
    qkv_BTC = bench.random(B, T, 3 * H * K, dtype=kind)
    rope = rope_tables(T, K // 8 * 2, BASE, bench.device)
    out_BTD = bench.poisoned(B, T, H * K, dtype=kind)
    kept_BTC = qkv_BTC.clone()

    def ours() -> torch.Tensor:
        rotary_attention(qkv_BTC, H, rope, out_BTD)
        return out_BTD

    def peer(attend: Callable[..., torch.Tensor]) -> torch.Tensor:
        q_BTHK, k_BTHK, v_BTHK = kept_BTC.view(B, T, H, 3, K).unbind(3)
        return attend(rotate(q_BTHK, rope), rotate(k_BTHK, rope), v_BTHK)

    peers = {
        f"rotary, {name}": lambda attend=attend: peer(attend)
        for name, attend in attentions(bench).items()
    }
    qkv_TC = kept_BTC[0].view(T, H, 3 * K)[:, :CHECKED_HEADS].flatten(1)
    exact = reference(qkv_TC[None].double(), CHECKED_HEADS, rope).view(T, CHECKED_HEADS, K)
    errors = bench.answers(
        ours, peers, exact, lambda x: x.reshape(B, T, H, K)[0, :, :CHECKED_HEADS]
    )
    bench.race(
        case,
        ours,
        peers,
        work=Work(form.flops, 4 * out_BTD.nbytes, name_of(kind)),
        best_target=TARGETS.get(K),
        numbers=errors,
    )


def decode(bench: Bench, case: str, form: Form) -> None:
    """One token of each sequence against P - 1 before it: bound by the reading of the cache."""
    H, P, K = form.heads, form.tokens, form.head_dim
    B = 2 if bench.rehearsal else 32
    rope = rope_tables(P, K // 8 * 2, BASE, bench.device)
    qkv_BC = bench.random(B, 3 * H * K)
    cache = bench.random(2, B, H, P, K)
    slot_B = torch.arange(B, dtype=torch.int32, device=bench.device)
    position = torch.tensor([P - 1], dtype=torch.int32, device=bench.device)
    out_BD = bench.poisoned(B, H * K)
    theirs, kept_BC = cache.clone(), qkv_BC.clone()
    last = rope.at(P - 1, 1)

    def ours() -> torch.Tensor:
        decode_attention(qkv_BC, H, rope, cache, slot_B, position, out_BD)
        return out_BD

    def peer(attend: Callable[..., torch.Tensor]) -> torch.Tensor:
        q_B1HK, k_B1HK, v_B1HK = kept_BC.view(B, 1, H, 3, K).unbind(3)
        theirs[0, :, :, P - 1] = rotated(k_B1HK, last)[:, 0]
        theirs[1, :, :, P - 1] = v_B1HK[:, 0]
        q_B1HK = rotated(q_B1HK, last)
        return attend(q_B1HK, theirs[0].transpose(1, 2), theirs[1].transpose(1, 2))

    peers = {
        f"rotary, {name}": lambda attend=attend: peer(attend)
        for name, attend in attentions(bench, causal=False).items()
    }
    theirs[0, :, :, P - 1] = rotated(kept_BC.view(B, 1, H, 3, K)[:, :, :, 1], last)[:, 0]
    theirs[1, :, :, P - 1] = kept_BC.view(B, H, 3, K)[:, :, 2]
    q_B1HK = rotated(kept_BC.double().view(B, 1, H, 3, K)[:, :, :, 0], last)
    scores_BHP = torch.einsum("bohk,bhpk->bhp", q_B1HK, theirs[0].double()) / math.sqrt(K)
    exact = torch.einsum("bhp,bhpk->bhk", scores_BHP.softmax(-1), theirs[1].double()).flatten(1)
    errors = bench.answers(ours, peers, exact, lambda x: x.reshape(B, H * K))
    bench.race(
        case,
        ours,
        peers,
        work=Work(0.0, cache.nbytes, "float16"),
        numbers=errors,
    )


def rotated(x_BTHK: torch.Tensor, rope: Rope) -> torch.Tensor:
    """The rotation as a kernel of its own: read once, written once, in the order of the input."""
    half = rope.cos_TP.shape[-1]
    cos_T1P, sin_T1P = rope.cos_TP[:, None], rope.sin_TP[:, None]
    wide = torch.promote_types(x_BTHK.dtype, torch.float32)
    first, second = x_BTHK[..., : 2 * half].to(wide).chunk(2, dim=-1)
    turned = (first * cos_T1P - second * sin_T1P, second * cos_T1P + first * sin_T1P)
    return torch.cat((*(x.to(x_BTHK.dtype) for x in turned), x_BTHK[..., 2 * half :]), dim=-1)


def attentions(bench: Bench, *, causal: bool = True) -> dict[str, Callable[..., torch.Tensor]]:
    """Ways to attend, from q, k and v [B, T, H, K] to [B, T, H, K], by name."""
    backends = {"math": SDPBackend.MATH} if bench.rehearsal else BACKENDS

    def by_torch(
        backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        with sdpa_kernel(backend):
            out = scaled_dot_product_attention(
                *(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal
            )
        return out.transpose(1, 2)

    ways: dict[str, Callable[..., torch.Tensor]] = {
        name: lambda q, k, v, backend=backend: by_torch(backend, q, k, v)
        for name, backend in backends.items()
    }
    return ways | dict(flash_attn(causal))


def flash_attn(causal: bool) -> Iterator[tuple[str, Callable[..., torch.Tensor]]]:
    """The package of that name, versions 2 and 3, where they are installed."""
    for name, module in (("flash-attn", "flash_attn"), ("flash-attn 3", "flash_attn_interface")):
        try:
            function = importlib.import_module(module).flash_attn_func
        except ImportError:
            continue

        def attend(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, function: object = function
        ) -> torch.Tensor:
            found = function(q, k, v, causal=causal)  # type: ignore[operator]
            return found[0] if isinstance(found, tuple) else found

        yield name, attend
