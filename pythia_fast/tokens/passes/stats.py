"""How often each token occurs in token data, and how long its rows are; in constant memory."""

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError
from pythia_fast.publish import published, writing
from pythia_fast.tokens.dataset import BLOCK_TOKENS, TokenDataset
from pythia_fast.tokens.threads import thread_count

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
END_OF_DOCUMENT = 0
"""The id of <|endoftext|> in Pythia's tokenizer."""
COUNTED_IDS = 1 << 20
"""Ids from here on are counted together, if the data's dtype has them."""
_WAIT_S = 10.0  # at most, for what is in work when all is over
_SORTED_ROWS = 1 << 13
_SHORT_TOKENS = 1 << 20  # rows below are counted by length in an array, the few others in a dict

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenStats:
    """Numbers about some rows. What needs a row or a token is None where there is none."""

    source: str
    dtype: str
    rows: int
    tokens: int
    counts: Counts = field(repr=False)  # of each id from 0; those beyond are in `outside`
    outside: int  # ids that are negative or not below `vocab_rows`
    vocab_rows: int
    end_id: int
    ends: int  # tokens with the id `end_id`
    shortest: int | None
    longest: int | None
    quantiles: dict[float, int]
    """The shortest length that so large a part of the rows does not exceed; empty without rows."""

    @property
    def mean_length(self) -> float | None:
        """Tokens a row."""
        return self.tokens / self.rows if self.rows else None

    @property
    def lowest_id(self) -> int | None:
        """Of those that are counted."""
        return int(self.counts.nonzero()[0][0]) if self.counts.any() else None

    @property
    def highest_id(self) -> int | None:
        """Of those that are counted."""
        return int(self.counts.nonzero()[0][-1]) if self.counts.any() else None

    @property
    def distinct(self) -> int:
        """How many ids occur, of those that are counted."""
        return int(np.count_nonzero(self.counts))

    def top(self, number: int) -> list[tuple[int, int]]:
        """The most frequent ids with their counts, of equal counts the lower id first."""
        order = np.argsort(-self.counts, kind="stable")[:number]
        return [(int(i), int(self.counts[i])) for i in order if self.counts[i] > 0]

    def to_dict(self, top: int = 10) -> dict[str, Any]:
        """Everything but the full counts, as plain values."""
        return {
            "source": self.source,
            "dtype": self.dtype,
            "rows": self.rows,
            "tokens": self.tokens,
            "shortest": self.shortest,
            "longest": self.longest,
            "mean_length": self.mean_length,
            "length_quantiles": {str(part): length for part, length in self.quantiles.items()},
            "end_id": self.end_id,
            "ends": self.ends,
            "distinct_ids": self.distinct,
            "lowest_id": self.lowest_id,
            "highest_id": self.highest_id,
            "vocab_rows": self.vocab_rows,
            "outside": self.outside,
            "top": [{"id": token, "count": count} for token, count in self.top(top)],
        }


