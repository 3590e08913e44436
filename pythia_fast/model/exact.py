"""The same scores in float32, whatever the resident dtype: the referee for near ties.

On a CPU the native kernels compute them, many sequences at a time: a sequence's bits do not depend
on its company. Elsewhere torch does, each sequence on its own, for the same reason.

The weights are the checkpoint's own, in float32. If they are not resident, those of a small model
are read once into an arena of `KEPT_BYTES` at most, which is kept, and read again for another
checkpoint. Of a larger model, and on a GPU, one block (or one embedding) is in memory at a time.

B batch, T time, D width, V vocabulary rows, P panels, L = 16 lanes.
"""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from pythia_fast.kernels.cpu import Arithmetic
from pythia_fast.kernels.cross_entropy import linear_scores
from pythia_fast.kernels.panels import LANES, panelled
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model.apart import apart
from pythia_fast.model.native import Native, takes
from pythia_fast.model.neox import Shape, block, layer_norm
from pythia_fast.model.packed import unpacked
from pythia_fast.model.parameters import BlockWeights, Layout, Norm, Place, parameters
from pythia_fast.model.reading import read_places
from pythia_fast.model.weights import Weights
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.suite.architecture import Architecture

KEPT_BYTES = 1 << 30
"""The largest arena that is kept: models up to 160m. Where split-bf16 decides first, its packed
copy takes as much again."""

HELD_BYTES = 256 << 20
"""What the residual stream may take of sequences for which a checkpoint is read once."""

PASS_TOKENS = 4096
"""Tokens that go through a block together."""


class Referee:
    """Scores from a checkpoint's own weights, for one architecture on one device."""

    def __init__(self, architecture: Architecture, shape: Shape, device: torch.device) -> None:
        self._architecture, self._shape = architecture, shape
        self.is_native = device.type == "cpu" and takes(architecture)
        self._natives: dict[Arithmetic, Native] = {}
        self._kept: Weights | None = None
        self._kept_of: Checkpoint | None = None
        self._turn = threading.Lock()

    @apart
    def scores(
        self,
        ids_BT: torch.Tensor,
        start: int,
        resident: Weights,
        checkpoint: Checkpoint | None,
        arithmetic: Arithmetic = "float32",
    ) -> TokenScores:
        """Scores of the targets after position `start`, [B, T - 1 - start].

        The weights are the resident ones if they are float32 or no checkpoint is known. Another
        `arithmetic` than "float32" is for where the native kernels compute. Calls from several
        threads take turns.
        """
        with self._turn:
            return self._scores(ids_BT, start, resident, checkpoint, arithmetic)

    def _scores(
        self,
        ids_BT: torch.Tensor,
        start: int,
        resident: Weights,
        checkpoint: Checkpoint | None,
        arithmetic: Arithmetic,
    ) -> TokenScores:
        count = ids_BT.shape[1] - 1 - start
        if not count:
            empty_BT = resident.flat.new_empty(len(ids_BT), count, dtype=torch.float32)
            index_BT = torch.empty_like(empty_BT, dtype=torch.int64)
            return TokenScores(empty_BT, empty_BT, empty_BT, index_BT, empty_BT)
        weights: Weights | None = resident if resident.dtype == torch.float32 else None
        source: FromArena | FromCheckpoint = FromArena(resident)
        if weights is None and checkpoint is not None:
            source = FromCheckpoint(checkpoint, resident)
            weights = self._keep(checkpoint) if self.is_native else None
        if not self.is_native:
            return _each_alone(ids_BT, source, self._shape, start)
        native = self._native(arithmetic)
        tokens = HELD_BYTES // (4 * self._architecture.width) if weights is None else PASS_TOKENS
        parts = []
        for part_BT in torch.split(ids_BT, _sequences_of(tokens, ids_BT)):
            if weights is None:
                parts.append(_streamed(part_BT, source, self._shape, native, start))
            else:
                parts.append(native.scores(part_BT[:, :-1], part_BT[:, 1:], weights, start))
        return TokenScores.cat(parts)

    def _native(self, arithmetic: Arithmetic) -> Native:
        if arithmetic not in self._natives:
            self._natives[arithmetic] = Native(self._architecture, self._shape, arithmetic)
        return self._natives[arithmetic]

    def _keep(self, checkpoint: Checkpoint) -> Weights | None:
        """The checkpoint in an arena, or None if that would be too large."""
        if self._kept_of is not checkpoint:
            itemsize = torch.float32.itemsize
            if Layout(self._architecture, itemsize).nbytes > KEPT_BYTES:
                return None
            if self._kept is None:
                self._kept = Weights(self._architecture)
            self._kept_of = None  # should reading fail
            self._kept.load(checkpoint)
            self._kept_of = checkpoint
        return self._kept


