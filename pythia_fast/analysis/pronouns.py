"""Data as of the gender intervention: masculine pronouns become feminine, token by token.

The suite's intervened models (arXiv:2304.01373, section 4.1) are the deduped ones, trained again
from a late checkpoint on: the last 7% of the steps, of 1.4b also the last 21%, with the data that
they had seen there, but for the pronouns. A token becomes another, so that rows keep their lengths
and places, and everything else is as before. What is not one token stays: "himself", and a pronoun
after several spaces, which Pythia's tokenizer takes for a token of their own.

Legend: n rows of a block, L tokens of the longest one, s ids to swap in it, V ids of the
tokenizer, P pairs.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError, RowIndexError, WriteError
from pythia_fast.publish import write_error, writing
from pythia_fast.suite import SEQUENCES_PER_STEP
from pythia_fast.tokens import TokenDataset, load_tokenizer, seen
from pythia_fast.tokens.ahead import ahead
from pythia_fast.tokens.files import Files, pair
from pythia_fast.tokens.in_order import InOrder
from pythia_fast.tokens.passes.edges import DIGIT, LETTER, edges, partial
from pythia_fast.tokens.rows import Rows, chosen_rows
from pythia_fast.tokens.sources import plain
from pythia_fast.tokens.steps import require_rows
from pythia_fast.tokens.write import DTYPE_CODES, TokenWriter, is_half_published

FEMININE: Mapping[str, str] = MappingProxyType(
    {
        " he": " she",
        " him": " her",
        " his": " her",
        " He": " She",
        " Him": " Her",
        " His": " Her",
    }
)
"""Our pairs. English has " her" for both " him" and " his", so that there is no way
back."""
_WORD = LETTER | DIGIT


@dataclass(frozen=True, slots=True)
class Swapped:
    """What `swap_pronouns` wrote."""

    dtype: str
    rows: int
    tokens: int
    rows_changed: int
    counts: dict[str, int]
    """How often each text was replaced, by `pairs`."""

    @property
    def swaps(self) -> int:
        """Tokens that became others."""
        return sum(self.counts.values())


def swap_pronouns(
    source: str | os.PathLike[str] | TokenDataset,
    target: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | Tokenizer,
    after_step: int = 0,
    batch: int = SEQUENCES_PER_STEP,
    rows: Rows | None = None,
    pairs: Mapping[str, str] = FEMININE,
    whole_words: bool = True,
    overwrite: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Swapped:
    """Write `source` with its pronouns swapped as target.idx and target.bin.

    `source` is data in training order, as a prefix or a TokenDataset. Training that goes on from
    checkpoint step`after_step` sees the swapped rows: those before row batch·after_step are written
    as they are. With 133,000 these are the last 7% of the suite's 143,000 steps, with 113,000 the
    last 21%. `rows` writes only some (by default all), in that order; which of them are swapped is
    still by their numbers in `source`.

    A text of `pairs` and what replaces it must each be a single token. With `whole_words`, our
    default, it is not replaced where a letter or digit joins it, as in " he" + "mat": such tokens
    are pieces of other words. A part of a character joins too, since it is most often one of a
    letter that is cut into bytes. Without, every such token is replaced. Which of the two the
    suite's intervention did is not published. Rows are read and written block by block: memory does
    not grow with them.

    ArgumentError for pairs that are no single tokens, for a target that is the source, for an id
    beyond int32, and without `overwrite` where a pair is there; RowIndexError for rows or a step
    that the data does not have, and for no rows; else as `write_tokens`. The new pair appears when
    it is whole; its ids are uint16 where the source's are, else int32. `progress` is called with
    the rows that are done, and all of them.
    """
    dataset = source if isinstance(source, TokenDataset) else TokenDataset(source)
    encoder = plain(load_tokenizer(tokenizer))
    exchange = _Exchange(encoder, pairs, whole_words)
    asked = f"what step {after_step} has seen"
    first = require_rows(seen(after_step, batch), len(dataset), batch, asked).stop
    wanted = chosen_rows(rows, len(dataset))
    if not len(wanted):
        raise RowIndexError(f"no row is chosen of the {len(dataset):,} that there are")
    _check_target(dataset, target, overwrite)
    kept = dataset.narrow_dtype
    dtype = kept if kept.name in DTYPE_CODES else np.dtype(np.int32)
    counts = np.zeros(len(pairs), np.int64)
    changed = 0
    with _refusals(target), TokenWriter(target, dtype=dtype.name) as writer:
        for rows_n, lengths_n, ids in ahead(_reader(dataset, dtype), dataset.blocks(rows), 1):
            found_s = exchange.find(ids, lengths_n)
            row_s = np.searchsorted(np.cumsum(lengths_n), found_s, side="right")
            found_s, row_s = (each[rows_n[row_s] >= first] for each in (found_s, row_s))
            before_s = ids[found_s]
            ids[found_s] = exchange.replace(before_s)
            counts += exchange.count(before_s)
            changed += len(np.unique(row_s))
            writer.append(ids.astype(writer.dtype, copy=False), lengths_n)
            if progress is not None:
                progress(writer.rows, len(wanted))
    found = dict(zip(pairs, counts.tolist(), strict=True))
    return Swapped(dtype.name, writer.rows, writer.tokens, changed, found)


@contextmanager
def _refusals(target: str | os.PathLike[str]) -> Iterator[None]:
    """What the system refuses, in the words of all files that are written."""
    try:
        yield
    except WriteError as error:
        raise write_error(pair(target)[1], error) from error


class _Exchange:
    """Which ids become which."""

    def __init__(self, tokenizer: Tokenizer, pairs: Mapping[str, str], whole_words: bool) -> None:
        if not pairs:
            raise ArgumentError("there are no pairs to swap: give a mapping of texts to texts")
        self._from_p = np.array([_single(tokenizer, text) for text in pairs])
        to_p = np.array([_single(tokenizer, text) for text in pairs.values()])
        if len(set(self._from_p.tolist())) < len(pairs):
            raise ArgumentError(
                f"two of the texts are the same token: {', '.join(map(repr, pairs))}"
            )
        known, parts = edges(tokenizer), partial(tokenizer)
        self._limit = limit = len(known.begins)
        self._new_V = np.arange(limit)
        self._new_V[self._from_p] = to_p
        # One more for all ids that the tokenizer does not have.
        self._is_old_V = np.zeros(limit + 1, bool)
        self._is_old_V[self._from_p] = True
        self._begins_V = np.append((known.begins & _WORD != 0) | (parts.begins != 0), False)
        self._ends_V = np.append((known.ends & _WORD != 0) | (parts.ends != 0), False)
        self._whole_words = whole_words

    def find(self, ids: npt.NDArray[Any], lengths_n: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Which ids of rows that lie one after the other are to be replaced, ascending."""
        known = np.minimum(ids.view(f"u{ids.dtype.itemsize}"), self._limit)
        found_s = np.flatnonzero(self._is_old_V[known])
        if not self._whole_words or not len(found_s):
            return found_s
        ends_n = np.cumsum(lengths_n)
        first_s = np.isin(found_s, ends_n - lengths_n)
        last_s = np.isin(found_s + 1, ends_n)
        # A text that itself begins with a space begins a word whatever is before it.
        left_s = self._begins_V[known[found_s]] & self._ends_V[known[found_s - 1]] & ~first_s
        right_s = self._begins_V[known[np.minimum(found_s + 1, len(ids) - 1)]] & ~last_s
        joined_s = left_s | (self._ends_V[known[found_s]] & right_s)
        kept_s: npt.NDArray[np.intp] = found_s[~joined_s]
        return kept_s

    def replace(self, ids_s: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What they become."""
        new_s: npt.NDArray[Any] = self._new_V[ids_s]
        return new_s

    def count(self, ids_s: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """How many of each pair, [P]."""
        counts_P: npt.NDArray[np.int64] = np.bincount(ids_s, minlength=self._limit)[self._from_p]
        return counts_P


def _single(tokenizer: Tokenizer, text: str) -> int:
    if not isinstance(text, str):
        raise ArgumentError(f"pairs are texts, got {text!r}")
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) != 1:
        raise ArgumentError(
            f"{text!r} is {len(ids)} tokens here ({', '.join(map(str, ids))}): only a single token "
            "can be swapped for another without moving what follows. Leave this pair out"
        )
    return ids[0]


_Block: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[Any]]


def _reader(
    dataset: TokenDataset, dtype: np.dtype[Any]
) -> Callable[[npt.NDArray[np.int64]], _Block]:
    """From the numbers of rows to (numbers, lengths, ids one row after the other)."""

    def read(rows_n: npt.NDArray[np.int64]) -> _Block:
        lengths_n = dataset.lengths_of(rows_n)
        ids_nL = dataset.gather(rows_n, dtype=dtype)
        if (lengths_n == ids_nL.shape[1]).all():
            return rows_n, lengths_n, ids_nL.reshape(-1)
        return rows_n, lengths_n, ids_nL[np.arange(ids_nL.shape[1]) < lengths_n[:, None]]

    return read


def _check_target(dataset: TokenDataset, target: str | os.PathLike[str], overwrite: bool) -> None:
    with writing(pair(target)[1]):
        new = [path.resolve() for path in pair(target)]
        there = [path for path in new if path.exists()]
    origin = dataset._origin
    raw = origin.raw if isinstance(origin, InOrder) else origin
    for path in (raw.index, *raw.bins) if isinstance(raw, Files) else ():
        if path.resolve() in new:
            raise ArgumentError(f"{path} is what is read: give another prefix for the new pair")
    if there and not overwrite and not is_half_published(target):
        raise ArgumentError(
            f"{there[0]} is there already: give another prefix, or --force (overwrite=True) to "
            "replace it"
        )
