"""Continuing sequences with a cache of keys and values, natively or by torch.

B sequences of equal length, T tokens of each, P panels, L = 16 lanes, D width, C = 3D,
V vocabulary rows. The weights must not change while a decoder is in use.
"""

from functools import partial
from typing import Protocol

import torch
from torch.nn.functional import linear

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.panels import LANES, KeyValues, Operand, panelled, panels_of
from pythia_fast.model import neox
from pythia_fast.model.apart import apart
from pythia_fast.model.native import Native
from pythia_fast.model.packed import Packed, PackedBlock
from pythia_fast.model.parameters import Parameters
from pythia_fast.model.weights import Weights
from pythia_fast.suite.architecture import Architecture

PROMPT_TOKENS = 4096
"""Tokens of prompts that go through the native kernels at a time."""

FEW_SEQUENCES = 4
"""Torch multiplies so many tokens by float32 weights in the time that reading these takes; the
kernels pack weights for sixteen at least."""


class Decoder(Protocol):
    """B sequences so far, and what the model says comes next."""

    def feed(self, ids_BT: torch.Tensor) -> None:
        """Append T tokens to each sequence. ArgumentError if a decoder has no room for them."""

    def keep(self, row_B: torch.Tensor) -> None:
        """Go on with these of the sequences only, [B] int64, in their order; after a `feed`."""

    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The likeliest next token, [B] int64, and its lead in logits over the second, float32."""

    def logits(self) -> torch.Tensor:
        """Of the next token, [B, V] float32."""


class NativeDecoder:
    """Keys and values as the kernels pack them; a step's lanes are sequences.

    A sequence's results do not depend on the others, nor on the number of threads.
    """

    def __init__(self, native: Native, weights: Weights, sequences: int, positions: int) -> None:
        self._native, self._weights = native, weights
        self._sequences, self._positions = sequences, positions
        self._length = 0
        a, kernels = native.architecture, native.kernels
        self._caches = [
            kernels.room_for_keys(sequences, a.heads, a.head_dim, positions)
            for _ in range(a.layers)
        ]
        self._room = native.room(-(-sequences // LANES))

    @apart
    def feed(self, ids_BT: torch.Tensor) -> None:
        """Append T tokens to each sequence; ArgumentError if there is no room for them."""
        if ids_BT.shape[1] > self._positions - self._length:
            raise ArgumentError(
                f"{ids_BT.shape[1]} tokens after {self._length} are more than the "
                f"{self._positions} positions that the decoder was made for"
            )
        w = self._packed()
        if self._length == 0:
            self._prompt(ids_BT, w)
            return
        for ids_B in ids_BT.unbind(1):
            self._step(ids_B, w)

    @apart
    def keep(self, row_B: torch.Tensor) -> None:
        """Go on with these of the sequences only; their keys and values move together."""
        x_BD = self._native.kernels.unpack(self._room.x_PDL)[row_B]
        self._sequences = len(row_B)
        self._caches = [cache.at(row_B) for cache in self._caches]
        self._room = self._native.room(-(-self._sequences // LANES))
        self._room.x_PDL.copy_(panelled(x_BD))

    @apart
    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The likeliest next token and its lead; NaN where a logit is. Logits are never stored."""
        w = self._packed()
        h = self._native.final(self._room.x_PDL, w)
        nothing_B = torch.zeros(self._sequences, dtype=torch.int64, device="cpu")
        found = self._native.kernels.scores(h, w.unembed, nothing_B)
        return found.argmax, found.margin

    @apart
    def logits(self) -> torch.Tensor:
        """Of the next token, [B, V] float32."""
        kernels, w = self._native.kernels, self._packed()
        h = self._native.final(self._room.x_PDL, w)
        logits_PVL = kernels.project(h, w.unembed)
        return kernels.unpack(logits_PVL[: -(-self._sequences // LANES)])[: self._sequences]

    def _packed(self) -> Packed:
        """The weights as they are now: others may have been packed in their place since."""
        return self._native.packed(self._weights)

    def _prompt(self, ids_BT: torch.Tensor, w: Packed) -> None:
        """All positions at once, some sequences at a time; the last position's x is kept."""
        T = ids_BT.shape[1]
        panels = -(-T // LANES)
        each = max(1, PROMPT_TOKENS // (panels * LANES))
        shape = self._sequences, self._native.architecture.width
        last_BD = torch.empty(shape, dtype=torch.float32, device="cpu")
        for first in range(0, self._sequences, each):
            rows = slice(first, min(first + each, self._sequences))
            count = rows.stop - rows.start
            room = self._native.room(count * panels)
            self._native.kernels.embed(panels_of(ids_BT[rows]), w.embed_VD, room.x_PDL)
            for block, cache in zip(w.layers, self._caches, strict=True):
                heads = self._native.kernels.heads_into(cache.of(rows), panels)
                self._native.block(block, room, partial(self._native.attend, heads=heads))
            x_BPDL = room.x_PDL[: count * panels].view(count, panels, -1, LANES)
            last_BD[rows] = x_BPDL[:, (T - 1) // LANES, :, (T - 1) % LANES]
        self._room.x_PDL.copy_(panelled(last_BD))
        self._length = T

    def _step(self, ids_B: torch.Tensor, w: Packed) -> None:
        ids_PL = panels_of(ids_B[None])
        self._native.kernels.embed(ids_PL, w.embed_VD, self._room.x_PDL)
        for block, cache in zip(w.layers, self._caches, strict=True):
            self._native.block(block, self._room, partial(self._attend, cache=cache))
        self._length += 1

    def _attend(self, a: Operand, w: PackedBlock, out: Operand, cache: KeyValues) -> None:
        kernels = self._native.kernels
        qkv_PCL = kernels.project(a, w.weights.qkv_CD, w.weights.qkv_bias_C)
        kernels.decode(qkv_PCL, self._native.rope, self._length, cache, out)


class TorchDecoder:
    """The same by torch's operations, on any device."""

    def __init__(
        self,
        architecture: Architecture,
        shape: neox.Shape,
        weights: Parameters,
        sequences: int,
        positions: int,
    ) -> None:
        a, like = architecture, weights.embed_VD
        keys_values = like.new_empty(a.layers, 2, sequences, a.heads, positions, a.head_dim)
        self._cache = neox.Cache(keys_values)
        self._shape, self._weights = shape, weights
        self._last_BD = like.new_empty(sequences, a.width)

    @apart
    def feed(self, ids_BT: torch.Tensor) -> None:
        """Append T tokens to each sequence."""
        self._last_BD = neox.hidden(ids_BT, self._weights, self._shape, self._cache)[:, -1]

    @apart
    def keep(self, row_B: torch.Tensor) -> None:
        """Go on with these of the sequences only; their keys and values move together."""
        self._cache.keys_values = self._cache.keys_values[:, :, row_B]
        self._last_BD = self._last_BD[row_B]

    @apart
    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The likeliest next token and its lead."""
        logits_BV = self.logits()
        best_B2 = logits_BV.topk(2, dim=-1).values
        # Not topk's index: equal logits go to the lowest id.
        return logits_BV.argmax(-1), best_B2[:, 0] - best_B2[:, 1]

    @apart
    def logits(self) -> torch.Tensor:
        """Of the next token, [B, V] float32."""
        return linear(self._last_BD, self._weights.unembed_VD).float()