class FromArena:
    """Float32 weights from a resident arena: its own views if it is float32, else copies."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def embed(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """The embeddings of ids, [B, T, D]."""
        return self.weights.embed_VD[ids_BT].float()

    def blocks(self) -> Iterator[BlockWeights]:
        """Each block in turn, valid until the next."""
        weights = self.weights
        if weights.dtype == torch.float32:
            yield from weights.layers
            return
        layout = _one_block(weights)
        flat = torch.zeros(layout.numel, dtype=torch.float32, device=weights.device)
        one = parameters(layout, flat).layers[0]
        for resident in weights.layers:
            _copy(one, resident)
            yield one

    def final_norm(self) -> Norm:
        """The LayerNorm before the unembedding."""
        return Norm(*(tensor.float() for tensor in self.weights.final_norm))

    def unembed_VD(self) -> torch.Tensor:
        """The output embedding."""
        return self.weights.unembed_VD.float()


class FromCheckpoint:
    """Float32 weights read from a checkpoint's files, for a model on `weights.device`."""

    def __init__(self, checkpoint: Checkpoint, weights: Weights) -> None:
        self.tensors = checkpoint.tensors
        self.weights = weights

    def embed(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """The embeddings of ids, [B, T, D]; only their rows are read."""
        table = self.tensors["gpt_neox.embed_in.weight"]
        used_U, index_BT = torch.unique(ids_BT, return_inverse=True)
        width = table.shape[1]
        row_bytes = table.nbytes // table.shape[0]
        rows_UD = torch.empty(len(used_U), width, dtype=torch.float32, device="cpu")
        read_places(
            (
                (
                    replace(table, offset=table.offset + token * row_bytes, shape=(1, width)),
                    Place(row * width, (1, width), 1, width, width),
                )
                for row, token in enumerate(used_U.tolist())
            ),
            rows_UD.flatten(),
        )
        return rows_UD.to(ids_BT.device)[index_BT]

    def blocks(self) -> Iterator[BlockWeights]:
        """Each block in turn, valid until the next."""
        layout = _one_block(self.weights)
        names = [name for name in layout.places if name.startswith("gpt_neox.layers.0.")]
        flat = torch.zeros(layout.numel, dtype=torch.float32, device="cpu")
        for layer in range(self.weights.architecture.layers):
            read_places(
                (
                    (
                        self.tensors[name.replace("layers.0.", f"layers.{layer}.", 1)],
                        layout.places[name],
                    )
                    for name in names
                ),
                flat,
            )
            one = parameters(layout, flat.to(self.weights.device)).layers[0]
            torch.add(one.attention_out_bias_D, one.mlp_out_bias_D, out=one.out_bias_D)
            yield one

    def final_norm(self) -> Norm:
        """The LayerNorm before the unembedding."""
        weight, bias = "gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias"
        return Norm(self._whole(weight), self._whole(bias))

    def unembed_VD(self) -> torch.Tensor:
        """The output embedding."""
        return self._whole("embed_out.weight")

    def _whole(self, name: str) -> torch.Tensor:
        tensor = self.tensors[name]
        rows, columns = (1, *tensor.shape)[-2:]
        values = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
        read_places([(tensor, Place(0, tensor.shape, rows, columns, columns))], values.flatten())
        return values.to(self.weights.device)


def _each_alone(
    ids_BT: torch.Tensor, source: "FromArena | FromCheckpoint", shape: Shape, start: int
) -> TokenScores:
    """The scores by torch, a sequence at a time."""
    sequences = [source.embed(ids_1T[:, :-1]) for ids_1T in torch.split(ids_BT, 1)]
    for weights in source.blocks():
        sequences = [block(x_1TD, weights, shape) for x_1TD in sequences]
    del weights  # a block's memory, before the embedding's is taken
    norm, unembed_VD = source.final_norm(), source.unembed_VD()
    parts = []
    for x_1TD, ids_1T in zip(sequences, torch.split(ids_BT, 1), strict=True):
        h_ND = layer_norm(x_1TD[0, start:], norm, shape.epsilon)
        parts.append(linear_scores(h_ND, unembed_VD, ids_1T[0, start + 1 :]))
    return TokenScores.cat([part.map(lambda x_N: x_N[None]) for part in parts])


def _streamed(
    ids_BT: torch.Tensor,
    source: "FromArena | FromCheckpoint",
    shape: Shape,
    native: Native,
    start: int,
) -> TokenScores:
    """The scores by the native kernels; each block is read once for all sequences."""
    kernels, T = native.kernels, ids_BT.shape[1] - 1
    passes = torch.split(ids_BT, _sequences_of(PASS_TOKENS, ids_BT))
    streams = [_panelled(source.embed(part_BT[:, :-1])) for part_BT in passes]
    # Only the last pass may be smaller than the first.
    room = native.room(len(streams[0]))
    last = native.room(len(streams[-1]))
    for weights in source.blocks():
        for part_BT, x_PDL in zip(passes, streams, strict=True):
            heads = kernels.room_for_heads(
                len(part_BT), shape.heads, x_PDL.shape[1] // shape.heads, -(-T // LANES)
            )
            one = room if len(x_PDL) == len(streams[0]) else last
            attend = partial(native.attend, heads=heads)
            native.block(unpacked(weights), replace(one, x_PDL=x_PDL), attend)
    del weights  # a block's memory, before the embedding's is taken
    norm, unembed_VD = source.final_norm(), source.unembed_VD()
    parts = []
    for part_BT, x_PDL in zip(passes, streams, strict=True):
        B = len(part_BT)
        each = -(-T // LANES) * LANES
        x_ND = kernels.unpack(x_PDL)[: B * each].view(B, each, -1)[:, start:T].flatten(0, 1)
        x_PDL = panelled(x_ND)
        h = kernels.operand(x_PDL.shape[1], len(x_PDL))
        kernels.norm(x_PDL, (norm,), shape.epsilon, (h,))
        parts.append(kernels.scores(h, unembed_VD, part_BT[:, start + 1 :].flatten()))
    return TokenScores.cat(parts).map(lambda x_N: x_N.view(len(ids_BT), T - start))


def _panelled(x_BTD: torch.Tensor) -> torch.Tensor:
    """Rows of sequences as panels, each sequence filled up with zeros to whole ones."""
    B, T, D = x_BTD.shape
    each = -(-T // LANES) * LANES
    padded_BTD = x_BTD.new_zeros(B, each, D)
    padded_BTD[:, :T] = x_BTD
    return panelled(padded_BTD.flatten(0, 1))


def _sequences_of(tokens: int, ids_BT: torch.Tensor) -> int:
    """How many sequences, in whole panels, have so many tokens; one at least."""
    panels = -(-(ids_BT.shape[1] - 1) // LANES)
    return max(1, tokens // (panels * LANES))


def _one_block(weights: Weights) -> Layout:
    """The map of an arena with a single block, in float32."""
    return Layout(replace(weights.architecture, layers=1, vocab_rows=1), torch.float32.itemsize)


def _copy(to: BlockWeights, source: BlockWeights) -> None:
    """Every weight of a block into another of another dtype."""
    for field in BlockWeights.__dataclass_fields__:
        mine, theirs = getattr(to, field), getattr(source, field)
        if isinstance(mine, Norm):
            mine.weight_D.copy_(theirs.weight_D)
            mine.bias_D.copy_(theirs.bias_D)
        else:
            mine.copy_(theirs)
    torch.add(to.attention_out_bias_D, to.mlp_out_bias_D, out=to.out_bias_D)
