"""What a model is asked about: tokens, checked before any work.

B batch, T time.
"""

import operator
import weakref

import numpy as np
import torch

from pythia_fast.errors import ArgumentError, TokenRangeError
from pythia_fast.kernels.tree import positions
from pythia_fast.model.streams import sent
from pythia_fast.suite.architecture import Architecture

Ids = torch.Tensor | np.ndarray | list[list[int]]


def checked_ids(
    ids: Ids,
    architecture: Architecture,
    device: torch.device,
    *,
    labels: int,
    trees: bool = False,
    in_range: bool = False,
) -> torch.Tensor:
    """The ids as int64 [B, T] on a device, T at most max_positions and `labels` more.

    Rows that are `trees` may be longer: what `checked_ends` looks at. Ids that are known to be
    `in_range` are not looked at.

    ArgumentError for anything but integers [B, T], TokenRangeError for an id that is not in the
    embedding.
    """
    ids_BT = _integers(ids)
    limit = architecture.max_positions + labels
    if not ids_BT.numel() or (ids_BT.shape[1] > limit and not trees):
        raise ArgumentError(
            f"ids need at least one sequence of 1 to {limit} tokens, got shape "
            f"{tuple(ids_BT.shape)}"
        )
    if not in_range:
        _check_range(ids_BT, architecture.vocab_rows)
    return ids_BT.to(device)


class PlacedIds:
    """The ids that were last put onto a GPU, where nobody need look at them again.

    To look at a number of a GPU is to wait for all that it was given before.
    """

    def __init__(self) -> None:
        self._last: tuple[weakref.ref[torch.Tensor], int] | None = None

    def place(self, ids: Ids, vocab_rows: int, device: torch.device) -> torch.Tensor:
        """The ids as int64 [B, T] on a device. The errors of `checked_ids`, but of any length."""
        ids_BT = _integers(ids)
        if ids_BT.numel():
            _check_range(ids_BT, vocab_rows)
        placed_BT = sent(ids_BT, device)
        # Of what was not copied others may share the memory; of inference tensors writes leave no
        # trace.
        if placed_BT.device != ids_BT.device and not placed_BT.is_inference():
            self._last = weakref.ref(placed_BT), placed_BT._version
        return placed_BT

    def are(self, ids: Ids) -> bool:
        """Whether these are the very ones, and nobody has written to them."""
        if self._last is None:
            return False
        last, version = self._last
        return isinstance(ids, torch.Tensor) and last() is ids and ids._version == version


def _integers(ids: Ids) -> torch.Tensor:
    """As int64 [B, T]. ArgumentError for anything else."""
    if isinstance(ids, np.ndarray) and not ids.flags.writeable:
        ids = ids.copy()  # torch shares memory, and warns where it may not write
    try:
        ids_BT = ids if isinstance(ids, torch.Tensor) else torch.as_tensor(ids, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"ids are integers [B, T], sequences of one length in a batch: {error}"
        ) from error
    integer = not (ids_BT.is_floating_point() or ids_BT.is_complex())
    if ids_BT.ndim != 2 or not integer or ids_BT.dtype == torch.bool:
        one = ": a single sequence is ids[None], or [ids] of a list" if ids_BT.ndim == 1 else ""
        raise ArgumentError(
            f"ids are integers [B, T], got {ids_BT.dtype} of shape {tuple(ids_BT.shape)}{one}"
        )
    return ids_BT.to(torch.int64)


def _check_range(ids_BT: torch.Tensor, vocab_rows: int) -> None:
    low, high = ids_BT.aminmax()
    if low < 0 or high >= vocab_rows:
        row, offset = ((ids_BT < 0) | (ids_BT >= vocab_rows)).nonzero()[0].tolist()
        raise TokenRangeError(row, offset, int(ids_BT[row, offset]), vocab_rows)


def checked_ends(end_BT: torch.Tensor, ids_BT: torch.Tensor, max_positions: int) -> torch.Tensor:
    """Up to where each token is seen, int64 [B, T], on the ids' device.

    ArgumentError for an end that is not beyond its token, a first token that is not seen by all,
    or more than max_positions tokens to a sequence.
    """
    B, T = ids_BT.shape
    if end_BT.dtype != torch.int64 or end_BT.shape != ids_BT.shape:
        raise ArgumentError(
            f"ends are torch.int64 of shape {(B, T)}, one a token, got {end_BT.dtype} of "
            f"{tuple(end_BT.shape)}"
        )
    end_BT = end_BT.to(ids_BT.device)
    lowest_T = torch.arange(1, T + 1, device=ids_BT.device)
    lowest_T[0] = T
    wrong_BT = (end_BT < lowest_T) | (end_BT > T)
    if bool(wrong_BT.any()):
        row, token = wrong_BT.nonzero()[0].tolist()
        raise ArgumentError(
            f"token {token} of row {row} is seen up to {int(lowest_T[token])} at least and {T} at "
            f"most, not up to {int(end_BT[row, token])}"
        )
    longest = int(positions(end_BT).max()) + 1
    if longest > max_positions:
        raise ArgumentError(
            f"a row holds a sequence of {longest} tokens, but the model takes {max_positions}"
        )
    return end_BT


def target_count(ids_BT: torch.Tensor, start: int) -> int:
    """How many of a sequence's tokens are targets ids[:, start + 1:].

    ArgumentError if `start` is no position.
    """
    T = ids_BT.shape[1]
    try:
        start = operator.index(start)
    except TypeError as error:
        raise ArgumentError(f"start is a position, 0 to {T - 1}, not {start!r}") from error
    if not 0 <= start < T:
        raise ArgumentError(f"start is a position, 0 to {T - 1}, got {start}")
    return T - 1 - start
