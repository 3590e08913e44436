"""Rotary position embedding of the first R dimensions of each head (arXiv:2104.09864).

B batch, T time, H heads, K head width, C = 3HK, R rotated dimensions, P = R / 2 pairs.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Rope:
    """Cosine and sine of every position's angles, [T, R/2] each, in float32.

    Or [B, T, R/2], where each sequence has positions of its own.
    """

    cos_TP: torch.Tensor
    sin_TP: torch.Tensor

    def at(self, start: int, length: int) -> "Rope":
        """The tables of positions start to start + length, as views."""
        return Rope(self.cos_TP[start : start + length], self.sin_TP[start : start + length])


def rope_tables(
    positions: int, rotary_dims: int, base: float, device: torch.device | str = "cpu"
) -> Rope:
    """Angles p · base^(-2i/R), computed in float32 step by step as transformers does.

    At position 2047 the angle's rounding is 1e-4 rad: "more exact" tables would be another model.
    """
    exponents_P = _count(0, rotary_dims, 2) / max(rotary_dims, 1)
    frequencies_P = 1.0 / (base**exponents_P)
    angles_TP = _count(0, positions, 1)[:, None] * frequencies_P
    return Rope(angles_TP.cos().to(device), angles_TP.sin().to(device))


def _count(start: int, end: int, by: int) -> torch.Tensor:
    return torch.arange(start, end, by, dtype=torch.float32, device="cpu")


def rotate_(qkv_BTC: torch.Tensor, heads: int, rope: Rope) -> torch.Tensor:
    """Rotate queries and keys inside the projection laid out [H, 3, K], in place; returns it.

    The products are float32 (float64 for float64) whatever the dtype. Autograd sees through it.
    """
    B, T, C = qkv_BTC.shape
    half = rope.cos_TP.shape[-1]
    if not half:
        return qkv_BTC
    wide = torch.promote_types(qkv_BTC.dtype, torch.float32)
    cos = rope.cos_TP.to(wide)[..., None, None, :]
    sin = rope.sin_TP.to(wide)[..., None, None, :]
    qk_BTH2R = qkv_BTC.view(B, T, heads, 3, C // (3 * heads))[:, :, :, :2, : 2 * half]
    first, second = qk_BTH2R.to(wide).chunk(2, dim=-1)
    qk_BTH2R.copy_(torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1))
    return qkv_BTC
