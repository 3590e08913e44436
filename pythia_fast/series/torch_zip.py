"""Reads `pytorch_model.bin`: a zip of stored records, one of them a pickle (torch since 1.6).

The pickle, interpreted and never run, says which tensor lies where in which record; each must be a
dense part of a whole record. The tensors' bytes are not read.
"""

import zlib
from typing import Any, NoReturn

from pythia_fast.core import File
from pythia_fast.errors import FormatError
from pythia_fast.series.pickle_reader import PICKLE_LIMIT_BYTES, TensorView, read_pickle
from pythia_fast.series.plain_pickle import read_plain_pickle
from pythia_fast.series.tensors import ITEM_BYTES, TensorRange, bounded_product
from pythia_fast.series.zip_records import Record, read_records

_FORMAT_VERSIONS = range(1, 11)


def read_torch_zip(file: File) -> dict[str, TensorRange]:
    """Every tensor of the file under its name, in the pickle's order.

    FormatError for a zip or a pickle that is not as `torch.save` writes it (a file from before
    torch 1.6 among them), TruncatedFileError for a file that was cut, UnsafePickleError for a
    pickle that asks for more than tensors.
    """
    raw, offset, records = _read_pickle_record(file)
    views = read_pickle(raw, file.path, offset)
    return {name: _locate(file, name, view, records) for name, view in views.items()}


def read_torch_state(file: File, key: str | None = None) -> dict[str, TensorRange] | None:
    """The tensors of a dictionary with other plain values too, which are passed over.

    With `key` those of the dictionary under it, or None if there is nothing under it (a missing
    entry, or Python's None). The errors of `read_torch_zip`.
    """
    raw, offset, records = _read_pickle_record(file)
    state: Any = read_plain_pickle(raw, file.path, offset)
    if key is not None:
        state = state.get(key)
        if state is None:
            return None
        if not isinstance(state, dict):
            _refuse(file, f"the entry {key!r} is no dictionary of tensors", offset)
    return {
        name: _locate(file, name, view, records)
        for name, view in state.items()
        if isinstance(name, str) and isinstance(view, TensorView)
    }


def _read_pickle_record(file: File) -> tuple[bytes, int, dict[str, Record]]:
    """The pickle, its offset in the file, and all records."""
    records = read_records(file)
    _check_small_records(file, records)
    pickle = records.get("data.pkl")
    if pickle is None:
        _refuse(file, "the archive has no record data.pkl, so it is not from torch.save")
    if pickle.nbytes > PICKLE_LIMIT_BYTES:
        reason = f"data.pkl has {pickle.nbytes} bytes; {PICKLE_LIMIT_BYTES} are allowed"
        _refuse(file, reason, pickle.offset)
    raw = file.read(pickle.offset, pickle.nbytes)
    if pickle.crc32 not in (0, zlib.crc32(raw)):
        _refuse(file, "data.pkl does not have its CRC-32; the file is damaged", pickle.offset)
    return raw, pickle.offset, records


def _refuse(file: File, reason: str, offset: int | None = None) -> NoReturn:
    raise FormatError(file.path, reason, offset=offset)


def _check_small_records(file: File, records: dict[str, Record]) -> None:
    """`version` is a number torch knows; `byteorder`, where it is given, is little."""

    def content(name: str) -> bytes | None:
        record = records.get(name)
        if record is None:
            return None
        return file.read(record.offset, min(record.nbytes, 16))

    version = (content("version") or b"").strip()
    if not version.isdigit() or int(version) not in _FORMAT_VERSIONS:
        _refuse(file, f"the archive's format version {version!r} is unknown")
    if content("byteorder") not in (None, b"little"):
        _refuse(file, f"the byte order is {content('byteorder')!r}; only little-endian is read")


def _locate(file: File, name: str, view: TensorView, records: dict[str, Record]) -> TensorRange:
    """The bytes of a tensor that is dense and inside its storage, which is a whole record."""
    storage = view.storage
    shown = repr(name[:200])
    record = records.get(f"data/{storage.key}")
    if record is None:
        _refuse(file, f"tensor {shown} lies in the storage {storage.key[:40]!r}, which is missing")
    item_bytes = ITEM_BYTES[storage.dtype]
    if storage.elements < 0 or storage.elements * item_bytes != record.nbytes:
        reason = (
            f"the storage of {shown} claims {storage.elements} numbers of {storage.dtype}, "
            f"but its record has {record.nbytes} bytes"
        )
        _refuse(file, reason, record.offset)
    geometry = f"tensor {shown} of shape {list(view.shape)} with strides {list(view.strides)}"
    if min((view.start, *view.shape)) < 0:
        _refuse(file, f"{geometry} has a negative size or offset", record.offset)
    elements = bounded_product(view.shape, storage.elements)
    if elements is None or view.start + elements > storage.elements:
        reason = f"{geometry} from element {view.start} leaves its storage of {storage.elements}"
        _refuse(file, reason, record.offset)
    if elements and not _is_contiguous(view.shape, view.strides):
        _refuse(file, f"{geometry} is not contiguous; only dense tensors are read", record.offset)
    offset = record.offset + view.start * item_bytes
    return TensorRange(name, storage.dtype, view.shape, file, offset)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
