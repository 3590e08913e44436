"""The forward pass by the Triton kernels: the same equations as `neox`, and few trips to memory.

A block is five kernels beside the qkv product: two norms of one read, attention that turns queries
and keys itself, W_1 with its GELU, and [attention | gelu] @ [W_o | W_2]ᵀ with both biases and the
residual. A sequence's bits do not depend on its company.

B batch, T time, N = B·T tokens, D width, F feed-forward width, E = D + F, C = 3D,
V vocabulary rows.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

import torch

from pythia_fast.kernels import tree
from pythia_fast.kernels.gpu.attention import rotary_attention
from pythia_fast.kernels.gpu.cross_entropy import linear_nll, linear_scores
from pythia_fast.kernels.gpu.linear import linear
from pythia_fast.kernels.gpu.norm import dual_layer_norm, layer_norm
from pythia_fast.kernels.rotary import Rope
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model.graphs import CudaRecorder, Graphs, Recorder
from pythia_fast.model.neox import Shape
from pythia_fast.model.parameters import BlockWeights
from pythia_fast.model.passes import Passes
from pythia_fast.model.weights import Weights
from pythia_fast.suite.architecture import Architecture

Result = TypeVar("Result")

Attend = Callable[[torch.Tensor, torch.Tensor], None]
"""(qkv [N, C], out [N, D], rows apart): attention of whatever the rows are."""


@dataclass(frozen=True, slots=True)
class Room:
    """Activations of N tokens; `branches_NE` is [attention | gelu], for the output product."""

    x_ND: torch.Tensor
    norm1_ND: torch.Tensor
    norm2_ND: torch.Tensor
    qkv_NC: torch.Tensor
    branches_NE: torch.Tensor

    def of(self, tokens: int) -> "Room":
        """That of the first tokens."""
        return Room(*(getattr(self, name)[:tokens] for name in self.__slots__))


def token_bytes(a: Architecture, dtype: torch.dtype) -> int:
    """What a token's activations take, and its part of the cross-entropy's scratch."""
    scratch = 16 * -(-a.vocab_rows // 128)
    return (7 * a.width + a.intermediate) * dtype.itemsize + scratch


class Gpu:
    """`Kernels` of one architecture on one GPU.

    `passes` plans how many tokens go through at a time. Without a `recorder` nothing is recorded
    (see `graphs`).
    """

    def __init__(
        self,
        architecture: Architecture,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        *,
        deterministic: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        if recorder is None and device.type == "cuda":
            recorder = CudaRecorder(device)
        self.architecture, self.deterministic = architecture, deterministic
        self.rope = shape.rope
        self._shape, self._dtype, self._device = shape, dtype, device
        self.graphs = Graphs(recorder)
        self.turn = threading.RLock()
        self.passes = Passes(token_bytes(architecture, dtype), device)
        self._room: Room | None = None

    def in_passes(
        self, sequences: int, tokens: int, work: Callable[[slice], Result]
    ) -> Iterator[tuple[slice, Result]]:
        """The work on slices of so many sequences of so many tokens: see `Passes.run`."""
        return self.passes.run(sequences, tokens, work, self.give_back)

    def give_back(self) -> None:
        """The memory that the passes before have kept."""
        with self.turn:
            self.graphs.forget()
            self._room = None
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def nll(self, ids_BT: torch.Tensor, y_BT: torch.Tensor, weights: Weights) -> torch.Tensor:
        """See `Kernels.nll`."""

        def work(ids_BT: torch.Tensor, y_BT: torch.Tensor) -> tuple[torch.Tensor]:
            h_ND = self._final(self._states(ids_BT, weights), weights)
            nll_N = linear_nll(h_ND, weights.unawaited.unembed_VD, y_BT.flatten())
            return (nll_N.view(y_BT.shape),)

        with self.turn:
            self.room(ids_BT.numel())
            key = "nll", tuple(ids_BT.shape)
            return self.graphs.run(key, weights, work, ids_BT, y_BT.contiguous())[0]

    def scores(
        self, ids_BT: torch.Tensor, y_BT: torch.Tensor, weights: Weights, start: int
    ) -> TokenScores:
        """See `Kernels.scores`."""

        def work(ids_BT: torch.Tensor, y_BT: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return _tensors(self._scores(self._states(ids_BT, weights), weights, y_BT, start))

        with self.turn:
            self.room(ids_BT.numel())
            key = "scores", tuple(ids_BT.shape), start
            return TokenScores(*self.graphs.run(key, weights, work, ids_BT, y_BT.contiguous()))

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
        with self.turn:
            self.room(ids_BT.numel())
            x_ND = self._states(ids_BT, weights, end_BT)
            h_ND = self._final(x_ND, weights)[row_N * ids_BT.shape[1] + place_N]
            return linear_scores(h_ND, weights.unawaited.unembed_VD, y_N)

    def logits_into(self, ids_BT: torch.Tensor, weights: Weights, to_BTV: torch.Tensor) -> None:
        """See `Kernels.logits_into`."""
        with self.turn:
            self.room(ids_BT.numel())
            self._project(self._final(self._states(ids_BT, weights), weights), weights, to_BTV)

    def lens_into(
        self, ids_BT: torch.Tensor, weights: Weights, to: Mapping[int, torch.Tensor]
    ) -> None:
        """See `Kernels.lens_into`."""
        with self.turn:
            for layer, x_ND in self._layers(ids_BT, weights, max(to, default=0)):
                if layer in to:
                    self._project(self._final(x_ND, weights), weights, to[layer])

    def lens_scores(
        self,
        ids_BT: torch.Tensor,
        y_BT: torch.Tensor,
        weights: Weights,
        start: int,
        layers: Collection[int],
    ) -> dict[int, TokenScores]:
        """See `Kernels.lens_scores`."""
        with self.turn:
            return {
                layer: self._scores(x_ND, weights, y_BT, start)
                for layer, x_ND in self._layers(ids_BT, weights, max(layers, default=0))
                if layer in layers
            }

    def residual_stream(
        self, ids_BT: torch.Tensor, weights: Weights, deepest: int
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """See `Kernels.residual_stream`."""
        with self.turn:
            for layer, x_ND in self._layers(ids_BT, weights, deepest):
                yield layer, x_ND.view(*ids_BT.shape, -1).clone()

    def room(self, tokens: int) -> Room:
        """Memory for the activations of so many tokens; that of the largest pass so far is kept."""
        if self._room is None or len(self._room.x_ND) < tokens:
            self.graphs.forget()
            self._room = None  # before as much again is asked for
            a, D = self.architecture, self.architecture.width
            widths = (D, D, D, 3 * D, D + a.intermediate)
            self._room = Room(
                *(
                    torch.empty(tokens, width, dtype=self._dtype, device=self._device)
                    for width in widths
                )
            )
        return self._room.of(tokens)

    def block(self, room: Room, w: BlockWeights, attend: Attend) -> None:
        """One block on the room's x in place, parallel or sequential as in `neox.block`."""
        x_ND, norm1_ND, norm2_ND, branches_NE = (
            room.x_ND,
            room.norm1_ND,
            room.norm2_ND,
            room.branches_NE,
        )
        D, fixed, epsilon = x_ND.shape[1], self.deterministic, self._shape.epsilon
        attended_ND, gelu_NF = branches_NE[:, :D], branches_NE[:, D:]
        if self._shape.parallel_residual:
            dual_layer_norm(x_ND, w.ln1, w.ln2, epsilon, norm1_ND, norm2_ND)
            last = branches_NE, w.out_DE, w.out_bias_D, x_ND
        else:
            layer_norm(x_ND, w.ln1, epsilon, norm1_ND)
            last = gelu_NF, w.mlp_out_DF, w.mlp_out_bias_D, x_ND
        linear(norm1_ND, w.qkv_CD, w.qkv_bias_C, room.qkv_NC, deterministic=fixed)
        attend(room.qkv_NC, attended_ND)
        if not self._shape.parallel_residual:
            out = w.attention_out_DD, w.attention_out_bias_D, x_ND
            linear(attended_ND, *out, residual_NO=x_ND, deterministic=fixed)
            layer_norm(x_ND, w.ln2, epsilon, norm2_ND)
        into = w.mlp_in_FD, w.mlp_in_bias_F, gelu_NF
        linear(norm2_ND, *into, gelu=self._shape.gelu, deterministic=fixed)
        linear(*last, residual_NO=x_ND, deterministic=fixed)

    def embed(self, ids_N: torch.Tensor, weights: Weights) -> Room:
        """The tokens' embeddings, as x of the room for so many."""
        room = self.room(len(ids_N))
        weights.await_layer(-1)
        torch.index_select(weights.unawaited.embed_VD, 0, ids_N, out=room.x_ND)
        return room

    def final(self, x_ND: torch.Tensor, weights: Weights, h_ND: torch.Tensor) -> torch.Tensor:
        """The final LayerNorm's output, into `h`."""
        weights.await_layer(self.architecture.layers)
        layer_norm(x_ND, weights.unawaited.final_norm, self._shape.epsilon, h_ND)
        return h_ND

    def project(self, h_ND: torch.Tensor, weights: Weights, to_NV: torch.Tensor) -> None:
        """Logits of each row, into `to`."""
        linear(h_ND, weights.unawaited.unembed_VD, None, to_NV, deterministic=self.deterministic)

    def _layers(
        self,
        ids_BT: torch.Tensor,
        weights: Weights,
        deepest: int,
        end_BT: torch.Tensor | None = None,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """The residual stream before each block up to `deepest`; the next block overwrites it."""
        T = ids_BT.shape[1]
        rope: Rope = self.rope.at(0, T) if end_BT is None else tree.rope_of(self.rope, end_BT)
        heads = self.architecture.heads

        def attend(qkv_NC: torch.Tensor, out_ND: torch.Tensor) -> None:
            rotary_attention(
                by_sequence(qkv_NC, T), heads, rope, by_sequence(out_ND, T), end_BT=end_BT
            )

        room = self.embed(ids_BT.flatten(), weights)
        yield 0, room.x_ND
        for layer in range(deepest):
            weights.await_layer(layer)
            self.block(room, weights.unawaited.layers[layer], attend)
            yield layer + 1, room.x_ND

    def _states(
        self, ids_BT: torch.Tensor, weights: Weights, end_BT: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The residual stream after the last block, [N, D], in the room."""
        *_, (_, x_ND) = self._layers(ids_BT, weights, self.architecture.layers, end_BT)
        return x_ND

    def _final(self, x_ND: torch.Tensor, weights: Weights) -> torch.Tensor:
        return self.final(x_ND, weights, self.room(len(x_ND)).norm1_ND)

    def _scores(
        self, x_ND: torch.Tensor, weights: Weights, y_BT: torch.Tensor, start: int
    ) -> TokenScores:
        B, T = y_BT.shape
        h_ND = self._final(x_ND, weights)
        if start:  # the vocabulary is half of a small model's work: only what is asked for
            h_ND = h_ND.view(B, T, -1)[:, start:].flatten(0, 1)
        found = linear_scores(h_ND, weights.unawaited.unembed_VD, y_BT[:, start:].flatten())
        return found.map(lambda x_N: x_N.view(B, T - start))

    def _project(self, h_ND: torch.Tensor, weights: Weights, to_BTV: torch.Tensor) -> None:
        self.project(h_ND, weights, to_BTV.view(len(h_ND), -1))


def by_sequence(rows_NX: torch.Tensor, T: int) -> torch.Tensor:
    """Rows, which may lie apart, as sequences of T: [B, T, X], in the same memory."""
    step = rows_NX.stride(0)
    return rows_NX.as_strided((len(rows_NX) // T, T, rows_NX.shape[1]), (T * step, step, 1))


def _tensors(scores: TokenScores) -> tuple[torch.Tensor, ...]:
    return tuple(getattr(scores, field.name) for field in fields(scores))
