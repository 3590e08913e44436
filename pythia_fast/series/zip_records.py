"""Reads the directory of a zip whose records are stored, as `torch.save` writes it.

Accepted are unencrypted, uncompressed records, each once, whose two headers agree and whose bytes
lie inside the file and apart from each other; zip64 included. A zip that could be read in two ways
is refused. No record is read.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from pythia_fast.core import File
from pythia_fast.errors import FormatError, TruncatedFileError

DIRECTORY_LIMIT_BYTES = 16 * 2**20
"""The directory of a 12b checkpoint has about 40 kB."""

_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR_64 = struct.Struct("<4sIQI")
_UNSET_16 = 0xFFFF
_UNSET_32 = 0xFFFFFFFF
_DESCRIPTOR_FLAG = 1 << 3
_UTF8_FLAG = 1 << 11
_FOLDER_ATTRIBUTE = 1 << 4  # of MS-DOS


@dataclass(frozen=True, slots=True)
class Record:
    """One stored record: `nbytes` from `offset` of the file; `crc32` is 0 if not computed."""

    name: str
    offset: int
    nbytes: int
    crc32: int


def read_records(file: File) -> dict[str, Record]:
    """The archive's records by name without the common folder in front of them, all checked."""
    _check_magic(file)
    count, directory_at, directory_bytes = _read_end(file)
    directory = file.read(directory_at, directory_bytes)
    spans: list[tuple[int, int]] = []
    records: dict[str, Record] = {}
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > directory_bytes:
            _refuse(file, "the zip's directory ends in the middle", directory_at + position)
        entry_at = directory_at + position
        entry, extra_bytes = _Entry.parse(file, directory, position, entry_at)
        position += _CENTRAL.size + extra_bytes
        if entry.name in records:
            _refuse(file, f"the record {entry.name!r} appears twice", entry_at)
        record, end = _check_local_header(file, entry, directory_at)
        records[entry.name] = record
        spans.append((entry.header_at, end))
    if position != directory_bytes:
        _refuse(file, "the zip's directory goes on after its last record", directory_at + position)
    spans.sort()
    for (_, end), (begin, _) in pairwise(spans):
        if begin < end:
            _refuse(file, "two records of the zip overlap", begin)
    return _without_folder(file, records)


def _refuse(file: File, reason: str, offset: int | None = None) -> NoReturn:
    raise FormatError(file.path, reason, offset=offset)


def _cut(file: File, reason: str, offset: int | None = None) -> NoReturn:
    raise TruncatedFileError(file.path, reason, offset=offset)


def _check_magic(file: File) -> None:
    start = file.read(0, min(file.size, len(_LEGACY_MAGIC)))
    if start == _LEGACY_MAGIC:
        _refuse(
            file,
            "written by torch before 1.6, whose format is a bare pickle and is not read here; load "
            "it with torch.load(weights_only=True) and save it again with torch.save",
        )
    if not start.startswith(b"PK\x03\x04"):
        _refuse(file, "no zip archive, so it is not from torch.save", 0)
    if file.size < _LOCAL.size + _CENTRAL.size + _END.size:
        _cut(file, f"{file.size} bytes are too few for a zip archive")


def _read_end(file: File) -> tuple[int, int, int]:
    """(number of records, offset and size of the directory), from the end records of the zip."""
    end_at = file.size - _END.size
    signature, *fields, comment = _END.unpack(file.read(end_at, _END.size))
    if signature != b"PK\x05\x06" or comment:
        _cut(file, "the zip's end record is not at the end; the file is cut, or goes on after it")
    directory_end = end_at
    locator_at = end_at - _LOCATOR_64.size
    if file.read(locator_at, 4) == b"PK\x06\x07":
        directory_end, fields = _read_end_64(file, locator_at, fields)
    disk, start_disk, here, count, size, start = fields
    if disk or start_disk or here != count:
        _refuse(file, "the zip claims to be one of several volumes", end_at)
    if size > DIRECTORY_LIMIT_BYTES:
        reason = f"the zip's directory claims {size} bytes; {DIRECTORY_LIMIT_BYTES} are allowed"
        _refuse(file, reason, end_at)
    if start + size != directory_end:
        reason = (
            f"the zip's directory claims bytes {start} to {start + size}, but what follows it "
            f"begins at {directory_end}"
        )
        _refuse(file, reason, end_at)
    if count * _CENTRAL.size > size:
        _refuse(file, f"the zip claims {count} records in a directory of {size} bytes", end_at)
    return count, start, size


