"""Reads the header of a safetensors file: names, dtypes, shapes and byte ranges, all checked.

The format: the header's size as u64, the header as JSON, then the tensors' bytes without gaps.
No byte of a tensor is read here.
"""

from typing import Any, NoReturn

from pythia_fast.core import File
from pythia_fast.errors import FormatError, TruncatedFileError
from pythia_fast.series.strict_json import parse_object
from pythia_fast.series.tensors import ITEM_BYTES, TensorRange, bounded_product

HEADER_LIMIT_BYTES = 25_000_000
_SIZE_BYTES = 8
_INT64_MAX = 2**63 - 1


def read_safetensors(file: File) -> dict[str, TensorRange]:
    """Every tensor of the file, in the order of its bytes.

    TruncatedFileError if the file is shorter than its header says, FormatError for a header over
    25 MB, one that is no JSON object of tensors or has a key twice, and for byte ranges that
    overlap, leave gaps or do not fit dtype and shape.
    """
    if file.size < _SIZE_BYTES:
        raise TruncatedFileError(file.path, f"{file.size} bytes are too few for safetensors")
    header_bytes = int.from_bytes(file.read(0, _SIZE_BYTES), "little")
    if header_bytes > HEADER_LIMIT_BYTES:
        reason = f"the header claims {header_bytes} bytes, more than {HEADER_LIMIT_BYTES} allowed"
        raise FormatError(file.path, reason, offset=0)
    data_start = _SIZE_BYTES + header_bytes
    if data_start > file.size:
        reason = f"the header claims {header_bytes} bytes, but the file has {file.size}"
        raise TruncatedFileError(file.path, reason, offset=0)
    entries = _parse_header(file, file.read(_SIZE_BYTES, header_bytes))

    ranges = [
        (*_parse_entry(file, name, entry, file.size - data_start), name)
        for name, entry in entries.items()
    ]
    ranges.sort()
    tensors = {}
    end_of_last = 0
    for begin, end, dtype, shape, name in ranges:
        if begin != end_of_last:
            what = "leaves a gap after" if begin > end_of_last else "overlaps"
            _refuse(
                file, f"tensor {name[:200]!r} at {begin} {what} the one ending at {end_of_last}"
            )
        end_of_last = end
        tensors[name] = TensorRange(name, dtype, shape, file, data_start + begin)
    if data_start + end_of_last != file.size:
        end = data_start + end_of_last
        reason = f"the last tensor ends here, but the file has {file.size} bytes"
        raise FormatError(file.path, reason, offset=end)
    return tensors


def _refuse(file: File, reason: str) -> NoReturn:
    raise FormatError(file.path, reason, offset=_SIZE_BYTES)


def _parse_header(file: File, raw: bytes) -> dict[str, Any]:
    """The header as name -> entry, without `__metadata__`, which must map text to text."""
    if not raw.startswith(b"{"):
        _refuse(file, "the header does not begin with '{'; is this a safetensors file?")
    try:
        header = parse_object(raw)
    except ValueError as error:
        raise FormatError(
            file.path, f"the header is no valid JSON: {error}", offset=_SIZE_BYTES
        ) from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _refuse(file, "__metadata__ is no dictionary of strings")
    return header


def _parse_entry(
    file: File, name: str, entry: Any, data_bytes: int
) -> tuple[int, int, str, tuple[int, ...]]:
    """One header entry as (begin, end, dtype, shape); begin and end count from the data's start."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(file, f"the entry of {name[:200]!r} is not {{dtype, shape, data_offsets}}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        _refuse(file, f"tensor {name[:200]!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not _is_sizes(shape):
        _refuse(file, f"the shape of {name[:200]!r} is no list of sizes")
    if not _is_sizes(offsets) or len(offsets) != 2:
        _refuse(file, f"data_offsets of {name[:200]!r} is no pair of offsets")
    begin, end = offsets
    if begin > end:
        _refuse(file, f"tensor {name[:200]!r} ends at {end}, before it begins at {begin}")
    if end > data_bytes:
        reason = f"tensor {name[:200]!r} ends at {end} of the data, which has {data_bytes} bytes"
        raise TruncatedFileError(file.path, reason, offset=_SIZE_BYTES)
    elements = bounded_product(tuple(shape), data_bytes)
    if elements is None or elements * ITEM_BYTES[dtype] != end - begin:
        _refuse(
            file,
            f"tensor {name[:200]!r} has {end - begin} bytes, which is not {dtype} {_brief(shape)}",
        )
    return begin, end, dtype, tuple(shape)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size <= _INT64_MAX for size in value
    )


def _brief(shape: list[int]) -> str:
    return str(shape) if len(shape) <= 8 else f"with {len(shape)} dimensions"
