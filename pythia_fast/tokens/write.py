"""Write token ids as an .idx/.bin pair that GPT-NeoX and Megatron-LM read."""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.publish import has_dead_partial, partial_of, remove_partials, write_error
from pythia_fast.tokens.files import HEADER, MAGIC, SHARD, pair

DTYPE_CODES = {"uint16": 8, "int32": 4}  # of those in which a vocabulary fits
_ROW_TOKENS_AT_MOST = 2**31 - 1
_HELD_ROWS, _HELD_TOKENS = 1 << 12, 1 << 20
_BLOCK_ROWS = 1 << 20  # of the index, held at a time


def write_tokens(
    prefix: str | os.PathLike[str],
    rows: Iterable[npt.ArrayLike],
    *,
    dtype: str = "uint16",
) -> None:
    """Write `rows`, vectors of ids or a matrix, as prefix.bin and prefix.idx.

    `dtype` is "uint16" or "int32"; each row is a document. Rows may come from a generator: few are
    held at a time, and copied. Both files are complete before either appears under its name, the
    .bin first; after an error an older pair is what it was.
    ArgumentError for a row that is no vector of integers, an id that `dtype` does not hold, or
    where shards of that prefix lie; WriteError where the system refuses.
    """
    with TokenWriter(prefix, dtype=dtype) as out:
        held: list[npt.NDArray[Any]] = []
        tokens = 0
        for number, row in enumerate(rows):
            held.append(_ids(row, number, out.dtype))
            tokens += len(held[-1])
            if tokens >= _HELD_TOKENS or len(held) >= _HELD_ROWS:
                _append(out, held)
                held, tokens = [], 0
        if held:
            _append(out, held)


class TokenWriter:
    """An .idx/.bin pair in the making, many rows at a time.

    Used by `with`: the pair gets its names when that is left without an error, the .bin first, and
    otherwise leaves nothing. Of rows that are written nothing stays in memory. What a killed writer
    of the same prefix has left is removed: not what another still writes. ArgumentError for another
    `dtype` than "uint16" or "int32", for a prefix without a name, and where shards of that prefix
    lie, whose index would be lost; WriteError where the system refuses.
    """

    def __init__(self, prefix: str | os.PathLike[str], *, dtype: str = "uint16") -> None:
        if dtype not in DTYPE_CODES:
            raise ArgumentError(f"dtype must be one of {', '.join(DTYPE_CODES)}, got {dtype!r}")
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
        self.rows = 0
        self.tokens = 0
        self._code = DTYPE_CODES[dtype]
        self._index, self._bin = pair(prefix)
        if self._index.name in (".idx", "..idx", "...idx"):
            raise ArgumentError(
                f"{os.fspath(prefix)!r} gives the files no name: give a prefix as data/document"
            )
        self._new_index, self._new_bin = partial_of(self._index), partial_of(self._bin)
        self._opened = ExitStack()

    def __enter__(self) -> "TokenWriter":
        try:
            self._refuse_shards()
            remove_partials(self._bin)
            remove_partials(self._index)
            self._bin_file: IO[bytes] = self._opened.enter_context(self._new_bin.open("xb"))
            self._index_file: IO[bytes] = self._opened.enter_context(self._new_index.open("x+b"))
            self._index_file.write(bytes(HEADER.size))  # of what is not known yet
        except OSError as error:
            self._remove()
            raise self._refused(error) from error
        return self

    def append(self, ids: npt.NDArray[Any], lengths: npt.NDArray[np.integer[Any]]) -> None:
        """Rows one after the other, of `lengths` tokens, each a document.

        ArgumentError unless `ids` is a vector of `dtype` and holds as many, or for a row of 2^31
        tokens, which the format does not hold.
        """
        if ids.ndim != 1 or ids.dtype != self.dtype or int(lengths.sum()) != len(ids):
            raise ArgumentError(
                f"rows of {int(lengths.sum())} tokens in all need as many {self.dtype} ids, got "
                f"{ids.dtype} of shape {list(ids.shape)}"
            )
        if int(lengths.max(initial=0)) > _ROW_TOKENS_AT_MOST:
            raise _too_long(self.rows + int(lengths.argmax()), int(lengths.max()))
        try:
            self._bin_file.write(np.ascontiguousarray(ids).data)
            self._index_file.write(lengths.astype("<i4").data)  # the sizes come first in the file
        except OSError as error:
            raise self._refused(error) from error
        self.rows += len(lengths)
        self.tokens += len(ids)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._opened:
                if kind is None:
                    _complete_index(self._index_file, self.rows, self._code, self.dtype.itemsize)
                    for file in (self._bin_file, self._index_file):
                        file.flush()
                        os.fsync(file.fileno())
            if kind is None:
                # Never an old index beside a new .bin: whoever looks in between finds no index.
                self._index.unlink(missing_ok=True)
                self._new_bin.replace(self._bin)
                self._new_index.replace(self._index)
        except OSError as refused:
            raise self._refused(refused) from refused
        finally:
            self._remove()

    def _refuse_shards(self) -> None:
        stem = self._index.name.removesuffix(".idx")
        folder = self._index.parent
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            shard = SHARD.fullmatch(path.name)
            if shard and shard["stem"] == stem:
                raise ArgumentError(
                    f"{path} is a shard of the data whose index is {self._index}, which a new pair "
                    "would replace: give another prefix"
                )

    def _remove(self) -> None:
        self._opened.close()
        self._new_bin.unlink(missing_ok=True)
        self._new_index.unlink(missing_ok=True)

    def _refused(self, error: OSError) -> WriteError:
        return write_error(self._bin, error)


