"""Remote files on local disk, of which only some blocks are there yet.

Each file has its true name and size from the start, with holes where nothing was fetched, so that
whoever reads files by name, or maps them, reads these. Which blocks are there is told by a record
beside them of 8 bytes a block: 0 is absent, anything else the block's CRC-32 and a mark that makes
it unlikely that chance wrote it. A block's bytes are on disk before its record is written. Nothing
is locked: two writers of a block write the same bytes.

The Hub promises a sha256 of whole files only. A file of up to `VERIFIED_BYTES` is compared with it
as soon as all of its blocks are there, a larger one when `verify` is asked to. That it was is told
by a seal beside it, a sha256 of what the record says of its blocks, so that it breaks with each.

A block has 64 KiB. That is 16 rows of the Pile; less would not be faster, as a request takes longer
than the transfer of a block, and more would be read in vain where rows are scattered. The record of
all 600 GB of the Pile has 73 MB.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import threading
import weakref
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import ChecksumError, HubError, WriteError
from pythia_fast.hub.files import HubFile
from pythia_fast.publish import writing
from pythia_fast.tokens.remote.sparse import (
    close_all,
    open_sparse,
    publish_text,
    read_exactly,
    write_all,
)

BLOCK_BYTES = 2**16
CONNECTIONS = 16
"""Of the twenty that huggingface_hub's client keeps alive."""
PIECE_BLOCKS = (8, 128)
"""A request is for 512 KiB to 8 MiB where so much is wanted: less makes many, more few at once."""
GAP_BLOCKS = 1
"""Present blocks between absent ones that are fetched again, as a request costs more."""
BATCH_BLOCKS = 2048
"""After so many, 128 MiB, what came is brought to disk and recorded."""
VERIFIED_BYTES = 2**26
"""A file up to this is verified unasked, which takes a twentieth of a second."""

Blocks = npt.NDArray[np.int64]
Seen = Callable[[int], None]
_ENTRY_BYTES = 8
_HASHED_BYTES = 2**20
_MARK_FACTOR, _MARK = 0x9E3779B1, 0x70797468


@dataclass(frozen=True, slots=True)
class _Piece:
    """Blocks of one file that are fetched with one request."""

    file: int
    first: int
    stop: int


