"""Token sequences from a file pair, an array or texts, behind one interface.

Legend: N sequences of the data, n of them asked for, L tokens of the longest one.
"""

import hashlib
import operator
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError, TokenRangeError
from pythia_fast.quantities import integer
from pythia_fast.suite import SEQUENCES_PER_STEP
from pythia_fast.tokens import steps as training
from pythia_fast.tokens.files import Files
from pythia_fast.tokens.find import find
from pythia_fast.tokens.in_order import InOrder
from pythia_fast.tokens.npy import Npy
from pythia_fast.tokens.rows import Rows, chosen_rows, row_vector
from pythia_fast.tokens.sources import Memory, Origin, Store, is_remote, origin_of
from pythia_fast.tokens.threads import thread_count

if TYPE_CHECKING:
    from pythia_fast.tokens.order import Order

TokenSource: TypeAlias = str | os.PathLike[str] | npt.ArrayLike | Sequence[str] | Memory

BLOCK_TOKENS = 1 << 20  # what `fingerprint` and `check_ids` hold at a time
BLOCK_ROWS = 1 << 16
_MOST = np.iinfo(np.int64).max
_OUTPUT = (np.dtype(np.uint16), np.dtype(np.int32), np.dtype(np.int64))  # the smallest first


class TokenDataset:
    """N sequences of token ids, read-only.

    `source` is one of
    - the path of an .idx/.bin pair (GPT-NeoX and Megatron-LM): the prefix, or either file. The
      .bin may be in shards, `<stem>-000NN-of-000MM.bin` beside `<stem>.idx`: then also the path
      of one of them, or of the folder that holds the set and no other. All are read in place:
      mapped, nothing is loaded, merged or copied;
    - the path of a .npy file of integers [N, L] in C order, as `view --mode save` and numpy write
      it: mapped as well;
    - "hub:owner/name", a data set of the Hub, as "hub:pile-deduped" and "hub:pile-standard" are,
      Pythia's own; "hub:owner/name@revision/folder/document" says more exactly what of it. It is
      taken at the commit that the revision has now. Only the rows asked for are fetched, and kept
      in `cache_dir` (by default in the user's cache): a row that was read once can be read without
      a network. See `pythia_fast.tokens.remote.store` for what is verified;
    - an array or tensor [N, L] of any integer dtype: kept as it is where it is contiguous, so do
      not change it afterwards;
    - a list of texts, with `tokenizer`: the path of a tokenizer.json or of its folder, or a
      tokenizers.Tokenizer. No special tokens are added.

    Raises TokenFileError where a file's numbers do not add up or shards are short or of different
    sets, MissingTokensError where files are not there, and ArgumentError for anything else that is
    not one of these. A file that shrinks while it is read is a TruncatedFileError, a .npy that is
    written to a ReadError; one that gives its name to another is read on as it was. Of an .idx
    above 64 MiB the header, the first and the last row are checked now, each row when it is used,
    and everything by `verify`.

    A dataset can be read by many threads at once, and after a fork. Its pickle holds the paths of
    files and their sizes, which are opened and compared again, or the ids of an array.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        self._open(origin_of(source, tokenizer, cache_dir))

    def _open(self, origin: Origin) -> None:
        self._origin = origin
        self._store: Store = origin.open()
        self.source: str = str(origin)  # where the ids come from, in words
        self._lengths: npt.NDArray[np.int64] | None = None

    def __getstate__(self) -> Origin:
        return self._origin

    def __setstate__(self, origin: Origin) -> None:
        self._open(origin)

    def __len__(self) -> int:
        """N, the number of sequences."""
        return len(self._store)

    def __repr__(self) -> str:
        return f"TokenDataset({self.source}, {len(self)} sequences of {self._store.dtype})"

    @property
    def is_remote(self) -> bool:
        """Whether the ids are on the Hub; `source` is then an address that keeps its meaning."""
        return is_remote(self.source)

    @property
    def address(self) -> str | None:
        """What opens the same again, from any folder: a path, or an address on the Hub.

        None for ids in memory and for samples stitched in training order.
        """
        if isinstance(self._origin, Files):
            return str(self._origin.bins[0])
        if isinstance(self._origin, Npy):
            return str(self._origin.path)
        return self.source if self.is_remote else None

    def place_of(self, row: int) -> str:
        """What a person calls a row: "sequence 4", or of a text "line 5 of poems.txt"."""
        places = self._origin.places if isinstance(self._origin, Memory) else None
        return f"sequence {row}" if places is None else places[row]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read in place, absolute: none of the Hub's, nor of ids in memory."""
        origin = self._origin.raw if isinstance(self._origin, InOrder) else self._origin
        if isinstance(origin, Files):
            return origin.index, *origin.bins
        return (origin.path,) if isinstance(origin, Npy) else ()

    @property
    def dtype(self) -> str:
        """The type of the ids where they are kept: "uint16" and so on."""
        return self._store.dtype

    @property
    def narrow_dtype(self) -> np.dtype[Any]:
        """The smallest dtype of `gather` for all that `dtype` holds; of uint64 it is int64."""
        kept = np.dtype(self.dtype)
        return next((each for each in _OUTPUT if np.can_cast(kept, each)), np.dtype(np.int64))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sequence: [N] int64, read-only."""
        if self._lengths is None:
            lengths = self._lengths_of(np.arange(len(self), dtype=np.int64))
            lengths.flags.writeable = False
            self._lengths = lengths
        return self._lengths

    def lengths_of(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Tokens of each of n rows: [n] int64. Of the others, maybe millions, nothing is asked.

        RowIndexError for a row that is not there.
        """
        return self._lengths_of(self._index(rows))

    def gather(
        self,
        rows: Rows,
        *,
        columns: slice | None = None,
        dtype: npt.DTypeLike = np.int64,
        out: npt.NDArray[Any] | None = None,
        threads: int | None = None,
    ) -> npt.NDArray[Any]:
        """Copy n rows into a matrix [n, L], shorter ones padded right with 0.

        `rows` are indexes as NumPy takes them, in any order and as often as wanted. `columns`
        (start and stop, not negative, no step) keeps a part of every row. L is the length of the
        longest part, or the width of `out`. Ids come as int64, int32 or uint16: `dtype`, or that
        of `out`, a C-ordered matrix that is filled and returned. `threads` is by default the
        number of this process's processors.

        Raises RowIndexError for a row that is not there; ArgumentError where an id does not fit
        the dtype or a row does not fit `out`; TruncatedFileError if a file has shrunk.
        """
        index_n = self._index(rows)
        start, stop = _columns(columns)
        if out is None:
            lengths_n = np.clip(self._lengths_of(index_n), start, stop) - start
            width = int(lengths_n.max(initial=0))
            out = np.empty((len(index_n), width), dtype=_output_dtype(dtype))
        elif not isinstance(out, np.ndarray):
            raise ArgumentError(f"out must be a numpy array, got {type(out).__name__}")
        elif not out.flags.writeable:
            raise ArgumentError("out is read-only")
        else:
            _output_dtype(out.dtype)
        self._store.gather(index_n, start, stop, out, thread_count(threads))
        return out

    def __getitem__(self, rows: SupportsIndex | Rows) -> npt.NDArray[np.int64]:
        """One row [L] for an int, or [n, L] as `gather` gives it: int64."""
        if isinstance(rows, (slice, range, Sequence)) or np.ndim(cast("npt.ArrayLike", rows)) > 0:
            return self.gather(cast("Rows", rows))
        try:
            row = operator.index(rows)
        except TypeError as error:
            raise ArgumentError(
                f"rows are chosen by an int, a slice or integers, not by {rows!r}"
            ) from error
        result: npt.NDArray[np.int64] = self.gather([row])[0]
        return result

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        """Each sequence in turn, [L] int64, without padding."""
        for row in range(len(self)):
            yield self[row]

    def step(
        self,
        step: int,
        *,
        batch: int = SEQUENCES_PER_STEP,
        columns: slice | None = None,
        dtype: npt.DTypeLike = np.int64,
    ) -> npt.NDArray[Any]:
        """What training step `step`, counted from 1, saw of data in training order: [batch, L].

        `columns` and `dtype` as for `gather`. RowIndexError unless the data has all rows of it.
        """
        wanted = training.rows_of_step(step, batch)
        asked = f"training step {step}"
        rows = training.require_rows(wanted, len(self), batch, asked)
        return self.gather(rows, columns=columns, dtype=dtype)

    def seen(self, step: int, *, batch: int = SEQUENCES_PER_STEP) -> range:
        """The rows that checkpoint step`step` has seen, of data in training order.

        A range, for `dataset[...]`, `gather`, `fingerprint` and the like: it takes no memory, and
        may be sliced itself. RowIndexError if the data has fewer.
        """
        wanted = training.seen(step, batch)
        return training.require_rows(wanted, len(self), batch, f"what step {step} has seen")

    def batches(
        self,
        steps: Iterable[int],
        *,
        batch: int = SEQUENCES_PER_STEP,
        columns: slice | None = None,
        dtype: npt.DTypeLike = np.int64,
        prefetch: int = 2,
    ) -> Generator[tuple[int, npt.NDArray[Any]], None, None]:
        """(step, what `step` gives for it) for each training step, gathered ahead in a thread.

        While the caller works on one batch, at most `prefetch` others are there or on their way;
        with 0 there is no thread. Every array is new and the caller's own. A step that the data
        does not have is RowIndexError: of a range at once, else in its place. The thread ends with
        the iterator, also after a `break`, an error or Ctrl-C in the loop; `close()` ends both.
        """
        return training.batches(
            self, steps, batch=batch, columns=columns, dtype=dtype, prefetch=prefetch
        )

    def find(self, ids: npt.ArrayLike, rows: Rows | None = None) -> npt.NDArray[np.int64]:
        """Where the sequence `ids` occurs in `rows` (by default all): [hits, 2], (row, column).

        Hits are in the order of `rows`, may overlap, and never reach from one row into the next.
        A bounded number of tokens is in memory. ArgumentError if `ids` are not at least one
        integer; what no id of the data can be is not found. See `tokens.find.search` for several
        sequences, or hits as they are found.
        """
        return find(self, ids, rows)

    def blocks(self, rows: Rows | None = None) -> Iterator[npt.NDArray[np.int64]]:
        """The chosen rows (by default all), in order, as pieces that may be gathered: [n] int64.

        Each has at most BLOCK_TOKENS tokens, padding included, or is a single row.
        """
        for index_n in self._row_blocks(rows):
            lengths_n = self._lengths_of(index_n)
            begin = 0
            while begin < len(index_n):
                # Growing to k rows costs k times the longest of them, which only rises.
                most = BLOCK_TOKENS // max(1, int(lengths_n[begin])) + 1
                longest = np.maximum.accumulate(lengths_n[begin : begin + most])
                padded = longest * np.arange(1, len(longest) + 1)
                end = begin + max(1, int(np.searchsorted(padded, BLOCK_TOKENS, side="right")))
                yield index_n[begin:end]
                begin = end

    def fingerprint(
        self, rows: Rows | None = None, *, progress: Callable[[int, int], None] | None = None
    ) -> str:
        """Identify the tokens of `rows` (by default all): a sha256 in hexadecimal.

        It is taken over the number of rows, their lengths and all ids, as little-endian int64,
        so it is the same for the same tokens, whatever file, array or text they come from.
        `progress` is called with the rows that are done, and all of them.
        """
        digest = hashlib.sha256(b"pythia_fast tokens 1\n")
        done, total = 0, len(chosen_rows(rows, len(self)))
        digest.update(np.int64(total).tobytes())
        for index_n in self.blocks(rows):
            digest.update(self._lengths_of(index_n).data)
        for index_n in self.blocks(rows):
            lengths_n = self._lengths_of(index_n)
            width = int(lengths_n.max(initial=0))
            for begin in range(0, width, BLOCK_TOKENS):
                # More than one round only for a row that is alone in its block.
                ids_nL = self.gather(index_n, columns=slice(begin, begin + BLOCK_TOKENS))
                kept_nL = np.arange(begin, begin + ids_nL.shape[1]) < lengths_n[:, None]
                digest.update((ids_nL if kept_nL.all() else ids_nL[kept_nL]).data)
            done += len(index_n)
            if progress is not None:
                progress(done, total)
        return digest.hexdigest()

    def fetch(
        self, rows: Rows | None = None, *, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Have `rows` (by default all) on disk; of data that is not on the Hub they are.

        `progress` is told of the bytes that have come, and of all that are to.
        """
        if not self.is_remote:
            return
        from pythia_fast.tokens.remote.store import RemoteStore  # it imports huggingface_hub

        blocks = partial(self._row_blocks, rows)
        cast(RemoteStore, self._store).fetch(blocks, progress or (lambda _, __: None))

    def check_ids(self, vocab_rows: int, rows: Rows | None = None) -> None:
        """Raise TokenRangeError unless every id of `rows` (by default all) is in [0, vocab_rows).

        The error names the first such id in the order of `rows`.
        """
        vocab_rows = integer(vocab_rows, "vocab_rows")
        if vocab_rows < 0:
            raise ArgumentError(f"vocab_rows must not be negative, got {vocab_rows}")
        limit = min(vocab_rows, _MOST)
        for index_n in self._row_blocks(rows):
            found = self._store.find_outside(index_n, limit, thread_count(None))
            if found is not None:
                position, offset, token = found
                raise TokenRangeError(int(index_n[position]), offset, token, vocab_rows)

    def in_order(self, order: "Order") -> "TokenDataset":
        """The samples that training sees, if these are the raw documents that `order` is of.

        Row i is the i-th sample: sequence_length + 1 ids, stitched from as many documents as it
        takes. The files are opened once more; nothing is copied. What is used of the order is
        checked when it is: OrderError for what cannot be, and at once if it is of other data.
        """
        from pythia_fast.tokens.order import Order  # here: it imports this module

        if not isinstance(order, Order):
            raise ArgumentError(f"in_order takes an Order, as Order.load gives, got {order!r}")
        samples = TokenDataset.__new__(TokenDataset)
        samples._open(InOrder(self._origin, order))
        return samples

    def verify(self, *, threads: int | None = None) -> None:
        """Check all of an index against itself: TokenFileError for the first row that is wrong.

        Nothing is left to check of an index of up to 64 MiB, nor of ids in memory. Of the Hub's
        files those that are wholly here are compared with their sha256, and fetched afresh if they
        differ: ChecksumError if they still do.
        """
        self._store.verify(thread_count(threads))

    def _lengths_of(self, index_n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        result = np.empty(len(index_n), dtype=np.int64)
        self._store.lengths(index_n, result)
        return result

    def _row_blocks(self, rows: Rows | None) -> Iterator[npt.NDArray[np.int64]]:
        """The chosen rows, in order, a bounded number at a time."""
        chosen = chosen_rows(rows, len(self))
        for begin in range(0, len(chosen), BLOCK_ROWS):
            yield row_vector(chosen[begin : begin + BLOCK_ROWS])

    def _index(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The rows meant, as contiguous int64 in [0, N)."""
        return row_vector(chosen_rows(rows, len(self)))


def _columns(columns: slice | None) -> tuple[int, int]:
    if columns is None:
        return 0, _MOST
    if not isinstance(columns, slice):
        raise ArgumentError(f"columns must be slice(start, stop), got {columns!r}")
    start = 0 if columns.start is None else integer(columns.start, "columns.start")
    stop = _MOST if columns.stop is None else integer(columns.stop, "columns.stop")
    if start < 0 or stop < start or columns.step not in (None, 1):
        raise ArgumentError(
            f"columns must be slice(start, stop) with 0 <= start <= stop and no step, got {columns}"
        )
    return min(start, _MOST), min(stop, _MOST)


def _output_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        result = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"ids are gathered as int64, int32 or uint16, not as {dtype!r}"
        ) from error
    if result not in _OUTPUT:
        raise ArgumentError(f"ids are gathered as int64, int32 or uint16, not as {result}")
    return result
