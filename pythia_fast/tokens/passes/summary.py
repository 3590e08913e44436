"""Numbers about some rows, of which only a block is in memory at a time."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pythia_fast.progress import Bar

if TYPE_CHECKING:
    from pythia_fast.tokens.dataset import TokenDataset


def summary(dataset: "TokenDataset", rows: range, bar: Bar) -> dict[str, Any]:
    """What there is: sequences, tokens, lengths, lowest and highest id, and the fingerprint.

    The rows are read twice, and counted in `bar` each time.
    """
    bar.begin("look at ids", "rows", len(rows))
    tokens, longest = 0, 0
    shortest: int | None = None
    ends: list[int] = []  # the lowest and the highest id
    for rows_n in dataset.blocks(rows):
        lengths_n = dataset.lengths_of(rows_n)
        tokens += int(lengths_n.sum())
        longest = max(longest, int(lengths_n.max()))
        shortest = int(lengths_n.min() if shortest is None else min(shortest, lengths_n.min()))
        ids_nL = dataset.gather(rows_n, dtype=dataset.narrow_dtype)
        ids = ids_nL[np.arange(ids_nL.shape[1]) < lengths_n[:, None]]
        if len(ids) > 0:
            ends = [min([*ends, int(ids.min())]), max([*ends, int(ids.max())])]
        bar.advance(len(rows_n))
    bar.begin("fingerprint", "rows", len(rows))
    return {
        "source": dataset.source,
        "dtype": dataset.dtype,
        "sequences": len(rows),
        "tokens": tokens,
        "shortest": shortest,
        "longest": longest,
        "mean_length": round(tokens / len(rows), 2) if rows else None,
        "lowest_id": ends[0] if ends else None,
        "highest_id": ends[1] if ends else None,
        "fingerprint": dataset.fingerprint(rows, progress=bar),
    }
