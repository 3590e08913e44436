"""Texts into an .idx/.bin pair, by any tokenizer.json.

Three things go on at once: a thread reads the next batch, the tokenizers library encodes two on
all cores, and the one before is written. Nothing else is in memory.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, OnError
from pythia_fast.publish import writing
from pythia_fast.quantities import counted
from pythia_fast.tokens.files import pair
from pythia_fast.tokens.sources import END_OF_TEXT, load_tokenizer, plain
from pythia_fast.tokens.text.compressed import check_input
from pythia_fast.tokens.text.documents import (
    Document,
    Format,
    Mistakes,
    Split,
    check_choice,
    read_documents,
)
from pythia_fast.tokens.write import TokenWriter, is_half_published

BATCH_CHARACTERS = 1 << 18  # for each processor, of which 16 count
BATCH_DOCUMENTS = 1 << 12

Ids = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What `tokenize` wrote and left out."""

    dtype: str
    rows: int
    tokens: int  # of all rows
    documents: int
    empty: int  # documents that gave no token, and were not kept
    mistakes: int  # lines, or damaged ends of files, that were skipped
    first_mistakes: tuple[str, ...]
    tokens_left: int  # that did not fill a last row


def tokenize(
    inputs: Sequence[str | os.PathLike[str]],
    tokenizer: str | os.PathLike[str] | Tokenizer,
    out: str | os.PathLike[str],
    *,
    format: Format = "auto",
    field: str = "text",
    split: Split = "file",
    append_eod: bool | None = None,
    row_tokens: int | None = None,
    keep_empty: bool = False,
    on_error: OnError = "raise",
    overwrite: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Tokenized:
    """Write the tokens of the documents in `inputs` (see `read_documents`) as out.idx and out.bin.

    `append_eod` puts the tokenizer's <|endoftext|> after each document, as in the Pile. With
    `row_tokens` documents are joined and cut into rows of so many tokens, each beginning with the
    last token of the one before, as in Pythia's preshuffled data, where 2049 tokens are 2048 inputs
    and their labels; `append_eod` is then the default. Ids are uint16 where all of the vocabulary
    fits, else int32. No other special tokens are added, but such a token that is written out in a
    text is one.

    What is wrong in the input is FormatError with file and line, or with `on_error="skip"` counted.
    ArgumentError for a tokenizer without <|endoftext|> where one is needed, or for one that cannot
    encode a text, for inputs that make no row, for an `out` that is a folder or belongs to shards,
    and without `overwrite` where a pair is there; MissingTokensError for a file not there;
    WriteError where the system refuses. The pair appears when it is whole; after a kill the next
    call begins anew, and removes what is left of this one. `progress` is called with documents and
    tokens so far.
    """
    _check_out(out, overwrite)
    paths = [os.fspath(each) for each in inputs]
    if not paths:
        raise ArgumentError("there is nothing to read: give one input at least")
    for path in paths:
        check_input(path)
    check_choice("format", format, Format)
    check_choice("split", split, Split)
    check_choice("on_error", on_error, OnError)
    if row_tokens is not None and row_tokens < 2:
        raise ArgumentError(f"rows of {row_tokens} tokens hold no input with its label")
    encoder = plain(load_tokenizer(tokenizer))
    end = None
    if append_eod or (append_eod is None and row_tokens is not None):
        end = encoder.token_to_id(END_OF_TEXT)
        if end is None:
            raise ArgumentError(f"the tokenizer has no {END_OF_TEXT} to put after each document")
    mistakes = Mistakes(on_error)
    stop = threading.Event()
    documents = read_documents(paths, mistakes, format=format, field=field, split=split, stop=stop)
    with TokenWriter(out, dtype=_dtype(encoder)) as writer:
        rows: _Rows = _Documents(writer) if row_tokens is None else _Packed(writer, row_tokens)
        store = _Store(rows, writer.dtype, end, keep_empty, progress)
        _pipeline(_batches(documents), encoder, mistakes, store, stop)
        if writer.rows == 0:
            raise ArgumentError(_nothing(paths, store, mistakes, row_tokens))
    return Tokenized(
        *(writer.dtype.name, writer.rows, writer.tokens, store.documents, store.empty),
        *(mistakes.count, tuple(mistakes.first), rows.left),
    )


def _check_out(out: str | os.PathLike[str], overwrite: bool) -> None:
    with writing(expanded(out)):
        if os.fspath(out).endswith(os.sep) or expanded(out).is_dir():
            raise ArgumentError(
                f"{os.fspath(out)!r} is a folder: give the prefix of the new pair, as "
                f"{os.fspath(Path(out) / 'document')}"
            )
        taken = not overwrite and not is_half_published(out)
        there = [path for path in pair(out) if path.exists()] if taken else []
    if there:
        raise ArgumentError(
            f"{there[0]} is there already: give another prefix, or --force (overwrite=True) to "
            "replace it"
        )


def _nothing(
    paths: Sequence[str], store: "_Store", mistakes: Mistakes, row_tokens: int | None
) -> str:
    where = paths[0] if len(paths) == 1 else f"all {len(paths)} inputs"
    if store.tokens:
        what = f"{counted(store.tokens, 'token')}, which fill no row of {row_tokens}"
    else:
        what = "no document with a token"
    reasons = [counted(store.empty, "empty document")] if store.empty else []
    if mistakes.count:
        reasons.append(f"{mistakes.count:,} skipped, the first: {mistakes.first[0]}")
    told = f" ({'; '.join(reasons)})" if reasons else ""
    return f"{where}: {what}{told}, so there is no row to write"


def _pipeline(
    batches: Iterator[list[Document]],
    encoder: Tokenizer,
    mistakes: Mistakes,
    store: "_Store",
    stop: threading.Event,
) -> None:
    """Read, encode and store at the same time; after an error `stop` is set.

    Two batches are with the library, which shares its cores among them: none waits for the other's
    last text, nor for Python's lock.
    """
    with (
        ThreadPoolExecutor(1, "read") as reading,
        ThreadPoolExecutor(2, "encode") as encoding,
        _set_after_error(stop),  # before the threads are waited for
    ):
        upcoming = reading.submit(next, batches, None)
        encoded: deque[Future[list[Encoding]]] = deque()
        while True:
            while len(encoded) < 2 and (batch := upcoming.result()) is not None:
                upcoming = reading.submit(next, batches, None)
                encoded.append(encoding.submit(_encode, encoder, batch, mistakes))
            if not encoded:
                return
            store(encoded.popleft().result())


@contextmanager
def _set_after_error(stop: threading.Event) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stop.set()
        raise


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    most = BATCH_CHARACTERS * min(16, len(os.sched_getaffinity(0)))
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document[0])
        if characters >= most or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(encoder: Tokenizer, batch: list[Document], mistakes: Mistakes) -> list[Encoding]:
    try:
        return encoder.encode_batch_fast([text for text, _, _ in batch], add_special_tokens=False)
    except Exception:  # the library raises nothing narrower, and does not say which text it was
        encodings = []
        for text, path, line in batch:
            try:
                encodings += encoder.encode_batch_fast([text], add_special_tokens=False)
            except Exception as error:
                mistakes.note(path, line, f"the tokenizer does not take this text: {error}")
        return encodings


