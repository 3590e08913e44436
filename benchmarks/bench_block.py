"""A block's operations, one by one and together, beside torch's: which won, where, by how much.

B sequences, T tokens, N = B·T, D width.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from comparison import Comparison, Effort, timed
from forms import multiplied_dtypes
from roofline import Work
from torch.nn.functional import linear

from pythia_fast.kernels.attention import attention
from pythia_fast.kernels.panels import panelled
from pythia_fast.model import Weights, neox, resolve_precision
from pythia_fast.model.native import Native
from pythia_fast.suite import spec

FORMS = {"quick": (1, ("70m",)), "standard": (2, ("70m",)), "full": (2, ("70m", "410m"))}
T, ROUNDS = 2048, 7


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each data type and size of the effort's form."""
    _, sizes = FORMS[metafunc.config.getoption("--effort")]
    cases = [(dtype, size) for dtype in multiplied_dtypes() for size in sizes]
    metafunc.parametrize(("dtype", "size"), cases)


@torch.inference_mode()
def test_block(
    benchmark: Any, comparison: Comparison, effort: Effort, dtype: str, size: str
) -> None:
    """Each stage of a block; torch computes in bfloat16 beside both types that use the tiles."""
    B, _ = FORMS[effort.name]
    block = Block(dtype, size, B)
    block.check()
    peer = f"torch, {block.peer_dtype}"
    for stage in block.stages():
        comparison.run(
            benchmark if stage.name == "a whole block" else Once(),
            f"{stage.name}, {size}, {B} x {T} tokens, {dtype}",
            stage.ours,
            {peer: stage.peer},
            work=Work(stage.flops, 0.0, dtype) if stage.flops else None,
            peer_work={peer: Work(stage.flops, 0.0, block.peer_dtype)},
            cache="activations and weights warm",
            rounds=ROUNDS,
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """One operation, ours and torch's, and the arithmetic of its products."""

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    flops: float


class Once:
    """Stands in for pytest-benchmark's fixture, which takes one function a test."""

    def __init__(self) -> None:
        self.stats = self
        self.extra_info: dict[str, object] = {}
        self.data: list[float] = []

    def pedantic(
        self, call: Callable[[], object], *, setup: Callable[[], None], rounds: int, **_: int
    ) -> None:
        """Time `call` after each `setup`."""
        for _round in range(rounds):
            setup()
            self.data.append(timed(call))


class Block:
    """One block with random weights, in both implementations."""

    def __init__(self, dtype: str, size: str, B: int) -> None:
        self.architecture = a = spec(size).architecture
        self.peer_dtype = "float32" if dtype == "float32" else "bfloat16"
        self.B = B
        self.shape = neox.Shape.of(a)
        precision = resolve_precision(dtype, torch.device("cpu"), a)
        exact = one_layer(size)
        resident = converted(exact, precision.dtype)
        self.peer_w = converted(exact, getattr(torch, self.peer_dtype)).layers[0]
        self.exact_w = exact.layers[0]
        self.native = Native(a, self.shape, precision.arithmetic)
        self.w = self.native.packed(resident).layers[0]
        self.x_BTD = torch.randn(B, T, a.width, generator=torch.Generator().manual_seed(0))
        self.room, self.attend = self.native._room(B, T)
        self.room.x_PDL.copy_(panelled(self.x_BTD.flatten(0, 1)))
        self.peer_x_BTD = self.x_BTD.to(getattr(torch, self.peer_dtype))

    def check(self) -> None:
        """The whole block errs no more than twice what torch's does."""
        exact_BTD = neox.block(self.x_BTD, self.exact_w, self.shape)
        peer_BTD = neox.block(self.peer_x_BTD, self.peer_w, self.shape)
        self.native.block(self.w, self.room, self.attend)
        ours_BTD = self.native._rows(self.room.x_PDL, self.B, T)
        error = (ours_BTD - exact_BTD).abs().max()
        assert error <= 2 * (peer_BTD - exact_BTD).abs().max() + 1e-5, error

    def stages(self) -> list[Stage]:
        """In the order of the forward pass."""
        kernels, w, peer, s, room = self.native.kernels, self.w, self.peer_w, self.shape, self.room
        a, x_BTD, norms = self.architecture, self.peer_x_BTD, (w.weights.ln1, w.weights.ln2)
        N, D, F = self.B * T, a.width, a.intermediate
        h_BTD = neox.layer_norm(x_BTD, peer.ln1, s.epsilon)
        attended_BTD, gelu_BTF = torch.randn_like(h_BTD), torch.randn(N, F).to(h_BTD).view(-1, T, F)
        rope = s.rope.at(0, T)

        def attend_by_torch() -> torch.Tensor:
            return attention(linear(h_BTD, peer.qkv_CD, peer.qkv_bias_C), a.heads, rope)

        def out_by_torch() -> torch.Tensor:
            branches_BTD = linear(attended_BTD, peer.attention_out_DD, peer.out_bias_D)
            return x_BTD + neox.add_product(branches_BTD, gelu_BTF, peer.mlp_out_DF)

        def mlp_by_torch() -> torch.Tensor:
            hidden_BTF = linear(h_BTD, peer.mlp_in_FD, peer.mlp_in_bias_F)
            return torch.nn.functional.gelu(hidden_BTF, approximate=s.gelu)

        products = [2.0 * N * D * 3 * D + 2.0 * N * T * D, 2.0 * N * D * F, 2.0 * N * D * (D + F)]
        return [
            Stage(
                "two LayerNorms",
                lambda: kernels.norm(room.x_PDL, norms, s.epsilon, room.normed),
                lambda: [neox.layer_norm(x_BTD, n, s.epsilon) for n in (peer.ln1, peer.ln2)],
                0.0,
            ),
            Stage(
                "qkv, rotary and attention",
                functools.partial(self.attend, room.normed[0], w, room.branches),
                attend_by_torch,
                products[0],
            ),
            Stage(
                "MLP in, bias and GELU",
                lambda: kernels.mlp(
                    room.normed[1], w.mlp_in, w.weights.mlp_in_bias_F, s.gelu, room.branches, D
                ),
                mlp_by_torch,
                products[1],
            ),
            Stage(
                "output products and residual",
                lambda: kernels.residual_(room.x_PDL, room.branches, w.out, w.weights.out_bias_D),
                out_by_torch,
                products[2],
            ),
            Stage(
                "a whole block",
                lambda: self.native.block(w, room, self.attend),
                lambda: neox.block(x_BTD, peer, s),
                sum(products),
            ),
        ]


@functools.cache
def one_layer(size: str) -> Weights:
    """Random weights, exact in float16; all layers, of which one is used."""
    weights = Weights(spec(size).architecture)
    weights.flat.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    weights.flat.copy_(weights.flat.half())
    for layer in weights.layers:
        layer.ln1.weight_D.fill_(1)
        layer.ln2.weight_D.fill_(1)
    weights.refresh()
    return weights


def converted(weights: Weights, kind: torch.dtype) -> Weights:
    """The same weights in another data type."""
    if kind == weights.dtype:
        return weights
    other = Weights(weights.architecture, dtype=kind)
    other.load_state_dict(weights.state_dict())
    return other
