"""Where sequences of token ids occur, in rows read a bounded number of tokens at a time.

Legend: n rows of a block, L tokens of the longest one, k ids of a sequence, h hits.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import ArgumentError
from pythia_fast.tokens.ahead import ahead

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pythia_fast.tokens.dataset import TokenDataset
    from pythia_fast.tokens.rows import Rows

PART_TOKENS = 1 << 20  # of a row that is longer, so many columns are looked through at a time
ANCHORS = 16  # of a sequence, so many ids are tried for being rare
SPARSE = 64  # where at most every such place is left, each is looked at by itself


class Found(NamedTuple):
    """What a block of rows holds: for each sequence its hits [h, 2] int64, (row, column)."""

    rows: int  # that are done with it
    hits: tuple[npt.NDArray[np.int64], ...]


def find(
    dataset: "TokenDataset", ids: npt.ArrayLike, rows: "Rows | None" = None
) -> npt.NDArray[np.int64]:
    """See `TokenDataset.find`."""
    blocks = [found.hits[0] for found in search(dataset, [ids], rows)]
    return np.concatenate(blocks) if blocks else np.empty((0, 2), dtype=np.int64)


def search(
    dataset: "TokenDataset", sequences: Sequence[npt.ArrayLike], rows: "Rows | None" = None
) -> Iterator[Found]:
    """Look for several sequences of ids in one pass, block by block in the order of `rows`.

    ArgumentError if there are none, or one that is empty or no integers; RowIndexError as `gather`.
    """
    needles = [_Needle(ids, dataset.narrow_dtype) for ids in sequences]
    if not needles:
        raise ArgumentError("there is no sequence of ids to look for")
    longest = max(needle.length for needle in needles)

    def pieces() -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]]:
        for rows_n in dataset.blocks(rows):
            lengths_n = dataset.lengths_of(rows_n)
            # More than one only of a row that is alone in its block.
            for begin in range(0, max(1, int(lengths_n.max())), PART_TOKENS):
                yield rows_n, lengths_n, begin

    def read(piece: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]) -> _Part:
        rows_n, lengths_n, begin = piece
        # A sequence that begins in this part may end in the next one.
        columns = slice(begin, begin + PART_TOKENS + longest - 1)
        ids_nL = dataset.gather(rows_n, columns=columns, dtype=dataset.narrow_dtype)
        present_n = np.clip(lengths_n - begin, 0, ids_nL.shape[1])
        done = len(rows_n) if lengths_n.max() <= begin + PART_TOKENS else 0
        return _Part(rows_n, begin, ids_nL, present_n, done)

    for part in ahead(read, pieces(), 1):
        yield Found(part.done, tuple(needle.hits(part) for needle in needles))


def spellings(text: str, tokenizer: "Tokenizer | str | os.PathLike[str]") -> dict[str, list[int]]:
    """The ids of `text` as it stands and, where these are others, as it follows a space.

    Inside longer words and beside other punctuation a tokenizer may cut it in further ways.
    ArgumentError for a text that gives no token.
    """
    from pythia_fast.tokens.dataset import TokenDataset  # which itself knows how to find

    spaced = f" {text}"
    ids, spaced_ids = (row.tolist() for row in TokenDataset([text, spaced], tokenizer=tokenizer))
    # Of a byte tokenizer, every hit of the second would be one of the first too.
    if text[:1].isspace() or spaced_ids[-len(ids) :] == ids:
        return {text: ids}
    return {text: ids, spaced: spaced_ids}


class _Part(NamedTuple):
    """Columns from `begin` of some rows; of each row the first `present_n` ids are its own."""

    rows_n: npt.NDArray[np.int64]
    begin: int
    ids_nL: npt.NDArray[Any]
    present_n: npt.NDArray[np.int64]
    done: int  # rows of which this is the last part


class _Needle:
    """One sequence, in the dtype in which the rows are read."""

    def __init__(self, ids: npt.ArrayLike, dtype: np.dtype[Any]) -> None:
        given = np.asarray(ids)
        if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
            raise ArgumentError(
                "a sequence to look for is a vector of at least one integer, got "
                f"{given.dtype} of shape {list(given.shape)}"
            )
        limits = np.iinfo(dtype)
        self.length = len(given)
        self._possible = int(given.min()) >= limits.min and int(given.max()) <= limits.max
        self._ids_k = given.astype(dtype) if self._possible else np.zeros(len(given), dtype)
        self._rarest_first: list[int] | None = None  # offsets, once it is known of some ids

    def hits(self, part: _Part) -> npt.NDArray[np.int64]:
        """Where it begins in a part, without what lies across two rows or in the padding."""
        ids = part.ids_nL.reshape(-1)
        if not self._possible or len(ids) < self.length:
            return np.empty((0, 2), dtype=np.int64)
        row_h, column_h = np.divmod(self._starts(ids), part.ids_nL.shape[1])
        kept_h = (column_h + self.length <= part.present_n[row_h]) & (column_h < PART_TOKENS)
        row_h, column_h = row_h[kept_h], column_h[kept_h]
        return np.stack([part.rows_n[row_h], column_h + part.begin], axis=1)

    def _starts(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Where it begins in a vector."""
        if self._rarest_first is None:
            tried = self._ids_k[:ANCHORS]
            counts = [np.count_nonzero(ids == each) for each in tried]
            self._rarest_first = [*np.argsort(counts).tolist(), *range(len(tried), self.length)]
        places = len(ids) - self.length + 1  # at which it has room
        rarest, *others = self._rarest_first
        here = ids[rarest : rarest + places] == self._ids_k[rarest]
        while others and np.count_nonzero(here) > places // SPARSE:
            offset = others.pop(0)
            here &= ids[offset : offset + places] == self._ids_k[offset]
        start_h = np.flatnonzero(here).astype(np.int64, copy=False)
        for offset in others:
            start_h = start_h[ids[start_h + offset] == self._ids_k[offset]]
        return start_h
