"""The order in which training sees its data, bit for bit as GPT-NeoX v1.0 makes it.

All documents of all epochs are shuffled together into one stream, which is cut into samples of
`sequence_length` + 1 tokens that overlap by one; these are shuffled too, by the same random
numbers. A "document" is here a row of the .idx. Training step s, counted from 1, of Pythia sees
samples [1024 (s - 1), 1024 s) of that order.
"""

import operator
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pythia_fast.core import (
    Cutter,
    LegacyRandom,
    check_doc_idx,
    check_sample_idx,
    check_shuffle_idx,
    highest_document,
    sum_lengths,
)
from pythia_fast.errors import ArgumentError, OrderError
from pythia_fast.tokens.dataset import TokenDataset
from pythia_fast.tokens.files import Files
from pythia_fast.tokens.order import files as order_files
from pythia_fast.tokens.threads import thread_count

Lengths: TypeAlias = TokenDataset | str | os.PathLike[str] | npt.ArrayLike
Progress: TypeAlias = Callable[[int, int], None]

SEED = 1234
SEQUENCE_LENGTH = 2048
PYTHIA_SAMPLES = 147_164_160
"""What Pythia's training asked for: 143,000 steps of 1024, times 1.005, rounded up."""

MOST_DOCUMENTS = 2**31 - 1  # doc_idx is int32
WIDE_FROM_SAMPLES = 2**32 - 2  # from here on shuffle_idx is int64
BLOCK_SHUFFLED = 1 << 24  # what is done at a time: a tenth of a second, then Ctrl-C is heard
BLOCK_DOCUMENTS = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Which tokens the i-th sample of training is made of.

    - doc_idx [documents × epochs] int32: documents in the order of the stream;
    - sample_idx [samples + 1, 2] int64 (or int32, as GPT-NeoX v1.0 has it): where sample k of the
      stream begins, a position in doc_idx and a token of that document; it ends with the token
      that sample k + 1 begins with;
    - shuffle_idx [samples] uint32 (int64 from 2^32 - 2 samples on): which of them training sees
      i-th.

    `samples` is the number that was asked for. There may be more, `len(order)`: all that the
    epochs give. What is checked here is that the three fit together, without reading them;
    `check` reads all. OrderError where something does not fit.
    """

    doc_idx: npt.NDArray[np.int32]
    sample_idx: npt.NDArray[np.int64] | npt.NDArray[np.int32]
    shuffle_idx: npt.NDArray[np.uint32] | npt.NDArray[np.int64]
    sequence_length: int
    seed: int
    samples: int
    files: order_files.OrderFiles | None = field(default=None)  # that it was loaded from

    def __post_init__(self) -> None:
        if not 1 <= self.sequence_length < 2**31:
            raise OrderError(self._say(f"the sequence length is {self.sequence_length}"))
        for name, dtypes, dimensions in (
            ("doc_idx", (np.int32,), 1),
            ("sample_idx", (np.int64, np.int32), 2),
            ("shuffle_idx", (np.uint32, np.int64), 1),
        ):
            array = getattr(self, name)
            if array.dtype not in dtypes or array.ndim != dimensions:
                wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
                raise OrderError(
                    self._say(
                        f"{name} must be {wanted} of {dimensions} dimension(s), not {array.dtype} "
                        f"of shape {list(array.shape)}"
                    )
                )
        samples = len(self.shuffle_idx)
        if self.sample_idx.shape != (samples + 1, 2):
            raise OrderError(
                self._say(
                    f"{samples:,} samples need {samples + 1:,} rows of 2 in sample_idx, which is "
                    f"{list(self.sample_idx.shape)}"
                )
            )
        if samples == 0 or samples < self.samples or len(self.doc_idx) == 0:
            raise OrderError(
                self._say(
                    f"{len(self.doc_idx):,} documents with {samples:,} samples, but "
                    f"{self.samples:,} were asked for"
                )
            )

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.shuffle_idx)

    def __repr__(self) -> str:
        return (
            f"Order({len(self):,} samples of {self.sequence_length} + 1 tokens, seed {self.seed}, "
            f"{len(self.doc_idx):,} documents)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """By the files it was loaded from, or else with all that it holds."""
        if self.files is not None:
            return _loaded, (replace(self.files, stem=self.files.stem.absolute()),)
        arrays = (self.doc_idx, self.sample_idx, self.shuffle_idx)
        return Order, (*arrays, self.sequence_length, self.seed, self.samples)

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return self.doc_idx.nbytes + self.sample_idx.nbytes + self.shuffle_idx.nbytes

    def save(self, prefix: str | os.PathLike[str], *, name: str = "train_0") -> Path:
        """Write the three .npy files that GPT-NeoX v1.0 looks for, and return their common stem.

        `prefix` is that of the data, as in its configuration; `name` is "train_0" for the first of
        `train-data-paths`. The files are {prefix}_{name}_indexmap_{samples}ns_{sequence_length}sl_
        {seed}s_doc_idx.npy, …_sample_idx.npy and …_shuffle_idx.npy. Each is complete before it
        appears under its name. WriteError where the system refuses.
        """
        arrays = {part: getattr(self, part) for part in order_files.PARTS}
        return order_files.save(prefix, name, self.samples, self.sequence_length, self.seed, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = True) -> "Order":
        """An order from files, by GPT-NeoX or by `save`: mapped, or read into memory.

        `path` is the data's prefix, if there is one order beside it, the stem that the three files
        share, or one of them. MissingTokensError where there are none; OrderError where they are
        damaged or do not fit together, as far as that is seen without reading all: see `check`.
        """
        files = order_files.find(path, mmap=mmap)
        return _loaded(files)

    def check(
        self,
        data: Lengths | None = None,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Read all of it: OrderError for the first thing that no right order has.

        That is: shuffle_idx is a permutation, doc_idx holds every document equally often, and
        sample_idx rises by a sequence length from row to row. With the `data` that the order is of,
        or its documents' lengths, every row of sample_idx must be the right one. Without, the
        documents are taken to be those that doc_idx names. What it was shuffled by is not checked:
        for that, build it anew and compare. Takes 1 bit a sample and 1 byte a document of memory.
        With `data`, `progress` is called with the documents whose samples were compared, and all.
        """
        workers = thread_count(threads)
        try:
            check_shuffle_idx(self.shuffle_idx, workers)
            if data is None:
                documents = highest_document(self.doc_idx) + 1
                check_doc_idx(self.doc_idx, documents, workers)
                positions = len(self.doc_idx)
                check_sample_idx(self.sample_idx, positions, self.sequence_length, workers)
                return
            lengths = _lengths(data)
            check_doc_idx(self.doc_idx, len(lengths), workers)
            self.check_size(len(lengths), sum_lengths(lengths, workers))
            cutter = Cutter(lengths, self.doc_idx, self.sequence_length)
            told = _Told(len(self.doc_idx), progress)
            while (before := cutter.position) < len(self.doc_idx):
                cutter.compare(self.sample_idx, BLOCK_DOCUMENTS, workers)
                told.add(cutter.position - before)
        except OrderError as error:
            raise OrderError(self._say(str(error))) from error

    def check_size(self, documents: int, tokens: int) -> None:
        """OrderError unless data of so many documents and tokens has an order of this size."""
        epochs, rest = divmod(len(self.doc_idx), documents) if documents else (0, 1)
        if rest or (epochs * tokens - 1) // self.sequence_length != len(self):
            raise OrderError(
                self._say(
                    f"an order of {len(self.doc_idx):,} documents in {len(self):,} samples of "
                    f"{self.sequence_length} tokens does not belong to data of {documents:,} "
                    f"documents with {tokens:,} tokens"
                )
            )

    def _say(self, what: str) -> str:
        return what if self.files is None else f"{self.files.stem}_*.npy: {what}"