def token_stats(
    data: TokenDataset,
    rows: slice | None = None,
    *,
    vocab_rows: int | None = None,
    end_id: int = END_OF_DOCUMENT,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TokenStats:
    """Count the tokens of `rows` (by default all) of `data`.

    Ids from `vocab_rows` on, and negative ones, are counted together as `outside`; by default the
    limit is what the data's dtype holds, but 2^20 at most. `progress` is called with the rows that
    are done, and with all. ArgumentError for a limit below 1 or an `end_id` beyond it.
    """
    chosen = range(len(data))[rows or slice(None)]
    limit = vocab_rows if vocab_rows is not None else _limit(data.dtype)
    if not 1 <= limit <= COUNTED_IDS:
        raise ArgumentError(f"vocab_rows must be from 1 to {COUNTED_IDS:,}, got {limit}")
    if not 0 <= end_id < limit:
        raise ArgumentError(f"end_id must be an id below {limit:,}, got {end_id}")
    workers = thread_count(threads)
    if workers < 1:
        raise ArgumentError(f"threads must be positive, got {threads}")
    tally = _Tally(data, limit)
    lengths = _Lengths()
    done = given = taken = 0
    with _Threads(tally.add, workers) as pool:
        for piece in _pieces(data, chosen, lengths):
            pool.give(piece)
            given += 1
            if given - taken > 2 * workers:
                done += pool.take()
                taken += 1
                if progress is not None:
                    progress(done, len(chosen))
        done += sum(pool.take() for _ in range(given - taken))
    if progress is not None:
        progress(done, len(chosen))
    counts = tally.total()
    found, rows_of = lengths.table()
    return TokenStats(
        source=data.source,
        dtype=data.dtype,
        rows=len(chosen),
        tokens=lengths.tokens,
        counts=counts[:limit],
        outside=int(counts[limit:].sum()),
        vocab_rows=limit,
        end_id=end_id,
        ends=int(counts[end_id]),
        shortest=int(found[0]) if len(found) else None,
        longest=int(found[-1]) if len(found) else None,
        quantiles=_quantiles(found, rows_of),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Columns [begin, end) of some rows that are about equally long."""

    rows: npt.NDArray[np.int64]
    begin: int
    end: int
    padding: int  # tokens that a matrix of them has too many
    rows_done: int  # that are all counted with this piece


class _Tally:
    """How often each id occurs; threads add to it."""

    def __init__(self, data: TokenDataset, limit: int) -> None:
        self._data = data
        self._limit = limit
        self._dtype = data.narrow_dtype
        width = 1 << 16 if self._dtype == np.uint16 else limit + 1
        self._counts = np.zeros(max(width, limit), np.int64)
        self._lock = threading.Lock()

    def add(self, piece: _Piece) -> int:
        """Count a piece; returns the rows that are done with it."""
        columns = slice(piece.begin, piece.end)
        ids = self._data.gather(piece.rows, columns=columns, dtype=self._dtype, threads=1)
        flat = ids.reshape(-1)
        if self._dtype != np.uint16:
            # As unsigned numbers negative ones are beyond the limit too.
            unsigned = flat.view(f"u{self._dtype.itemsize}")
            np.minimum(unsigned, self._limit, out=unsigned)
        counts = np.bincount(flat, minlength=len(self._counts))
        counts[0] -= piece.padding
        with self._lock:
            self._counts += counts
        return piece.rows_done

    def total(self) -> Counts:
        """The counts; those from the limit on are of ids outside."""
        return self._counts


class _Threads:
    """Threads that do `work` on what they are given; after an error they do no more.

    Not futures: an interrupt that hits a thread in their Python code, while it holds the lock of
    one, leaves that locked, and the others wait for it forever. Of a SimpleQueue each call is one
    step.
    """

    def __init__(self, work: Callable[[_Piece], int], number: int) -> None:
        self._work = work
        self._stopped = False
        self._todo: SimpleQueue[_Piece | None] = SimpleQueue()
        self._done: SimpleQueue[int | BaseException] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"count_{i}", daemon=True)
            for i in range(number)
        ]

    def __enter__(self) -> "_Threads":
        for thread in self._threads:
            thread.start()
        return self

    def give(self, piece: _Piece) -> None:
        """To whichever is free."""
        self._todo.put(piece)

    def take(self) -> int:
        """One result, as soon as there is one; or the error that there was in its place."""
        result = self._done.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _run(self) -> None:
        while (piece := self._todo.get()) is not None and not self._stopped:
            try:
                self._done.put(self._work(piece))
            except BaseException as error:
                self._done.put(error)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._stopped = kind is not None
        for _ in self._threads:
            self._todo.put(None)
        give_up = time.monotonic() + _WAIT_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, give_up - time.monotonic()))


class _Lengths:
    """How many rows have each length."""

    def __init__(self) -> None:
        self.tokens = 0
        self._short = np.zeros(_SHORT_TOKENS, np.int64)
        self._long: Counter[int] = Counter()

    def add(self, lengths: npt.NDArray[np.int64]) -> None:
        short = lengths[lengths < _SHORT_TOKENS]
        found = np.bincount(short)
        self._short[: len(found)] += found
        self._long.update(lengths[lengths >= _SHORT_TOKENS].tolist())
        self.tokens += int(lengths.sum())

    def table(self) -> tuple[Counts, Counts]:
        """The lengths that occur, rising, and how many rows have each."""
        short = self._short.nonzero()[0]
        long = sorted(self._long)
        return (
            np.concatenate([short, np.array(long, np.int64)]),
            np.concatenate([self._short[short], np.array([self._long[n] for n in long], np.int64)]),
        )


def _quantiles(lengths: Counts, rows: Counts) -> dict[float, int]:
    if len(lengths) == 0:
        return {}
    reached = np.cumsum(rows)
    total = int(reached[-1])
    # The least whole number of rows that is no less than the part asked for; 0.05 · 20 is 1 row.
    needed = [max(1, math.ceil(part * total - 1e-9 * total)) for part in QUANTILES]
    return {
        part: int(lengths[np.searchsorted(reached, rank)])
        for part, rank in zip(QUANTILES, needed, strict=True)
    }


def _pieces(data: TokenDataset, rows: range, lengths: _Lengths) -> Iterator[_Piece]:
    """All of `rows`, a bounded number of tokens at a time; their lengths go into `lengths`.

    Rows that lie near each other are sorted by length, so that a matrix has little padding.
    """
    for first in range(0, len(rows), _SORTED_ROWS):
        part = rows[first : first + _SORTED_ROWS]
        index_n = np.arange(part.start, part.stop, part.step, dtype=np.int64)
        lengths_n = data.lengths_of(index_n)
        lengths.add(lengths_n)
        order = np.argsort(lengths_n, kind="stable")
        index_n, lengths_n = index_n[order], lengths_n[order]
        begin = 0
        while begin < len(index_n):
            most = BLOCK_TOKENS // max(1, int(lengths_n[begin])) + 1
            padded = (
                lengths_n[begin : begin + most] * np.arange(1, most + 1)[: len(index_n) - begin]
            )
            end = begin + max(1, int(np.searchsorted(padded, BLOCK_TOKENS, side="right")))
            width = int(lengths_n[end - 1])
            padding = (end - begin) * width - int(lengths_n[begin:end].sum())
            yield from _columns(index_n[begin:end], width, padding)
            begin = end


def _columns(index_n: npt.NDArray[np.int64], width: int, padding: int) -> Iterator[_Piece]:
    """One piece, or several for a row that is alone and too long for one."""
    for begin in range(0, max(1, width), BLOCK_TOKENS):
        end = min(begin + BLOCK_TOKENS, width)
        yield _Piece(index_n, begin, end, padding, len(index_n) if end == width else 0)


def _limit(dtype: str) -> int:
    return min(COUNTED_IDS, int(np.iinfo(dtype).max) + 1)


def check_counts(path: str | os.PathLike[str], data: TokenDataset) -> None:
    """ArgumentError if counts that are saved as `path` would replace a file of `data`."""
    place = expanded(path)
    with writing(place):
        own = place.exists() and any(place.samefile(file) for file in data.files)
    if own:
        raise ArgumentError(f"{place} is a file of the data itself: save the counts elsewhere")


def save_counts(path: str | os.PathLike[str], stats: TokenStats) -> None:
    """The count of every id as an int64 .npy file; whole or not at all. WriteError if it fails."""
    with published(expanded(path)) as file:
        np.save(file, stats.counts)
