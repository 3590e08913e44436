"""Panels of sixteen tokens, in which the native kernels keep what they work on.

B batch, T time, N tokens, P panels, L = 16 lanes, D width, H heads, R rotary dims, X a sequence's
keys or values in the kernels' own layout.
"""

from dataclasses import dataclass

import torch

from pythia_fast.kernels.rotary import Rope

LANES = 16


@dataclass(frozen=True, slots=True)
class Operand:
    """What a product reads: `rows` features of the tokens of P panels, in the arithmetic's form."""

    data: torch.Tensor
    rows: int
    panels: int


@dataclass(frozen=True, slots=True)
class Heads:
    """Queries, keys and values of [B, H], laid out for attention; P panels to a sequence."""

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    shape: tuple[int, int, int, int]
    """Sequences, heads, head width, panels of a sequence."""


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Keys and values of B sequences, a row each, with room for `positions` of them."""

    keys_BX: torch.Tensor
    values_BX: torch.Tensor
    heads: int
    width: int
    """Of a head."""
    positions: int

    def at(self, row_B: torch.Tensor) -> "KeyValues":
        """Those of some of the sequences, [B] int64, copied."""
        keys_BX, values_BX = self.keys_BX[row_B], self.values_BX[row_B]
        return KeyValues(keys_BX, values_BX, self.heads, self.width, self.positions)

    def of(self, rows: slice) -> "KeyValues":
        """Those of some of the sequences, in the same memory."""
        keys_BX, values_BX = self.keys_BX[rows], self.values_BX[rows]
        return KeyValues(keys_BX, values_BX, self.heads, self.width, self.positions)


class PanelRope:
    """Cosines and sines [R/2, positions] for whole panels: one vector for sixteen positions.

    Of tables [T, R/2], the positions of every sequence; of [B, T, R/2], those of one sequence after
    the other, each filled up to whole panels.
    """

    def __init__(self, rope: Rope) -> None:
        self.each_its_own = rope.cos_TP.ndim == 3
        self.rotary_dims = 2 * rope.cos_TP.shape[-1]
        self.cosines, self.sines = (
            _whole_panels(table if self.each_its_own else table[None])
            for table in (rope.cos_TP, rope.sin_TP)
        )
        self.positions = self.cosines.shape[1]


def _whole_panels(table_BTR: torch.Tensor) -> torch.Tensor:
    B, T, pairs = table_BTR.shape
    whole_RBX = table_BTR.new_zeros(pairs, B, -(-T // LANES) * LANES, dtype=torch.float32)
    whole_RBX[:, :, :T] = table_BTR.permute(2, 0, 1)
    return whole_RBX.flatten(1)


def ends_of(end_BT: torch.Tensor) -> torch.Tensor:
    """Up to where each token of a tree is seen, [B, T], filled up to whole panels, [B, X].

    What fills up sees the first token and what else goes on to the row's end, and is seen by none.
    """
    B, T = end_BT.shape
    whole = -(-T // LANES) * LANES
    end_BX = torch.arange(1, whole + 1, device=end_BT.device).repeat(B, 1)
    end_BX[:, :T] = torch.where(end_BT == T, whole, end_BT)
    return end_BX


def panels_of(ids_BT: torch.Tensor) -> torch.Tensor:
    """Ids as panels [P, L]: each sequence is filled up with 0 to whole panels, and P is even."""
    B, T = ids_BT.shape
    each = -(-T // LANES)
    total = -(-B * each // 2) * 2
    ids_PL = ids_BT.new_zeros(total, LANES)
    ids_PL[: B * each].view(B, each * LANES)[:, :T] = ids_BT
    return ids_PL


def panelled(h_ND: torch.Tensor) -> torch.Tensor:
    """Rows as float32 panels [P, D, L], filled up with rows of zeros to an even P."""
    N, D = h_ND.shape
    panels = -(-N // (2 * LANES)) * 2
    x_PDL = h_ND.new_zeros(panels, D, LANES, dtype=torch.float32)
    whole = N // LANES
    x_PDL[:whole] = h_ND[: whole * LANES].view(whole, LANES, D).transpose(1, 2)
    if N % LANES:
        x_PDL[whole, :, : N % LANES] = h_ND[whole * LANES :].T
    return x_PDL
