"""Continuing sequences on a GPU: a cache that stays where it is, and one graph for every step.

The position lies on the device, so that the same recorded step serves all of them. Sequences that
are finished leave the batch while their keys and values stay in the cache: each sequence that goes
on says which row of it is its own. Steps are recorded for powers of two of sequences; what fills up
writes to a row that is nobody's.

B sequences of equal length, T tokens of each, D width, C = 3D, P positions, V vocabulary rows.
"""

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.gpu.attention import rotary_attention
from pythia_fast.kernels.gpu.cross_entropy import linear_scores
from pythia_fast.kernels.gpu.decode import decode_attention
from pythia_fast.model.apart import apart
from pythia_fast.model.gpu import Gpu, by_sequence
from pythia_fast.model.passes import finish
from pythia_fast.model.weights import Weights


class GpuDecoder:
    """Keys and values of so many sequences, of up to `positions` tokens.

    A sequence's results do not depend on the others.
    """

    def __init__(self, gpu: Gpu, weights: Weights, sequences: int, positions: int) -> None:
        a, like = gpu.architecture, weights.flat
        self._gpu, self._weights, self._positions = gpu, weights, positions
        room = (a.layers, 2, sequences + 1, a.heads, positions, a.head_dim)
        self._cache = like.new_zeros(room)
        self._nobodys = sequences
        self._slot_B = torch.arange(sequences, dtype=torch.int32, device=like.device)
        self._h_BD = like.new_empty(sequences, a.width)
        self._length = 0

    @apart
    def feed(self, ids_BT: torch.Tensor) -> None:
        """Append T tokens to each sequence; ArgumentError if there is no room for them."""
        if ids_BT.shape[1] > self._positions - self._length:
            raise ArgumentError(
                f"{ids_BT.shape[1]} tokens after {self._length} are more than the "
                f"{self._positions} positions that the decoder was made for"
            )
        with self._gpu.turn:
            if self._length == 0:
                self._prompt(ids_BT)
            else:
                for ids_B in ids_BT.unbind(1):
                    self._step(ids_B)

    @apart
    def keep(self, row_B: torch.Tensor) -> None:
        """Go on with these of the sequences only, [B] int64; the others' rows lie idle."""
        self._slot_B, self._h_BD = self._slot_B[row_B], self._h_BD[row_B]

    @apart
    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The likeliest next token and its lead; NaN where a logit is. Logits are never stored."""

        def work(h_BD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            nothing_B = torch.zeros(len(h_BD), dtype=torch.int64, device=h_BD.device)
            found = linear_scores(h_BD, self._weights.unembed_VD, nothing_B)
            return found.argmax, found.margin

        with self._gpu.turn:
            key = "best", len(self._h_BD)
            argmax_B, margin_B = self._gpu.graphs.run(key, self._weights, work, self._h_BD)
            return argmax_B, margin_B

    @apart
    def logits(self) -> torch.Tensor:
        """Of the next token, [B, V] float32."""
        with self._gpu.turn:
            logits_BV = self._h_BD.new_empty(len(self._h_BD), len(self._weights.unembed_VD))
            self._gpu.project(self._h_BD, self._weights, logits_BV)
            return logits_BV.float()

    def _prompt(self, ids_BT: torch.Tensor) -> None:
        """All positions at once, some sequences at a time; the last position's state is kept."""
        gpu, weights, T = self._gpu, self._weights, ids_BT.shape[1]
        rope, heads = gpu.rope.at(0, T), gpu.architecture.heads

        def work(rows: slice) -> None:
            room = gpu.embed(ids_BT[rows].flatten(), weights)
            for layer, w in enumerate(weights.unawaited.layers):
                weights.await_layer(layer)
                cache = self._cache[layer][:, rows]

                def attend(
                    qkv_NC: torch.Tensor, out_ND: torch.Tensor, cache: torch.Tensor = cache
                ) -> None:
                    rotary_attention(
                        *(by_sequence(qkv_NC, T), heads, rope, by_sequence(out_ND, T)), cache=cache
                    )

                gpu.block(room, w, attend)
            last_BD = room.x_ND.view(-1, T, room.x_ND.shape[1])[:, -1]
            self._h_BD[rows] = gpu.final(last_BD, weights, room.norm1_ND[: len(last_BD)])

        finish(gpu.in_passes(len(ids_BT), T, work))
        self._length = T

    def _step(self, ids_B: torch.Tensor) -> None:
        B, device = len(ids_B), ids_B.device
        filled = min(1 << (B - 1).bit_length(), self._cache.shape[2])
        ids = torch.zeros(filled, dtype=torch.int64, device=device)
        slots = torch.full((filled,), self._nobodys, dtype=torch.int32, device=device)
        ids[:B], slots[:B] = ids_B, self._slot_B
        position = torch.full((1,), self._length, dtype=torch.int32, device=device)
        self._gpu.room(filled)
        # The cache is part of the key: a step is recorded for its memory.
        key = "step", filled, self._cache.data_ptr(), tuple(self._cache.shape)
        (h_BD,) = self._gpu.graphs.run(key, self._weights, self._work, ids, slots, position)
        self._h_BD = h_BD[:B]
        self._length += 1

    def _work(
        self, ids_B: torch.Tensor, slot_B: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor]:
        gpu, weights = self._gpu, self._weights
        rope, heads = gpu.rope.at(0, self._cache.shape[4]), gpu.architecture.heads
        room = gpu.embed(ids_B, weights)
        for layer, w in enumerate(weights.unawaited.layers):
            weights.await_layer(layer)

            def attend(
                qkv_BC: torch.Tensor, out_BD: torch.Tensor, cache: torch.Tensor = self._cache[layer]
            ) -> None:
                decode_attention(qkv_BC, heads, rope, cache, slot_B, position, out_BD)

            gpu.block(room, w, attend)
        return (gpu.final(room.x_ND, weights, torch.empty_like(room.norm1_ND)),)