def build(
    data: Lengths,
    *,
    seed: int = SEED,
    sequence_length: int = SEQUENCE_LENGTH,
    samples: int = PYTHIA_SAMPLES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Order:
    """The order in which GPT-NeoX v1.0 trains on `data` with this seed, bit for bit.

    `data` is a TokenDataset, what one can be made of by its path, or the documents' lengths, int32
    or int64. There are as many epochs as `samples` need, and all samples that these give.
    GPT-NeoX asks for train_iters × batch × 1.005 of them, rounded up.

    Takes the memory of the arrays (4 bytes a document and epoch, 20 a sample) and some 20 MB more:
    the lengths of files are read from the mapped .idx. `threads` draw numbers, look up lengths and
    cut samples; the exchanges of a shuffle are one thread's, as each needs the one before.
    `progress` is called with the entries of the arrays that are done, and all of them.

    ArgumentError where there are no tokens, more documents than int32 counts, or more of all than
    this machine has memory for; OrderError for a negative length.
    """
    workers = thread_count(threads)
    samples, sequence_length = operator.index(samples), operator.index(sequence_length)
    lengths = _lengths(data)
    documents, tokens = len(lengths), sum_lengths(lengths, workers)
    epochs = epochs_needed(tokens, sequence_length, samples)
    count = (epochs * tokens - 1) // sequence_length
    if documents > MOST_DOCUMENTS or epochs * tokens >= 2**63:
        raise ArgumentError(
            f"{documents:,} documents, and {epochs:,} epochs of {tokens:,} tokens: an order holds "
            "2^31 - 1 documents and fewer than 2^63 tokens"
        )
    needed_bytes = 4 * epochs * documents + 20 * count
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed_bytes > memory_bytes:  # allocated it may be, and the process then killed
        raise ArgumentError(
            f"{samples:,} samples of {tokens:,} tokens take {epochs:,} epochs, and their order "
            f"{needed_bytes / 1e9:,.1f} GB of this machine's {memory_bytes / 1e9:,.1f}: ask for "
            "fewer samples"
        )
    random = LegacyRandom(seed)
    told = _Told(2 * epochs * documents + count, progress)

    doc_idx = np.empty(epochs * documents, dtype=np.int32)
    for epoch in range(epochs):
        _count_up(doc_idx[epoch * documents : (epoch + 1) * documents])
    _shuffle(random, doc_idx, workers, told)

    sample_idx = np.empty((count + 1, 2), dtype=np.int64)
    cutter = Cutter(lengths, doc_idx, sequence_length)
    while (before := cutter.position) < len(doc_idx):
        cutter.write(sample_idx, BLOCK_DOCUMENTS, workers)
        told.add(cutter.position - before)
    if cutter.tokens != epochs * tokens:
        raise OrderError("the documents' lengths changed while the order was built: build it anew")

    shuffle_idx: npt.NDArray[Any] = np.empty(
        count, dtype=np.uint32 if count < WIDE_FROM_SAMPLES else np.int64
    )
    _count_up(shuffle_idx)
    _shuffle(random, shuffle_idx, workers, told)
    return Order(doc_idx, sample_idx, shuffle_idx, sequence_length, operator.index(seed), samples)


def epochs_needed(tokens: int, sequence_length: int, samples: int) -> int:
    """The smallest n, at least 1, for which (n × tokens - 1) // sequence_length >= samples."""
    if samples < 1 or not 1 <= sequence_length < 2**31:
        raise ArgumentError(
            f"samples must be at least 1 and sequence_length in [1, 2^31), got {samples} and "
            f"{sequence_length}"
        )
    if tokens < 1:
        raise ArgumentError("documents without a single token have no training order")
    return -(-(samples * sequence_length + 1) // tokens)


def _lengths(data: Lengths) -> npt.NDArray[Any]:
    """The tokens of each document: [D] int32, maybe unaligned, or int64."""
    if isinstance(data, (str, os.PathLike)):
        data = TokenDataset(data)
    if isinstance(data, TokenDataset):
        origin = data._origin
        return origin.lengths() if isinstance(origin, Files) else data.lengths
    lengths = np.asarray(data)
    if lengths.ndim != 1 or (lengths.size > 0 and lengths.dtype.kind not in "iu"):
        raise ArgumentError(
            "lengths must be a vector of integers, got "
            f"{lengths.dtype} of shape {list(lengths.shape)}"
        )
    if lengths.dtype == np.uint64 and lengths.max(initial=0) >= 2**63:
        raise ArgumentError(f"a document of {lengths.max()} tokens")
    native = np.int32 if lengths.dtype == np.int32 else np.int64
    return np.ascontiguousarray(lengths, dtype=native)


def _count_up(x: npt.NDArray[Any]) -> None:
    """x[i] = i, without a second array of that size."""
    for begin in range(0, len(x), BLOCK_DOCUMENTS):
        end = min(begin + BLOCK_DOCUMENTS, len(x))
        x[begin:end] = np.arange(begin, end, dtype=x.dtype)


def _shuffle(random: LegacyRandom, x: npt.NDArray[Any], threads: int, told: "_Told") -> None:
    for end in range(len(x), 0, -BLOCK_SHUFFLED):
        begin = max(0, end - BLOCK_SHUFFLED)
        random.shuffle(x, begin, end, threads)
        told.add(end - begin)


class _Told:
    """Adds up what is done of several arrays."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self.add(0)

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def _loaded(files: order_files.OrderFiles) -> Order:
    arrays = order_files.load(files)
    return Order(
        arrays["doc_idx"],
        arrays["sample_idx"],
        arrays["shuffle_idx"],
        files.sequence_length,
        files.seed,
        files.samples,
        files,
    )
