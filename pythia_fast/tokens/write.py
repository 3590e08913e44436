"""Write token ids as an .idx/.bin pair that GPT-NeoX and Megatron-LM read."""

import os
import secrets
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.tokens.files import pair

DTYPE_CODES = {"uint16": 8, "int32": 4}  # of those in which a vocabulary fits


def write_tokens(
    prefix: str | os.PathLike[str],
    rows: Iterable[npt.ArrayLike],
    *,
    dtype: str = "uint16",
) -> None:
    """Write `rows`, vectors of ids or a matrix, as prefix.bin and prefix.idx.

    `dtype` is "uint16" or "int32"; each row is a document. Rows may come from a generator: only
    their lengths are kept. Both files are complete before either appears under its name, the .bin
    first; after an error an older pair is what it was.
    ArgumentError for a row that is no vector of integers or an id that `dtype` does not hold;
    WriteError where the system refuses.
    """
    if dtype not in DTYPE_CODES:
        raise ArgumentError(f"dtype must be one of {', '.join(DTYPE_CODES)}, got {dtype!r}")
    index, bin_ = pair(prefix)
    new_index, new_bin = _partial(index), _partial(bin_)
    try:
        with new_bin.open("xb") as file:
            lengths = _write_ids(file, rows, np.dtype(dtype))
            _flush(file)
        with new_index.open("xb") as file:
            _write_index(file, lengths, dtype)
            _flush(file)
        # Never an old index beside a new .bin: whoever looks in between finds no index.
        index.unlink(missing_ok=True)
        new_bin.replace(bin_)
        new_index.replace(index)
    except OSError as error:
        raise WriteError(error.errno, error.strerror, str(bin_)) from error
    finally:
        new_bin.unlink(missing_ok=True)
        new_index.unlink(missing_ok=True)


def _write_ids(
    file: IO[bytes], rows: Iterable[npt.ArrayLike], dtype: np.dtype[Any]
) -> npt.NDArray[np.int32]:
    lengths: list[int] = []
    for number, row in enumerate(rows):
        ids = _ids(row, number, dtype)
        lengths.append(len(ids))
        file.write(ids.data)
    return np.array(lengths, dtype="<i4")


def _write_index(file: IO[bytes], lengths: npt.NDArray[np.int32], dtype: str) -> None:
    ends = np.cumsum(lengths, dtype="<i8") * np.dtype(dtype).itemsize
    pointers = np.concatenate([np.zeros(1, dtype="<i8"), ends])[:-1]
    documents = np.arange(len(lengths) + 1, dtype="<i8")
    file.write(b"MMIDIDX\0\0")
    file.write(struct.pack("<QBQQ", 1, DTYPE_CODES[dtype], len(lengths), len(documents)))
    for part in (lengths, pointers, documents):
        file.write(part.data)


def _ids(row: npt.ArrayLike, number: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    given = np.asarray(row)
    if given.ndim != 1 or (given.size > 0 and given.dtype.kind not in "iu"):
        raise ArgumentError(
            f"row {number} must be a vector of integers, got {given.dtype} of shape "
            f"{list(given.shape)}"
        )
    if len(given) > np.iinfo(np.int32).max:
        raise ArgumentError(f"row {number} has {len(given)} tokens; the format holds 2^31 - 1")
    limits = np.iinfo(dtype)
    outside = (given < 0) | (given > limits.max)
    if outside.any():
        offset = int(outside.argmax())
        raise ArgumentError(
            f"row {number} holds id {given[offset]} at offset {offset}, which is no {dtype} token"
        )
    return np.ascontiguousarray(given, dtype=dtype.newbyteorder("<"))


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