def _read_end_64(file: File, locator_at: int, fields_32: list[int]) -> tuple[int, list[int]]:
    """Where the 64-bit end record begins, and its fields; the 32-bit ones must say the same."""
    _, end_disk, end_at, disks = _LOCATOR_64.unpack(file.read(locator_at, _LOCATOR_64.size))
    if end_disk or disks != 1 or end_at + _END_64.size != locator_at:
        _refuse(file, "the zip's 64-bit end record is not where its locator says", locator_at)
    signature, length, _, _, *fields_64 = _END_64.unpack(file.read(end_at, _END_64.size))
    if signature != b"PK\x06\x06" or length != _END_64.size - 12:
        _refuse(file, "the zip's 64-bit end record is malformed", end_at)
    unset = (_UNSET_16, _UNSET_16, _UNSET_16, _UNSET_16, _UNSET_32, _UNSET_32)
    for small, none, large in zip(fields_32, unset, fields_64, strict=True):
        if small not in (none, large):
            _refuse(file, "the zip's two end records contradict each other", end_at)
    return end_at, fields_64


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the directory."""

    name: str
    flags: int
    crc32: int
    nbytes: int
    header_at: int

    @classmethod
    def parse(cls, file: File, directory: bytes, at: int, where: int) -> tuple["_Entry", int]:
        """The entry at `at`, and how many bytes of name, extra fields and comment follow it."""
        fields = _CENTRAL.unpack_from(directory, at)
        signature, _, _, flags, method, _, _, crc32, compressed, nbytes = fields[:10]
        name_bytes, extra_bytes, comment_bytes, disk, _, attributes, header_at = fields[10:]
        if signature != b"PK\x01\x02":
            _refuse(file, "an entry of the zip's directory lacks its signature", where)
        tail_bytes = name_bytes + extra_bytes + comment_bytes
        tail = directory[at + _CENTRAL.size : at + _CENTRAL.size + tail_bytes]
        if len(tail) != tail_bytes:
            _refuse(file, "the zip's directory ends in the middle of an entry", where)
        name = _decode_name(file, tail[:name_bytes], where)
        extra = tail[name_bytes : name_bytes + extra_bytes]
        _check_flags(file, name, flags, method, where)
        nbytes, compressed, header_at = _widen(file, extra, (nbytes, compressed, header_at), where)
        if disk not in (0, _UNSET_16):
            _refuse(file, f"the record {name!r} claims to lie in another volume", where)
        if compressed != nbytes:
            _refuse(file, f"the record {name!r} is stored, yet its two sizes differ", where)
        if nbytes and (attributes & _FOLDER_ATTRIBUTE or name.endswith("/")):
            # torch reads nothing from it then, and gives whatever its memory held before.
            _refuse(file, f"the record {name!r} has content, yet claims to be a folder", where)
        return cls(name, flags, crc32, nbytes, header_at), tail_bytes


def _decode_name(file: File, raw: bytes, where: int) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        _refuse(file, f"the record's name {raw[:80]!r} is no UTF-8", where)
    if "\0" in name:
        _refuse(file, f"the record's name {name[:80]!r} holds a zero byte", where)
    return name


def _check_flags(file: File, name: str, flags: int, method: int, where: int) -> None:
    if flags & 1:
        _refuse(file, f"the record {name!r} is encrypted", where)
    if flags & ~(_DESCRIPTOR_FLAG | _UTF8_FLAG):
        _refuse(file, f"the record {name!r} has the flags {flags:#x}", where)
    if method:
        reason = f"the record {name!r} is compressed (method {method}); torch.save only stores"
        _refuse(file, reason, where)


def _widen(file: File, extra: bytes, sizes: tuple[int, ...], where: int) -> tuple[int, ...]:
    """`sizes` with those that read 0xFFFFFFFF replaced from the zip64 field, in order."""
    wide: bytes | None = None
    position = 0
    while position < len(extra):
        if position + 4 > len(extra):
            _refuse(file, "an extra field of the zip ends in the middle", where)
        kind, length = struct.unpack_from("<HH", extra, position)
        body = extra[position + 4 : position + 4 + length]
        if len(body) != length or (kind == 1 and wide is not None):
            _refuse(file, "an extra field of the zip is cut or appears twice", where)
        if kind == 1:
            wide = body
        position += 4 + length
    if _UNSET_32 not in sizes:
        return sizes
    needed = 8 * sizes.count(_UNSET_32)
    if wide is None or len(wide) < needed:
        _refuse(file, "a record needs 64-bit sizes that the zip does not give", where)
    values = iter(struct.unpack_from(f"<{needed // 8}Q", wide))
    return tuple(next(values) if size == _UNSET_32 else size for size in sizes)


def _check_local_header(file: File, entry: _Entry, directory_at: int) -> tuple[Record, int]:
    """The record, once its header beside the data agrees, and the offset at which it ends."""
    at = entry.header_at
    if at + _LOCAL.size > directory_at:
        _refuse(file, f"the header of {entry.name!r} lies outside the records", at)
    fields = _LOCAL.unpack(file.read(at, _LOCAL.size))
    signature, _, flags, method, _, _, crc32, compressed, nbytes, name_bytes, extra_bytes = fields
    begin = at + _LOCAL.size + name_bytes + extra_bytes
    if signature != b"PK\x03\x04" or begin > directory_at:
        _refuse(file, f"{entry.name!r} has no header where the directory says", at)
    tail = file.read(at + _LOCAL.size, name_bytes + extra_bytes)
    if tail[:name_bytes] != entry.name.encode() or flags != entry.flags or method:
        _refuse(file, f"the two headers of {entry.name!r} contradict each other", at)
    later = flags & _DESCRIPTOR_FLAG and (crc32, compressed, nbytes) == (0, 0, 0)
    if not later:
        nbytes, compressed = _widen(file, tail[name_bytes:], (nbytes, compressed), at)
        if (crc32, compressed, nbytes) != (entry.crc32, entry.nbytes, entry.nbytes):
            _refuse(file, f"the two headers of {entry.name!r} give different sizes", at)
    end = begin + entry.nbytes
    if end > directory_at:
        _cut(file, f"the record {entry.name!r} goes on beyond the records' end", begin)
    if flags & _DESCRIPTOR_FLAG:
        end += _check_descriptor(file, entry, end, directory_at)
    return Record(entry.name, begin, entry.nbytes, entry.crc32), end


def _check_descriptor(file: File, entry: _Entry, at: int, directory_at: int) -> int:
    """The size of the descriptor after the data (16 bytes, 24 with 64-bit sizes)."""
    for layout in ("<4sIII", "<4sIQQ"):
        length = struct.calcsize(layout)
        if at + length <= directory_at and struct.unpack(layout, file.read(at, length)) == (
            b"PK\x07\x08",
            entry.crc32,
            entry.nbytes,
            entry.nbytes,
        ):
            return length
    _refuse(file, f"what follows the record {entry.name!r} contradicts its header", at)


def _without_folder(file: File, records: dict[str, Record]) -> dict[str, Record]:
    folders = {name.partition("/")[0] for name in records}
    if len(folders) != 1 or any("/" not in name for name in records):
        _refuse(
            file, "the archive's records do not lie in one folder, so it is not from torch.save"
        )
    return {name.partition("/")[2]: record for name, record in records.items()}
