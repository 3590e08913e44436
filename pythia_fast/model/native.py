"""The forward pass by the native CPU kernels: the same equations as `neox`, on panels of tokens.

B batch, T time, P panels, L = 16 lanes, D width, E = D + F, N = B·T tokens, V vocabulary rows.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from pythia_fast.kernels import tree
from pythia_fast.kernels.cpu import MAX_HEAD_DIM, Arithmetic, CpuKernels
from pythia_fast.kernels.panels import (
    LANES,
    Heads,
    Operand,
    PanelRope,
    ends_of,
    panelled,
    panels_of,
)
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model.neox import Shape
from pythia_fast.model.packed import Packed, PackedBlock, Packer
from pythia_fast.model.weights import Weights
from pythia_fast.suite.architecture import Architecture

LOGIT_ROWS = 4096
"""Rows of the vocabulary whose logits are in memory as float32 at a time."""


def takes(architecture: Architecture) -> bool:
    """Whether the kernels do this shape: they work on pairs of features and heads up to 256."""
    even = (architecture.head_dim, architecture.width, architecture.intermediate)
    return architecture.head_dim <= MAX_HEAD_DIM and not any(size % 2 for size in even)


Attend = Callable[[Operand, PackedBlock, Operand], None]
"""(ln1(x), the block's weights, out): what each token's heads find, into the first rows of out."""


@dataclass(frozen=True, slots=True)
class Room:
    """Activations of one batch shape; fresh memory would cost more than the arithmetic on it."""

    x_PDL: torch.Tensor
    normed: tuple[Operand, Operand]
    branches: Operand
    """Rows [attention | gelu], what the output product reads."""


class Native:
    """`Kernels` of one architecture in one arithmetic."""

    def __init__(
        self,
        architecture: Architecture,
        shape: Shape,
        arithmetic: Arithmetic,
        *,
        instructions: str | None = None,
    ) -> None:
        self.kernels = CpuKernels(arithmetic, instructions=instructions)
        self.arithmetic = arithmetic
        self.rope = PanelRope(shape.rope)
        self.architecture = architecture
        self._shape = shape
        self._packer = Packer(self.kernels, architecture, self.rope.rotary_dims)
        self._rooms: dict[tuple[int, int], tuple[Room, Heads]] = {}
        self._turn = threading.Lock()

    def packed(self, weights: Weights) -> Packed:
        """An arena's weights as the kernels take them, packed anew if it has been loaded since."""
        with self._turn:
            return self._packer.take(weights)

    def nll(self, ids_BT: torch.Tensor, y_BT: torch.Tensor, weights: Weights) -> torch.Tensor:
        """See `Kernels.nll`."""
        B, T = ids_BT.shape
        with self._states(ids_BT, weights) as (x_PDL, w):
            h = self.final(x_PDL, w)
            nll_N = self.kernels.nll(h, w.unembed, panels_of(y_BT).flatten())
        return _unpadded(nll_N, B, T)

    def scores(
        self, ids_BT: torch.Tensor, y_BT: torch.Tensor, weights: Weights, start: int
    ) -> TokenScores:
        """See `Kernels.scores`."""
        with self._states(ids_BT, weights) as (x_PDL, w):
            return self._scores(x_PDL, w, y_BT, start)

    def scores_at(
        self,
        ids_BT: torch.Tensor,
        row_N: torch.Tensor,
        place_N: torch.Tensor,
        y_N: torch.Tensor,
        weights: Weights,
        end_BT: torch.Tensor | None = None,
    ) -> TokenScores:
        """See `Kernels.scores_at`."""
        with self._states(ids_BT, weights, end_BT) as (x_PDL, w):
            x_ND = self._rows(x_PDL, *ids_BT.shape)[row_N, place_N]
            return self.kernels.scores(self.final(panelled(x_ND), w), w.unembed, y_N)

    def logits_into(self, ids_BT: torch.Tensor, weights: Weights, to_BTV: torch.Tensor) -> None:
        """See `Kernels.logits_into`.

        Some of the vocabulary's rows at a time: in float32 they are in memory for these only.
        """
        with self._states(ids_BT, weights) as (x_PDL, w):
            h = self.final(x_PDL, w)
        self._project(h, weights, to_BTV)

    def lens_into(
        self, ids_BT: torch.Tensor, weights: Weights, to: Mapping[int, torch.Tensor]
    ) -> None:
        """See `Kernels.lens_into`."""
        for layer, x_PDL, w in self._layers(ids_BT, weights, max(to, default=0)):
            if layer in to:
                self._project(self.final(x_PDL, w), weights, to[layer])

    def lens_scores(
        self,
        ids_BT: torch.Tensor,
        y_BT: torch.Tensor,
        weights: Weights,
        start: int,
        layers: Collection[int],
    ) -> dict[int, TokenScores]:
        """See `Kernels.lens_scores`."""
        return {
            layer: self._scores(x_PDL, w, y_BT, start)
            for layer, x_PDL, w in self._layers(ids_BT, weights, max(layers, default=0))
            if layer in layers
        }

    def residual_stream(
        self, ids_BT: torch.Tensor, weights: Weights, deepest: int
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """See `Kernels.residual_stream`; it is float32."""
        for layer, x_PDL, _ in self._layers(ids_BT, weights, deepest):
            yield layer, self._rows(x_PDL, *ids_BT.shape)

    def _layers(
        self, ids_BT: torch.Tensor, weights: Weights, deepest: int
    ) -> Iterator[tuple[int, torch.Tensor, Packed]]:
        """As panels, which the next block overwrites."""
        with self._turn:
            w = self._packer.take(weights)
            room, attend = self._room(*ids_BT.shape)
            self.kernels.embed(panels_of(ids_BT), w.embed_VD, room.x_PDL)
            yield 0, room.x_PDL, w
            for layer, block in enumerate(w.layers[:deepest], start=1):
                self.block(block, room, attend)
                yield layer, room.x_PDL, w

    def _scores(
        self, x_PDL: torch.Tensor, w: Packed, y_BT: torch.Tensor, start: int
    ) -> TokenScores:
        B, T = y_BT.shape
        if start:
            # The vocabulary is half of a small model's work: only what is asked for.
            x_ND = self._rows(x_PDL, B, T)[:, start:].flatten(0, 1)
            h = self.final(panelled(x_ND), w)
            found = self.kernels.scores(h, w.unembed, y_BT[:, start:].flatten())
            return found.map(lambda x_N: x_N.view(B, T - start))
        h = self.final(x_PDL, w)
        found = self.kernels.scores(h, w.unembed, panels_of(y_BT).flatten())
        return found.map(lambda x_N: _unpadded(x_N, B, T))

    def _project(self, h: Operand, weights: Weights, to_BTV: torch.Tensor) -> None:
        B, T, _ = to_BTV.shape
        for first in range(0, len(weights.unembed_VD), LOGIT_ROWS):
            cut = slice(first, first + LOGIT_ROWS)
            to_BTV[..., cut] = self._rows(self.kernels.project(h, weights.unembed_VD[cut]), B, T)

    @contextmanager
    def _states(
        self, ids_BT: torch.Tensor, weights: Weights, end_BT: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, Packed]]:
        """The residual stream after the last block, as panels; good until the context ends."""
        with self._turn:
            w = self._packer.take(weights)
            B, T = ids_BT.shape
            room, attend = self._room(B, T, end_BT)
            self.kernels.embed(panels_of(ids_BT), w.embed_VD, room.x_PDL)
            for block in w.layers:
                self.block(block, room, attend)
            yield room.x_PDL, w

    def block(self, packed: PackedBlock, room: Room, attend: Attend) -> None:
        """One block on the room's x in place, parallel or sequential as in `neox.block`."""
        kernels, epsilon, width = self.kernels, self._shape.epsilon, self.architecture.width
        x_PDL, branches, w = room.x_PDL, room.branches, packed.weights
        if self._shape.parallel_residual:
            kernels.norm(x_PDL, (w.ln1, w.ln2), epsilon, room.normed)
        else:
            kernels.norm(x_PDL, (w.ln1,), epsilon, room.normed[:1])
        if self._shape.parallel_residual:
            attend(room.normed[0], packed, branches)
            kernels.mlp(
                room.normed[1], packed.mlp_in, w.mlp_in_bias_F, self._shape.gelu, branches, width
            )
            kernels.residual_(x_PDL, branches, packed.out, w.out_bias_D)
            return
        attend(room.normed[0], packed, room.normed[1])
        kernels.residual_(x_PDL, room.normed[1], packed.attention_out, w.attention_out_bias_D)
        kernels.norm(x_PDL, (w.ln2,), epsilon, room.normed[:1])
        kernels.mlp(room.normed[0], packed.mlp_in, w.mlp_in_bias_F, self._shape.gelu, branches, 0)
        kernels.residual_(x_PDL, branches, packed.mlp_out, w.mlp_out_bias_D)

    def attend(self, a: Operand, w: PackedBlock, out: Operand, heads: Heads) -> None:
        """Causal attention of whole sequences; queries, keys and values stay in `heads`."""
        self.kernels.heads(a, w.qkv, w.weights.qkv_bias_C, self.rope, heads)
        self.kernels.attention(heads, out)

    def attend_in_trees(
        self,
        a: Operand,
        w: PackedBlock,
        out: Operand,
        heads: Heads,
        rope: PanelRope,
        end_BX: torch.Tensor,
    ) -> None:
        """The same in rows that are trees, whose tables and ends go on to whole panels."""
        self.kernels.heads(a, w.qkv, w.weights.qkv_bias_C, rope, heads)
        self.kernels.attention(heads, out, end_BX)

    def final(self, x_PDL: torch.Tensor, w: Packed) -> Operand:
        """The final LayerNorm's output."""
        h = self.kernels.operand(x_PDL.shape[1], len(x_PDL))
        self.kernels.norm(x_PDL, (w.final_norm,), self._shape.epsilon, (h,))
        return h

    def _rows(self, x_PDL: torch.Tensor, B: int, T: int) -> torch.Tensor:
        each = -(-T // LANES) * LANES
        return self.kernels.unpack(x_PDL)[: B * each].view(B, each, -1)[:, :T]

    def _room(self, B: int, T: int, end_BT: torch.Tensor | None = None) -> tuple[Room, Attend]:
        """Memory for B sequences of as many panels as T tokens take; the last shape's stays."""
        each = -(-T // LANES)
        if (B, each) not in self._rooms:
            self._rooms.clear()
            heads = self.kernels.room_for_heads(
                B, self.architecture.heads, self.architecture.head_dim, each
            )
            self._rooms[B, each] = self.room(B * each), heads
        room, heads = self._rooms[B, each]
        if end_BT is None:
            return room, partial(self.attend, heads=heads)
        rope = PanelRope(tree.rope_of(self._shape.rope, end_BT))
        ends = ends_of(end_BT)
        return room, partial(self.attend_in_trees, heads=heads, rope=rope, end_BX=ends)

    def room(self, panels: int) -> Room:
        """Memory for the activations of so many panels, or one more to make their number even."""
        panels = -(-panels // 2) * 2
        a, kernels = self.architecture, self.kernels
        rows = a.width + a.intermediate if self._shape.parallel_residual else a.intermediate
        return Room(
            x_PDL=torch.empty(panels, a.width, LANES, dtype=torch.float32, device="cpu"),
            normed=(kernels.operand(a.width, panels), kernels.operand(a.width, panels)),
            branches=kernels.operand(rows, panels),
        )


def _unpadded(x_N: torch.Tensor, B: int, T: int) -> torch.Tensor:
    """[B, T] of values that lie in whole panels per sequence."""
    each = -(-T // LANES) * LANES
    return x_N[: B * each].view(B, each)[:, :T]
