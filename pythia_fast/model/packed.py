"""Weights as the native kernels take them: matrices packed once for each load, the rest in place.

D width, C = 3D, F feed-forward width, V vocabulary rows.
"""

from dataclasses import dataclass, replace
from math import prod

import torch

from pythia_fast.core import PackedWeight
from pythia_fast.kernels.cpu import Arithmetic, CpuKernels, Matrix
from pythia_fast.model.parameters import BlockWeights, Norm
from pythia_fast.model.weights import Weights
from pythia_fast.suite.architecture import Architecture

LARGEST_COPY = 2 << 30
"""Bytes. Packed weights are a second copy. Where it would be larger, and for float32 products,
which hardly gain by it, matrices are multiplied as they lie in the arena, with the same results."""

VALUE_BYTES = {"bfloat16": 2, "split-bf16": 4}
"""Of the arithmetics whose matrices are packed."""


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """One block's matrices as products take them, and its weights in the arena.

    `qkv` is packed for attention: a decoding step projects by the arena's.
    """

    weights: BlockWeights
    qkv: Matrix
    mlp_in: Matrix
    out: Matrix
    attention_out: Matrix
    mlp_out: Matrix


@dataclass(frozen=True, slots=True)
class Packed:
    """All weights of a model."""

    embed_VD: torch.Tensor
    layers: tuple[PackedBlock, ...]
    final_norm: Norm
    unembed: Matrix


def unpacked(w: BlockWeights) -> PackedBlock:
    """A block whose matrices are multiplied as they lie, for once: the results are the same."""
    return PackedBlock(
        weights=w,
        qkv=w.qkv_CD,
        mlp_in=w.mlp_in_FD,
        out=w.out_DE,
        attention_out=w.attention_out_DD,
        mlp_out=w.mlp_out_DF,
    )


class Packer:
    """Packs an arena's matrices, again after each load, always into the same memory."""

    def __init__(self, kernels: CpuKernels, architecture: Architecture, rotary_dims: int) -> None:
        self._kernels = kernels
        self._architecture = architecture
        self._rotary_dims = rotary_dims
        self._copying = packed_bytes(architecture, kernels.arithmetic) > 0
        self._copies: dict[str, PackedWeight] = {}
        self._known: tuple[Weights, int, Packed] | None = None

    def take(self, weights: Weights) -> Packed:
        """The weights as they are now; what was returned before is not valid any more."""
        known = self._known
        if known is None or known[0] is not weights or known[1] != weights.generation:
            self._known = None  # nothing is valid while packing is under way
            known = (weights, weights.generation, self._packed(weights))
            self._known = known
        return known[2]

    def _packed(self, weights: Weights) -> Packed:
        layers = (self._block(f"{i}", w) for i, w in enumerate(weights.layers))
        return Packed(
            embed_VD=weights.embed_VD,
            layers=tuple(layers),
            final_norm=weights.final_norm,
            unembed=self._copy("unembed", weights.unembed_VD),
        )

    def _block(self, name: str, w: BlockWeights) -> PackedBlock:
        block, copy = unpacked(w), self._copy
        qkv = copy(f"{name} qkv", w.qkv_CD, self._architecture.head_dim, self._rotary_dims)
        mlp_in = copy(f"{name} mlp_in", w.mlp_in_FD)
        if self._architecture.parallel_residual:
            return replace(block, qkv=qkv, mlp_in=mlp_in, out=copy(f"{name} out", w.out_DE))
        attention_out = copy(f"{name} attention_out", w.attention_out_DD)
        mlp_out = copy(f"{name} mlp_out", w.mlp_out_DF)
        return replace(block, qkv=qkv, mlp_in=mlp_in, attention_out=attention_out, mlp_out=mlp_out)

    def _copy(
        self, name: str, matrix: torch.Tensor, head_dim: int = 0, rotary_dims: int = 0
    ) -> Matrix:
        if not self._copying:
            return matrix
        copy = self._kernels.pack(
            matrix, into=self._copies.get(name), head_dim=head_dim, rotary_dims=rotary_dims
        )
        self._copies[name] = copy
        return copy


def packed_bytes(architecture: Architecture, arithmetic: Arithmetic | None) -> int:
    """What a model's packed copy takes, but for padding; 0 where none is made."""
    matrices = [shape for shape in architecture.shapes().values() if len(shape) == 2]
    values = sum(prod(shape) for shape in matrices) - architecture.vocab_rows * architecture.width
    size = values * VALUE_BYTES.get(arithmetic or "", 0)
    return size if size <= LARGEST_COPY else 0