class _Store:
    """Takes the ids out of encodings and writes them."""

    def __init__(
        self,
        rows: "_Rows",
        dtype: np.dtype[Any],
        end: int | None,
        keep_empty: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.documents = self.tokens = self.empty = 0
        self._rows, self._dtype, self._progress = rows, dtype, progress
        self._end = [] if end is None else [end]
        self._keep_empty = keep_empty

    def __call__(self, encodings: list[Encoding]) -> None:
        documents = [encoding.ids for encoding in encodings]
        encodings.clear()
        if not self._keep_empty:
            kept = [ids for ids in documents if ids]
            self.empty += len(documents) - len(kept)
            documents = kept
        if self._end:
            for ids in documents:
                ids += self._end
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        flat: Ids = np.fromiter(chain.from_iterable(documents), self._dtype, int(lengths.sum()))
        self._rows.append(flat, lengths)
        self.documents += len(lengths)
        self.tokens += len(flat)
        if self._progress is not None:
            self._progress(self.documents, self.tokens)


class _Rows(Protocol):
    """What becomes a row."""

    @property
    def left(self) -> int:
        """Tokens that did not."""

    def append(self, ids: Ids, lengths: npt.NDArray[np.int64]) -> None:
        """Documents one after the other."""


class _Documents:
    """Each document is a row."""

    left = 0

    def __init__(self, writer: TokenWriter) -> None:
        self._writer = writer

    def append(self, ids: Ids, lengths: npt.NDArray[np.int64]) -> None:
        self._writer.append(ids, lengths)


class _Packed:
    """Rows of equal length, each beginning with the last token of the one before."""

    def __init__(self, writer: TokenWriter, row_tokens: int) -> None:
        self._writer = writer
        self._row_tokens = row_tokens
        self._held: Ids = np.empty(0, writer.dtype)

    @property
    def left(self) -> int:
        """Tokens that are in no row; the last row's last one is in it."""
        return len(self._held) - (1 if self._writer.rows else 0)

    def append(self, ids: Ids, lengths: npt.NDArray[np.int64]) -> None:
        stream = np.concatenate([self._held, ids])
        step = self._row_tokens - 1
        count = max(0, len(stream) - 1) // step
        if count > 0:
            rows = np.lib.stride_tricks.sliding_window_view(stream, self._row_tokens)[::step]
            self._writer.append(
                rows[:count].reshape(-1), np.full(count, self._row_tokens, np.int64)
            )
        self._held = stream[count * step :]


def _dtype(encoder: Tokenizer) -> str:
    highest = max(encoder.get_vocab(with_added_tokens=True).values(), default=0)
    return "uint16" if highest <= np.iinfo(np.uint16).max else "int32"