def is_half_published(prefix: str | os.PathLike[str]) -> bool:
    """Whether a writer was killed between the names of its two files.

    Its .bin has the name then, and its .idx has not. The next writer of the prefix removes both.
    """
    index, data = pair(prefix)
    return not index.exists() and has_dead_partial(index) and not has_dead_partial(data)


def _append(out: TokenWriter, rows: list[npt.NDArray[Any]]) -> None:
    out.append(np.concatenate(rows), np.fromiter(map(len, rows), np.int64, len(rows)))


def _complete_index(file: IO[bytes], rows: int, code: int, item_bytes: int) -> None:
    """The pointers and the documents after the sizes, and the header before them."""
    end = 0
    for begin in range(0, rows, _BLOCK_ROWS):
        count = min(_BLOCK_ROWS, rows - begin)
        file.seek(HEADER.size + 4 * begin)
        sizes = np.frombuffer(file.read(4 * count), "<i4")
        ends = end + np.cumsum(sizes, dtype="<i8") * item_bytes
        file.seek(HEADER.size + 4 * rows + 8 * begin)
        file.write((ends - sizes.astype("<i8") * item_bytes).data)
        end = int(ends[-1])
    file.seek(HEADER.size + 12 * rows)
    for begin in range(0, rows + 1, _BLOCK_ROWS):
        file.write(np.arange(begin, min(begin + _BLOCK_ROWS, rows + 1), dtype="<i8").data)
    file.seek(0)
    file.write(HEADER.pack(MAGIC, 1, code, rows, rows + 1))


def _ids(row: npt.ArrayLike, number: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    given = np.asarray(row)
    if given.ndim != 1 or (given.size > 0 and given.dtype.kind not in "iu"):
        raise ArgumentError(
            f"row {number} must be a vector of integers, got {given.dtype} of shape "
            f"{list(given.shape)}"
        )
    limits = np.iinfo(dtype)
    outside = (given < 0) | (given > limits.max)
    if outside.any():
        offset = int(outside.argmax())
        raise ArgumentError(
            f"row {number} holds id {given[offset]} at offset {offset}, which is no {dtype} token"
        )
    return np.array(given, dtype=dtype)  # a copy: the caller may use the row's memory again


def _too_long(row: int, tokens: int) -> ArgumentError:
    return ArgumentError(f"row {row} has {tokens} tokens; the format holds 2^31 - 1")
