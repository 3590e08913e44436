"""Several sequences in one row: what they share at their beginning is there once.

A row is a tree of tokens, laid out depth first: each token is followed by those of its subtree, and
then by others, which do not see it. [context | answer 1 | answer 2] is such a row, and so are
contexts that share examples. One number a token says it all: up to where it is seen.
B rows, T tokens of a row.
"""

import torch

from pythia_fast.kernels.rotary import Rope


def positions(end_BT: torch.Tensor) -> torch.Tensor:
    """Each token's position in its own sequence, [B, T]: how many tokens it sees before itself."""
    B, T = end_BT.shape
    ended_BT = end_BT.new_zeros(B, T + 1).scatter_add_(1, end_BT, torch.ones_like(end_BT))
    return torch.arange(T, device=end_BT.device) - ended_BT.cumsum(1)[:, :T]


def sight(end_BT: torch.Tensor) -> torch.Tensor:
    """Whether query t sees key s, [B, 1, T, T]: s ≤ t < end of s."""
    query_T1 = torch.arange(end_BT.shape[1], device=end_BT.device)[:, None]
    return ((query_T1 >= query_T1.T) & (query_T1 < end_BT[:, None, :]))[:, None]


def rope_of(rope: Rope, end_BT: torch.Tensor) -> Rope:
    """The tables at the tokens' positions, [B, T, R/2]."""
    position_BT = positions(end_BT)
    return Rope(rope.cos_TP[position_BT], rope.sin_TP[position_BT])
