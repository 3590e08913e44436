"""What a model is asked about: tokens, checked before any work.

B batch, T time.
"""

import numpy as np
import torch

from pythia_fast.errors import ArgumentError, TokenRangeError
from pythia_fast.suite.architecture import Architecture

Ids = torch.Tensor | np.ndarray | list[list[int]]


def checked_ids(
    ids: Ids, architecture: Architecture, device: torch.device, *, labels: int
) -> torch.Tensor:
    """The ids as int64 [B, T] on a device, T at most max_positions and `labels` more.

    ArgumentError for anything but integers [B, T], TokenRangeError for an id that is not in the
    embedding.
    """
    if isinstance(ids, np.ndarray) and not ids.flags.writeable:
        ids = ids.copy()  # torch shares memory, and warns where it may not write
    try:
        ids_BT = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"ids are integers [B, T], sequences of one length in a batch: {error}"
        ) from error
    integer = not (ids_BT.is_floating_point() or ids_BT.is_complex())
    if ids_BT.ndim != 2 or not integer or ids_BT.dtype == torch.bool:
        raise ArgumentError(
            f"ids are integers [B, T], got {ids_BT.dtype} of shape {tuple(ids_BT.shape)}"
        )
    limit = architecture.max_positions + labels
    vocab_rows = architecture.vocab_rows
    if not ids_BT.numel() or ids_BT.shape[1] > limit:
        raise ArgumentError(
            f"ids need at least one sequence of 1 to {limit} tokens, got shape "
            f"{tuple(ids_BT.shape)}"
        )
    ids_BT = ids_BT.to(torch.int64)
    low, high = ids_BT.aminmax()
    if low < 0 or high >= vocab_rows:
        row, offset = ((ids_BT < 0) | (ids_BT >= vocab_rows)).nonzero()[0].tolist()
        raise TokenRangeError(row, offset, int(ids_BT[row, offset]), vocab_rows)
    return ids_BT.to(device)


def target_count(ids_BT: torch.Tensor, start: int) -> int:
    """How many of a sequence's tokens are targets ids[:, start + 1:].

    ArgumentError if `start` is no position.
    """
    T = ids_BT.shape[1]
    if not 0 <= start < T:
        raise ArgumentError(f"start is a position, 0 to {T - 1}, got {start}")
    return T - 1 - start
