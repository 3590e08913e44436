"""The `.idx` of a remote data set, of which maybe only parts are there.

    byte 18   u64 L sequences, u64 D documents
         34   i32 sizes[L] in tokens, i64 pointers[L] in bytes of the .bin, i64 documents[D]

A small index is fetched whole. Of a large one there are at first only the header and both ends of
each array. If these and the size of the .bin say the same as rows of one length would, the rows are
taken to have one length: the index of Pythia's own 146 million rows takes 1.8 GB, and all that it
says is 2049. So lengths are known and the bytes of a row are asked for without its index, but
its index comes with them, and a row that is otherwise is an error before its tokens are read.
"""

import numpy as np
import numpy.typing as npt

from pythia_fast.core import TokenStore
from pythia_fast.errors import ArgumentError, RowIndexError, TokenFileError
from pythia_fast.hub.files import HubFile
from pythia_fast.tokens.files import HEADER
from pythia_fast.tokens.remote.listing import Address
from pythia_fast.tokens.remote.mirror import Mirror

WHOLE_INDEX_BYTES = 2**26
"""An index up to this is fetched whole; as much as the native store checks in full at opening,
and as the mirror verifies."""
MOST_LENGTHS = 2**22
"""Rows whose lengths may be fetched at once from a large index: 50 MB of it."""

Vector = npt.NDArray[np.int64]
_NO_SPANS: Vector = np.empty((0, 2), dtype=np.int64)
_INDEX = 0


class RemoteIndex:
    """The index of a mirror, its file 0. `learn` makes it complete, once the native store is open.

    ChecksumError if an index that was fetched whole does not have the sha256 that the Hub lists.
    """

    def __init__(self, mirror: Mirror, file: HubFile, address: Address) -> None:
        self._mirror = mirror
        self._file = file
        self._address = address
        self._whole = file.size <= WHOLE_INDEX_BYTES
        self._rows = 0
        self._item = 0
        self._length: int | None = None
        if self._whole:
            self.fetch_all()
        else:
            self._fetch_ends()

    def learn(self, store: TokenStore, bin_bytes: int) -> None:
        """Take the native store over the mirror, which has `bin_bytes` of tokens."""
        self._store = store
        self._rows = len(store)
        self._item = np.dtype(store.dtype).itemsize
        if self._whole or not self._rows:
            return
        ends = np.array([0, self._rows - 1], dtype=np.int64)
        offset_n, length_n = self._as_stored(ends)
        length = int(length_n[0])
        same = (length_n == length).all() and (offset_n == ends * length * self._item).all()
        if same and self._rows * length * self._item == bin_bytes:
            self._length = length

    @property
    def is_whole(self) -> bool:
        """Whether all of the index was fetched to begin with."""
        return self._whole

    def fetch_all(self) -> None:
        """Have the whole index on disk."""
        self._mirror.need(self._mirror.blocks(_INDEX, 0, self._file.size))

    def lengths(self, rows: Vector, out: Vector) -> None:
        """Write the tokens of each row into `out`.

        ArgumentError if that would fetch too much of a large index.
        """
        self._check(rows)
        if self._length is not None:
            out[:] = self._length
            return
        if not self._whole and len(rows) > MOST_LENGTHS:
            raise ArgumentError(
                f"the lengths of {len(rows):,} rows of {self._address} are in an index of "
                f"{self._file.size / 1e9:.1f} GB, which is not fetched for that: ask for those of "
                f"at most {MOST_LENGTHS:,} rows at a time, or download the data"
            )
        self._mirror.need(self.spans(rows))
        self._store.lengths(rows, out)

    def spans(self, rows: Vector) -> Vector:
        """The mirror's blocks of what the native store reads of the index for rows, [n, 2].

        That is a row's size, its pointer, and the next row's, which is where it must end.
        """
        self._check(rows)
        if self._whole:
            return _NO_SPANS
        sizes, pointers = HEADER.size, HEADER.size + 4 * self._rows
        last_n = np.minimum(rows + 1, self._rows - 1)
        return np.concatenate(
            [
                self._mirror.blocks(_INDEX, sizes + 4 * rows, sizes + 4 * rows + 4),
                self._mirror.blocks(_INDEX, pointers + 8 * rows, pointers + 8 * last_n + 8),
            ]
        )

    def expected(self, rows: Vector) -> tuple[Vector, Vector] | None:
        """Where rows of one length begin in the .bin and how many tokens they have, else None."""
        if self._length is None:
            return None
        return rows * (self._length * self._item), np.full(len(rows), self._length, dtype=np.int64)

    def places(self, rows: Vector) -> tuple[Vector, Vector]:
        """Where rows begin in the .bin, in bytes, and their tokens; their `spans` must be there.

        TokenFileError if the rows seemed to have one length, and these do not.
        """
        offset_n, length_n = self._as_stored(rows)
        if self._length is not None:
            wrong = (length_n != self._length) | (offset_n != rows * (self._length * self._item))
            if wrong.any():
                at = int(wrong.argmax())
                raise TokenFileError(
                    self._mirror.path(_INDEX),
                    f"sequence {rows[at]} has {length_n[at]} tokens from byte {offset_n[at]} of "
                    f"the .bin on, but by its first and last one, their number and the size of "
                    f"the .bin all have {self._length}",
                    offset=HEADER.size + 4 * int(rows[at]),
                )
        return offset_n, length_n

    def _check(self, rows: Vector) -> None:
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self._rows:
            wrong = rows[(rows < 0) | (rows >= self._rows)]
            raise RowIndexError(f"row {wrong[0]} of {self._rows}")

    def _as_stored(self, rows: Vector) -> tuple[Vector, Vector]:
        offset_n, length_n = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        self._store.locate(rows, offset_n, length_n)
        return offset_n, length_n

    def _fetch_ends(self) -> None:
        """Fetch the header, and of sizes and pointers the first two and the last one.

        Where they lie follows from the header, but files are alike: with one document in all, as
        Pythia's, or one for each row, and then one request need not wait for another.
        """
        size = self._file.size
        header = (0, min(HEADER.size + 8, size))
        alike = {(size - HEADER.size - 8) // each for each in (12, 20)}
        self._need([header, *(part for rows in alike for part in self._ends(rows))])
        if size < HEADER.size:
            return  # the native store says what is wrong with it, and so below
        rows, documents = HEADER.unpack(self._mirror.read(_INDEX, 0, HEADER.size))[3:]
        if HEADER.size + 12 * rows + 8 * documents == size:
            self._need(self._ends(rows))

    def _ends(self, rows: int) -> list[tuple[int, int]]:
        """The bytes of the last size and the first pointers, and those of the last pointer."""
        pointers = HEADER.size + 4 * rows
        end = pointers + 8 * rows
        return [(pointers - 4, min(pointers + 16, end)), (end - 8, end)] if rows > 0 else []

    def _need(self, ranges: list[tuple[int, int]]) -> None:
        begin_n, end_n = np.array(ranges, dtype=np.int64).T
        self._mirror.need(self._mirror.blocks(_INDEX, begin_n, end_n))
