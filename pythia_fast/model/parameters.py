"""Where each weight lies in the arena, and the named views that the forward pass reads.

D width, C = 3D, F feed-forward width, V vocabulary rows, E = D + F.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import torch

from pythia_fast.suite.architecture import Architecture

DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
"""The dtypes that a model can have, with their names in files."""

ALIGNMENT_BYTES = 64
LAYER_SLOTS = 12
"""Pieces of the arena that a block has: see `_slot_shapes`."""


class Norm(NamedTuple):
    """A LayerNorm's scale and shift."""

    weight_D: torch.Tensor
    bias_D: torch.Tensor


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """One block's weights.

    `out_DE` is [W_o | W_2] in one piece, `attention_out_DD` and `mlp_out_DF` are its two parts;
    `out_bias_D` is the sum of the two output biases, which the parallel residual adds at once.
    """

    ln1: Norm
    ln2: Norm
    qkv_CD: torch.Tensor
    qkv_bias_C: torch.Tensor
    mlp_in_FD: torch.Tensor
    mlp_in_bias_F: torch.Tensor
    out_DE: torch.Tensor
    attention_out_DD: torch.Tensor
    mlp_out_DF: torch.Tensor
    attention_out_bias_D: torch.Tensor
    mlp_out_bias_D: torch.Tensor
    out_bias_D: torch.Tensor


@dataclass(frozen=True, slots=True)
class Parameters:
    """All weights of a model, as views of one flat tensor."""

    embed_VD: torch.Tensor
    layers: tuple[BlockWeights, ...]
    final_norm: Norm
    unembed_VD: torch.Tensor


class Place(NamedTuple):
    """Where a weight lies in the arena, in elements: `rows` of `columns`, `stride` apart."""

    offset: int
    shape: tuple[int, ...]
    rows: int
    columns: int
    stride: int


@dataclass(frozen=True)
class Layout:
    """The arena's map: aligned slots in the order in which the forward pass uses them."""

    architecture: Architecture
    itemsize: int

    @cached_property
    def slots(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """(offset, shape) of each slot in elements; every offset is a multiple of 64 bytes."""
        slots, end = [], 0
        for shape in _slot_shapes(self.architecture):
            slots.append((end, shape))
            end += self._padded(shape)
        return tuple(slots)

    @property
    def numel(self) -> int:
        """The arena's size in elements, padding included."""
        offset, shape = self.slots[-1]
        return offset + self._padded(shape)

    @property
    def nbytes(self) -> int:
        """The arena's size in bytes."""
        return self.numel * self.itemsize

    @cached_property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """(begin, end) of what is used together: the embedding, each block, and all after them."""
        firsts = range(1, 2 + LAYER_SLOTS * self.architecture.layers, LAYER_SLOTS)
        begins = [0, *(self.slots[first][0] for first in firsts)]
        return tuple(zip(begins, [*begins[1:], self.numel], strict=True))

    @cached_property
    def sums(self) -> tuple[tuple[str, str, int], ...]:
        """For each block the names of both output biases, and where their sum lies."""
        return tuple(
            (
                f"gpt_neox.layers.{layer}.attention.dense.bias",
                f"gpt_neox.layers.{layer}.mlp.dense_4h_to_h.bias",
                self.slots[LAYER_SLOTS * (layer + 1)][0],
            )
            for layer in range(self.architecture.layers)
        )

    @cached_property
    def places(self) -> dict[str, Place]:
        """The place of every weight, by its Hugging Face name, in the model's order."""
        d, f = self.architecture.width, self.architecture.intermediate
        places: dict[str, Place] = {}
        slots = iter(self.slots)

        def put(name: str, at: int, shape: tuple[int, ...], stride: int | None = None) -> None:
            rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
            places[name] = Place(at, shape, rows, columns, stride or columns)

        put("gpt_neox.embed_in.weight", *next(slots))
        for layer in range(self.architecture.layers):
            prefix = f"gpt_neox.layers.{layer}."
            for module in (
                "input_layernorm",
                "post_attention_layernorm",
                "attention.query_key_value",
                "mlp.dense_h_to_4h",
            ):
                put(f"{prefix}{module}.weight", *next(slots))
                put(f"{prefix}{module}.bias", *next(slots))
            out, _ = next(slots)
            put(f"{prefix}attention.dense.weight", out, (d, d), d + f)
            put(f"{prefix}mlp.dense_4h_to_h.weight", out + d, (d, f), d + f)
            put(f"{prefix}attention.dense.bias", *next(slots))
            put(f"{prefix}mlp.dense_4h_to_h.bias", *next(slots))
            next(slots)  # the sum of both biases is derived
        put("gpt_neox.final_layer_norm.weight", *next(slots))
        put("gpt_neox.final_layer_norm.bias", *next(slots))
        put("embed_out.weight", *next(slots))
        return {name: places[name] for name in self.architecture.shapes()}

    def _padded(self, shape: tuple[int, ...]) -> int:
        step = ALIGNMENT_BYTES // self.itemsize
        return -(-prod(shape) // step) * step


def parameters(layout: Layout, flat: torch.Tensor) -> Parameters:
    """The views of `flat`, differentiable: gradients arrive in `flat.grad` if it is a leaf.

    With `flat.requires_grad` the summed output bias is computed, so that it carries gradients too;
    otherwise it is the arena's slot.
    """
    sizes = [layout._padded(shape) for _, shape in layout.slots]
    pieces = torch.split(flat, sizes)  # one node in the graph: its backward is one concatenation
    views = iter(
        piece[: prod(shape)].view(shape)
        for piece, (_, shape) in zip(pieces, layout.slots, strict=True)
    )
    embed_VD = next(views)
    layers = tuple(_block(layout.architecture, views) for _ in range(layout.architecture.layers))
    return Parameters(embed_VD, layers, Norm(next(views), next(views)), next(views))


def _block(architecture: Architecture, views: Iterator[torch.Tensor]) -> BlockWeights:
    ln1, ln2 = Norm(next(views), next(views)), Norm(next(views), next(views))
    qkv_CD, qkv_bias_C, mlp_in_FD, mlp_in_bias_F = (next(views) for _ in range(4))
    out_DE, attention_out_bias_D, mlp_out_bias_D, out_bias_D = (next(views) for _ in range(4))
    attention_out_DD, mlp_out_DF = torch.split(
        out_DE, [architecture.width, architecture.intermediate], dim=1
    )
    if out_DE.requires_grad:
        out_bias_D = attention_out_bias_D + mlp_out_bias_D
    return BlockWeights(
        ln1=ln1,
        ln2=ln2,
        qkv_CD=qkv_CD,
        qkv_bias_C=qkv_bias_C,
        mlp_in_FD=mlp_in_FD,
        mlp_in_bias_F=mlp_in_bias_F,
        out_DE=out_DE,
        attention_out_DD=attention_out_DD,
        mlp_out_DF=mlp_out_DF,
        attention_out_bias_D=attention_out_bias_D,
        mlp_out_bias_D=mlp_out_bias_D,
        out_bias_D=out_bias_D,
    )


def _slot_shapes(architecture: Architecture) -> Iterator[tuple[int, ...]]:
    """The arena's slots in order; `Layout.places` and `parameters` walk them the same way."""
    d, f, v = architecture.width, architecture.intermediate, architecture.vocab_rows
    yield (v, d)
    for _ in range(architecture.layers):
        yield from ((d,),) * 4  # two norms
        yield from ((3 * d, d), (3 * d,), (f, d), (f,))
        yield from ((d, d + f), (d,), (d,), (d,))
    yield from ((d,), (d,), (v, d))