class Mirror:
    """The blocks of `files` below `folder`, those absent from `fetch(file number, begin, end)`.

    The files are made at once, with their sizes. Blocks are numbered through all files in turn.
    Threads and processes may share it, and it may be forked. WriteError where the system refuses,
    HubError if a file of that name has more bytes than it should.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[HubFile],
        record: str,
        fetch: Callable[[int, int, int], bytes | bytearray],
    ) -> None:
        self.folder = folder
        self.files = tuple(files)
        self._fetch_range = fetch
        counts = [-(-file.size // BLOCK_BYTES) for file in self.files]
        self._base = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._good = np.zeros(int(self._base[-1]), dtype=bool)
        self._descriptors: list[int] = []
        weakref.finalize(self, close_all, self._descriptors).atexit = False
        for number, file in enumerate(self.files):
            self._descriptors.append(open_sparse(self.path(number), file.size))
        self._record_path = folder / record
        self._record_descriptor = open_sparse(self._record_path, _ENTRY_BYTES * len(self._good))
        self._descriptors.append(self._record_descriptor)
        self._fetching = (os.getpid(), threading.Lock())
        self._verified: set[int] = set()

    def path(self, number: int) -> Path:
        """Where a file lies."""
        return self.folder / self.files[number].path

    def is_in_place(self) -> bool:
        """Whether the files under these names are still those that are filled."""
        try:
            for number in range(len(self.files)):
                here, held = self.path(number).stat(), os.fstat(self._descriptors[number])
                if (here.st_dev, here.st_ino) != (held.st_dev, held.st_ino):
                    return False
        except OSError:
            return False
        return True

    def blocks(
        self, number: int, begins: npt.ArrayLike, ends: npt.ArrayLike
    ) -> npt.NDArray[np.int64]:
        """The blocks [first, stop) of byte ranges of a file that are not empty, [n, 2]."""
        begin_n, end_n = np.atleast_1d(begins), np.atleast_1d(ends)
        kept = end_n > begin_n
        first_n = begin_n[kept] // BLOCK_BYTES
        stop_n = -(-end_n[kept] // BLOCK_BYTES)
        return np.stack([first_n, stop_n], axis=1) + int(self._base[number])

    def blocks_through(
        self, number: int, begins: Blocks, ends: Blocks, file_bytes: int
    ) -> npt.NDArray[np.int64]:
        """The same of byte ranges of the files from `number` on taken together.

        All of them but the last have `file_bytes`.
        """
        kept = ends > begins
        begin_n, last_n = begins[kept], ends[kept] - 1
        if not len(begin_n):
            return np.empty((0, 2), dtype=np.int64)
        first_n = self._base[number + begin_n // file_bytes] + begin_n % file_bytes // BLOCK_BYTES
        stop_n = self._base[number + last_n // file_bytes] + last_n % file_bytes // BLOCK_BYTES + 1
        return np.stack([first_n, stop_n], axis=1)

    def forget(self, spans: Blocks) -> None:
        """Take blocks for absent from now on."""
        for first, stop in spans.tolist():
            nothing = memoryview(bytes(_ENTRY_BYTES * (stop - first)))
            write_all(self._record_descriptor, self._record_path, _ENTRY_BYTES * first, nothing)
            self._good[first:stop] = False

    def absent_bytes(self, spans: Blocks) -> int:
        """How much of the `spans` [n, 2] is not there by the record; what is may be damaged."""
        unseen = self._unseen(spans)
        return int((self._entries(unseen) == 0).sum()) * BLOCK_BYTES

    def need(self, spans: Blocks, seen: Seen | None = None) -> None:
        """Return when all blocks of the `spans` [n, 2], [first, stop) each, are there and checked.

        What this process has not seen yet is checked against the record's CRC. What is absent or
        damaged is fetched, several ranges at once; `seen` is told of bytes that have come, by one
        thread or another. The errors of `fetch`, ReadError, WriteError; ChecksumError if a file of
        up to VERIFIED_BYTES is complete, but is not what was promised.
        """
        if not len(self._unseen(spans)):
            return
        with self._lock():  # a thread that wants the same blocks waits for them
            unseen = self._unseen(spans)
            self._check_present(unseen)
            absent = unseen[~self._good[unseen]]
            if len(absent):
                self._fetch(self._pieces(absent), seen)
            for number in np.unique(self._files_of(unseen)).tolist():
                if number not in self._verified and self.files[number].size <= VERIFIED_BYTES:
                    self._verify(number)

    def verify(self) -> None:
        """Compare every file of which all blocks are there with its sha256, and mend it if need be.

        ChecksumError for one that is not what was promised, even after it was fetched afresh.
        """
        for number in range(len(self.files)):
            with self._lock():
                blocks = self._blocks_of(number)
                if self._entries(blocks).all():
                    self._check_present(blocks)
                    absent = blocks[~self._good[blocks]]
                    if len(absent):
                        self._fetch(self._pieces(absent))
                    self._verify(number, sealed=False)

    def read(self, number: int, begin: int, end: int) -> bytes:
        """Bytes [begin, end) of a file, from blocks that are there."""
        return read_exactly(self._descriptors[number], self.path(number), begin, end - begin)

    def _verify(self, number: int, *, sealed: bool = True) -> None:
        """Compare a file with its sha256 if it is wholly there; with a seal, it has been."""
        file, blocks = self.files[number], self._blocks_of(number)
        if file.sha256 is None or not len(blocks):
            return
        seal_path = self.path(number).with_name(self.path(number).name + ".verified")
        for again in (False, True):
            entries = self._entries(blocks)
            if not entries.all():
                return
            seal = f"{file.sha256} {hashlib.sha256(entries.tobytes()).hexdigest()}\n"
            if not (sealed and _has(seal_path, seal)):
                self._check_present(blocks[~self._good[blocks]])
                if not self._good[blocks].all():  # damaged on disk: fetched when it is wanted
                    return
                if self._sha256(number) != file.sha256:
                    self.forget(np.array([[blocks[0], blocks[-1] + 1]]))
                    if not again:
                        self._fetch(self._pieces(blocks))
                    continue
                with contextlib.suppress(WriteError):  # of a read-only cache: verified each time
                    publish_text(seal_path, seal)
            self._verified.add(number)
            return
        raise ChecksumError(
            f"{self.path(number)} does not have the sha256 {file.sha256} that the Hub lists for "
            f"{file.path}, even after it was fetched afresh: something on the way changes it. It "
            "is taken for absent now, and fetched when it is next wanted"
        )

    def _sha256(self, number: int) -> str:
        digest = hashlib.sha256()
        size = self.files[number].size
        for begin in range(0, size, _HASHED_BYTES):
            digest.update(self.read(number, begin, min(begin + _HASHED_BYTES, size)))
        return digest.hexdigest()

    def _blocks_of(self, number: int) -> Blocks:
        return np.arange(self._base[number], self._base[number + 1], dtype=np.int64)

    def _files_of(self, blocks: Blocks) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._base, blocks, side="right") - 1

    def _lock(self) -> threading.Lock:
        if self._fetching[0] != os.getpid():  # a fork may have left it locked by nobody
            self._fetching = (os.getpid(), threading.Lock())
        return self._fetching[1]

    def _unseen(self, spans: Blocks) -> Blocks:
        """The blocks, ascending, that this process has neither fetched nor checked."""
        wanted = _expanded(spans)
        return np.unique(wanted[~self._good[wanted]])

    def _check_present(self, blocks: Blocks) -> None:
        """Of the blocks, take those for good that are recorded and as they were recorded."""
        entries = self._entries(blocks)
        present, entries = blocks[entries != 0], entries[entries != 0]
        crcs = np.empty(len(present), dtype=np.uint32)
        for i, block in enumerate(present.tolist()):
            crcs[i] = zlib.crc32(self.read(*self._place(block, block + 1)))
        self._good[present] = entries == _entry(present, crcs)

    def _entries(self, blocks: Blocks) -> npt.NDArray[np.uint64]:
        """What the record says of ascending blocks, 0 where it says nothing."""
        found = np.zeros(len(blocks), dtype=np.uint64)
        done = 0
        for first, stop in _runs(blocks):
            begin, nbytes = _ENTRY_BYTES * first, _ENTRY_BYTES * (stop - first)
            data = read_exactly(self._record_descriptor, self._record_path, begin, nbytes)
            found[done : done + stop - first] = np.frombuffer(data, "<u8")
            done += stop - first
        return found

    def _place(self, first: int, stop: int) -> tuple[int, int, int]:
        """The file of blocks of one file, and their bytes in it."""
        file = int(np.searchsorted(self._base, first, side="right")) - 1
        begin = (first - int(self._base[file])) * BLOCK_BYTES
        end = min((stop - int(self._base[file])) * BLOCK_BYTES, self.files[file].size)
        return file, begin, end

    def _pieces(self, absent: Blocks) -> list[_Piece]:
        """Requests for all of the absent blocks, in their order."""
        low, high = PIECE_BLOCKS
        most = min(high, max(low, -(-len(absent) // CONNECTIONS)))
        file_n = self._files_of(absent)
        apart = (np.diff(absent) > 1 + GAP_BLOCKS) | (np.diff(file_n) != 0)
        cuts = [0, *(np.flatnonzero(apart) + 1).tolist(), len(absent)]
        pieces = []
        for begin, end in itertools.pairwise(cuts):
            first, stop = int(absent[begin]), int(absent[end - 1]) + 1
            pieces += [
                _Piece(int(file_n[begin]), at, min(at + most, stop))
                for at in range(first, stop, most)
            ]
        return pieces

    def _fetch(self, pieces: Sequence[_Piece], seen: Seen | None = None) -> None:
        self._check_space(sum(piece.stop - piece.first for piece in pieces) * BLOCK_BYTES)
        pool = ThreadPoolExecutor(min(CONNECTIONS, len(pieces)), "pythia-fast-fetch")
        batch: list[Future[tuple[_Piece, npt.NDArray[np.uint32]]]] = []
        blocks = 0
        try:
            for piece in pieces:
                batch.append(pool.submit(self._store, piece, seen))
                blocks += piece.stop - piece.first
                if blocks >= BATCH_BLOCKS or piece is pieces[-1]:
                    self._finish(batch)
                    batch, blocks = [], 0
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _check_space(self, nbytes: int) -> None:
        """Rather now than after an hour of fetching."""
        with writing(self.folder):
            system = os.fstatvfs(self._record_descriptor)  # the folder may have been removed
        free = system.f_bavail * system.f_frsize
        if nbytes > free:
            raise WriteError(
                errno.ENOSPC,
                f"{nbytes / 1e9:.1f} GB are to be fetched, {free / 1e9:.1f} GB are free",
                str(self.folder),
            )

    def _finish(self, batch: list[Future[tuple[_Piece, npt.NDArray[np.uint32]]]]) -> None:
        """Wait for the batch; keep what came even if some of it did not.

        An interrupt does not wait for requests under way: what they still write is not recorded.
        """
        interrupted = True
        try:
            wait(batch, return_when=FIRST_EXCEPTION)
            interrupted = False
        finally:
            for future in batch:
                future.cancel()
            if not interrupted:
                wait(batch)
            ran = [future for future in batch if future.done() and not future.cancelled()]
            self._keep([future.result() for future in ran if future.exception() is None])
        for future in ran:
            future.result()

    def _store(self, piece: _Piece, seen: Seen | None) -> tuple[_Piece, npt.NDArray[np.uint32]]:
        """Fetch blocks and write them to their file; returns their checksums."""
        file, begin, end = self._place(piece.first, piece.stop)
        data = memoryview(self._fetch_range(file, begin, end))
        if len(data) != end - begin:
            raise HubError(
                f"{self.files[file].path}: got {len(data)} of {end - begin} bytes from {begin} on"
            )
        write_all(self._descriptors[file], self.path(file), begin, data)
        if seen is not None:
            seen(len(data))
        parts = range(0, len(data), BLOCK_BYTES)
        crcs = [zlib.crc32(data[at : at + BLOCK_BYTES]) for at in parts]
        return piece, np.array(crcs, dtype=np.uint32)

    def _keep(self, done: Sequence[tuple[_Piece, npt.NDArray[np.uint32]]]) -> None:
        """Bring what was written to disk, and only then say that it is there."""
        for file in sorted({piece.file for piece, _ in done}):
            with writing(self.path(file)):
                os.fdatasync(self._descriptors[file])
        for piece, crcs in done:
            entries = _entry(np.arange(piece.first, piece.stop), crcs).astype("<u8")
            write_all(
                self._record_descriptor,
                self._record_path,
                _ENTRY_BYTES * piece.first,
                memoryview(entries.tobytes()),
            )
            self._good[piece.first : piece.stop] = True


def _has(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _entry(blocks: Blocks, crc: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """The record of blocks with these checksums; never 0."""
    low = crc.astype(np.uint64)
    number = blocks.astype(np.uint64) * np.uint64(_MARK_FACTOR)
    mark = ((low ^ number ^ np.uint64(_MARK)) & np.uint64(0xFFFFFFFF)) | np.uint64(1)
    return low | (mark << np.uint64(32))


def _expanded(spans: Blocks) -> Blocks:
    """All blocks of spans [n, 2]."""
    counts = spans[:, 1] - spans[:, 0]
    starts = spans[:, 0] - (np.cumsum(counts) - counts)
    return np.repeat(starts, counts) + np.arange(int(counts.sum()), dtype=np.int64)


def _runs(blocks: Blocks) -> list[tuple[int, int]]:
    """Ascending blocks as runs [first, stop)."""
    if not len(blocks):
        return []
    breaks = np.flatnonzero(np.diff(blocks) > 1)
    first = blocks[np.concatenate([[0], breaks + 1])]
    last = blocks[np.concatenate([breaks, [len(blocks) - 1]])]
    return list(zip(first.tolist(), (last + 1).tolist(), strict=True))
