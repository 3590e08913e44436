"""The reader of pytorch_model.bin against torch itself, and against archives that lie."""

import io
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_fast.core import File
from pythia_fast.errors import FormatError, TruncatedFileError, UnsafePickleError
from pythia_fast.series import read_torch_zip

DTYPES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
}
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def saved(content: object) -> bytes:
    target = io.BytesIO()
    torch.save(content, target)
    return target.getvalue()


def assert_same(file: File, content: bytes) -> None:
    """Names, order, dtypes, shapes and bytes are those of torch.load."""
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    ranges = read_torch_zip(file)
    assert list(ranges) == list(loaded)
    for name, tensor in loaded.items():
        found = ranges[name]
        assert (found.name, found.dtype, found.shape) == (
            name,
            DTYPES[tensor.dtype],
            tuple(tensor.shape),
        )
        raw = bytes(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
        assert file.read(found.offset, found.nbytes) == raw


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(shapes, st.sampled_from(list(DTYPES))), max_size=6), st.booleans())
def test_every_range_holds_the_bytes_that_torch_loads(
    files, contents: list[tuple[tuple[int, ...], torch.dtype]], ordered: bool
) -> None:
    tensors = {f"t{i}": torch.randint(0, 2, s).to(d) for i, (s, d) in enumerate(contents)}
    content = saved(OrderedDict(tensors) if ordered else tensors)
    assert_same(files.open(content), content)


def test_views_and_shared_storages(files) -> None:
    base = torch.arange(24.0)
    content = saved(
        {
            "whole": base,
            "again": base,
            "reshaped": base.view(4, 6),
            "tail": base[10:],
            "rows": base.view(4, 6)[1:3],
            "one": base[7],
            "odd strides of a single row": base.view(4, 6)[:1, :].as_strided((1, 6), (99, 1)),
            "nothing": base[5:5],
        }
    )
    assert_same(files.open(content), content)


def test_modules_parameters_and_metadata(files) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).half()
    for content in (saved(module.state_dict()), saved(dict(module.named_parameters()))):
        assert_same(files.open(content), content)


def test_many_tensors_use_the_long_memo(files) -> None:
    content = saved({f"layer.{i}": torch.tensor([float(i)]) for i in range(400)})
    assert_same(files.open(content), content)


def test_an_archive_without_checksums(files) -> None:
    assert torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        content = saved({"a": torch.ones(4)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(files.open(content), content)


def test_an_archive_as_other_tools_write_it(files, pickles) -> None:
    pickle = pickles.dictionary({"a": pickles.tensor()})
    data = torch.arange(6).half().numpy().tobytes()
    records = {"data/0": data, "byteorder": b"little", ".data/serialization_id": b"1" * 40}
    file = files.open(files.archive(pickle, records))
    found = read_torch_zip(file)["a"]
    assert file.read(found.offset, found.nbytes) == data


def test_a_record_beyond_4_gb(tmp_path: Path, pickles) -> None:
    """Zip64 in all its places, over a hole of 4.5 GB that takes no room on the disk."""
    path = tmp_path / "large.bin"
    elements = 9 * 2**28  # 4.5 GiB of half
    pickle = pickles.dictionary(
        {
            "last": pickles.tensor((2,), (1,), start=elements - 2, elements=elements),
            "after": pickles.tensor((1,), (1,), elements=1, key="1"),
        }
    )
    directory = b""
    with path.open("wb") as file:
        records = [("data.pkl", pickle), ("version", b"3\n"), ("data/0", None), ("data/1", b"ab")]
        for name, content in records:
            raw = b"a/" + name.encode()
            nbytes = 2 * elements if content is None else len(content)
            at = file.tell()
            wide = max(nbytes, at) > 0xFFFFFFFE
            small = [0xFFFFFFFF] * 2 if wide else [nbytes] * 2
            local_extra = struct.pack("<HHQQ", 1, 16, nbytes, nbytes) if wide else b""
            header = (20, 0, 0, 0, 0, 0, *small, len(raw), len(local_extra))
            file.write(struct.pack("<4sHHHHHIIIHH", b"PK\3\4", *header) + raw + local_extra)
            if content is None:
                file.seek(nbytes - 4, 1)
                file.write(b"wxyz")
            else:
                file.write(content)
            extra = struct.pack("<HHQQQ", 1, 24, nbytes, nbytes, at) if wide else b""
            header = (20, 20, 0, 0, 0, 0, 0, *small, len(raw), len(extra), 0, 0, 0, 0)
            directory += struct.pack("<4sHHHHHHIIIHHHHHI", b"PK\1\2", *header)
            directory += struct.pack("<I", 0xFFFFFFFF if wide else at) + raw + extra
        start = file.tell()
        file.write(directory)
        end = file.tell()
        fields = (44, 45, 45, 0, 0, 4, 4, len(directory), start)
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", *fields))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        limits = (0, 0, 4, 4, len(directory), 0xFFFFFFFF, 0)
        file.write(struct.pack("<4sHHHHIIH", b"PK\5\6", *limits))
    file = File(path)
    ranges = read_torch_zip(file)
    assert file.read(ranges["last"].offset, 4) == b"wxyz"
    assert file.read(ranges["after"].offset, 2) == b"ab"


def test_a_foreign_global_in_an_archive_does_not_run(files, tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
            return open, (str(tmp_path / "it-ran"), "w")

    content = saved({"a": torch.ones(2), "b": Command()})
    with pytest.raises(UnsafePickleError, match=r"io\.open") as caught:
        read_torch_zip(files.open(content))
    assert content[caught.value.offset or 0 :].startswith(b"c")
    assert not (tmp_path / "it-ran").exists()


def test_files_from_before_torch_1_6_say_so(files) -> None:
    target = io.BytesIO()
    torch.save({"a": torch.ones(2)}, target, _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"before 1\.6"):
        read_torch_zip(files.open(target.getvalue()))


def test_other_files_are_refused(files) -> None:
    for content in (
        b"",
        b"x",
        b"hello" * 100,
        b"PK\3\4",
        b"PK\3\4" + bytes(10),
        b"PK\5\6" + bytes(18),
    ):
        with pytest.raises(FormatError):
            read_torch_zip(files.open(content))


def test_a_file_cut_anywhere_is_truncated(files) -> None:
    content = saved({"a": torch.ones(3), "b": torch.ones(2, 2).half()})
    lengths = {*range(0, len(content), 7), *range(len(content) - 200, len(content))}
    for length in sorted(lengths):
        with pytest.raises(FormatError) as caught:
            read_torch_zip(files.open(content[:length]))
        assert isinstance(caught.value, TruncatedFileError) or length < 4


def test_bytes_after_the_end_are_refused(files) -> None:
    content = saved({"a": torch.ones(3)})
    with pytest.raises(FormatError, match="end record"):
        read_torch_zip(files.open(content + b"\0"))


# Archives that lie. `good` is one by Python's zipfile: no descriptors, no 64-bit records.


def good(files, pickles) -> bytes:
    pickle = pickles.dictionary({"a": pickles.tensor()})
    return files.archive(pickle, {"data/0": bytes(12), "data/1": bytes(12)})


def patched(content: bytes, at: int, layout: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


def directory_entry(content: bytes, name: str) -> int:
    return content.rindex(name.encode()) - 46


def local_header(content: bytes, name: str) -> int:
    return content.index(name.encode()) - 30


END = -22
PATCHES: dict[str, tuple[str, int, str, int, str]] = {
    # where ("d" directory entry, "l" local header, "e" end record), offset in it, layout, value
    "compressed in the directory": ("d", 10, "<H", 8, "compressed"),
    "compressed beside the data": ("l", 8, "<H", 8, "contradict"),
    "encrypted": ("d", 8, "<H", 1, "encrypted"),
    "strongly encrypted": ("d", 8, "<H", 1 << 6, "flags 0x40"),
    "hidden header": ("d", 8, "<H", 1 << 13, "flags 0x2000"),
    "other flags beside the data": ("l", 6, "<H", 1 << 11, "contradict"),
    "a descriptor that is not there": ("d", 8, "<H", 1 << 3, "contradict"),
    "another size in the directory": ("d", 24, "<I", 11, "two sizes differ"),
    "another size beside the data": ("l", 22, "<I", 11, "different sizes"),
    "another crc beside the data": ("l", 14, "<I", 5, "different sizes"),
    "another name beside the data": ("l", 30, "<B", ord("x"), "contradict"),
    "a longer name beside the data": ("l", 26, "<H", 60_000, "no header"),
    "an unknown extra field": ("l", 28, "<H", 4, "contradict|different|overlap|cut|beyond"),
    "a header elsewhere": ("d", 42, "<I", 3, "no header"),
    "a header outside": ("d", 42, "<I", 0x7FFFFFFF, "outside"),
    "a header beyond 4 GB": ("d", 42, "<I", 0xFFFFFFFF, "64-bit"),
    "another volume": ("d", 34, "<H", 2, "volume"),
    "a folder with content": ("d", 38, "<I", 0x10, "folder"),
    "no signature in the directory": ("d", 0, "<I", 0, "signature"),
    "no signature beside the data": ("l", 0, "<I", 0, "no header"),
    "a long name in the directory": ("d", 28, "<H", 0xFFFF, "ends in the middle"),
    "an extra field too long": ("d", 30, "<H", 0xFFFF, "ends in the middle"),
    "several volumes": ("e", 4, "<H", 1, "volumes"),
    "several volumes by count": ("e", 8, "<H", 1, "volumes"),
    "directory too large": ("e", 12, "<I", 0x7FFFFFFF, "allowed"),
    "directory elsewhere": ("e", 16, "<I", 0, "begins at"),
    "directory beyond the file": ("e", 16, "<I", 0xFFFFFFFE, "begins at"),
    "a comment": ("e", 20, "<H", 1, "end record"),
}


@pytest.mark.parametrize("attack", PATCHES)
def test_an_archive_that_lies_is_refused(files, pickles, attack: str) -> None:
    where, offset, layout, value, reason = PATCHES[attack]
    content = good(files, pickles)
    base = {
        "d": directory_entry(content, "archive/data/0"),
        "l": local_header(content, "archive/data/0"),
        "e": len(content) + END,
    }[where]
    assert read_torch_zip(files.open(content))
    with pytest.raises(FormatError, match=reason):
        read_torch_zip(files.open(patched(content, base + offset, layout, value)))


@pytest.mark.parametrize("count", [0, 3, 5, 1000, 0xFFFF])
def test_a_wrong_number_of_records_is_refused(files, pickles, count: int) -> None:
    content = good(files, pickles)
    content = patched(content, len(content) + END + 8, "<H", count)
    content = patched(content, len(content) + END + 10, "<H", count)
    with pytest.raises(FormatError):
        read_torch_zip(files.open(content))


ZIP_64_PATCHES: dict[str, tuple[str, int, str, int]] = {
    "huge count": ("r", 32, "<Q", 2**63),
    "huge counts": ("r", 24, "<Q", 2**63),
    "huge directory": ("r", 40, "<Q", 2**63),
    "directory beyond the file": ("r", 48, "<Q", 2**64 - 1),
    "a volume": ("r", 16, "<I", 7),
    "another length": ("r", 4, "<Q", 2**40),
    "no signature": ("r", 0, "<I", 0),
    "locator points elsewhere": ("l", 8, "<Q", 0),
    "locator points beyond": ("l", 8, "<Q", 2**64 - 1),
    "locator of several volumes": ("l", 16, "<I", 9),
    "end records contradict": ("e", 10, "<H", 9),
}


@pytest.mark.parametrize("attack", ZIP_64_PATCHES)
def test_64_bit_end_records_that_lie_are_refused(files, attack: str) -> None:
    where, offset, layout, value = ZIP_64_PATCHES[attack]
    content = saved({"a": torch.ones(3)})
    base = len(content) - {"e": 22, "l": 42, "r": 98}[where]
    assert content[base : base + 2] == b"PK"
    with pytest.raises(FormatError):
        read_torch_zip(files.open(patched(content, base + offset, layout, value)))


def test_a_descriptor_that_contradicts_is_refused(files) -> None:
    content = saved({"a": torch.ones(3)})
    descriptors = [i for i in range(len(content)) if content.startswith(b"PK\x07\x08", i)]
    assert descriptors
    for at in descriptors:
        for offset in (0, 4, 8, 12):
            with pytest.raises(FormatError, match="what follows the record"):
                read_torch_zip(files.open(patched(content, at + offset, "<I", 77)))


def test_duplicate_compressed_and_overlapping_records(files, pickles) -> None:
    pickle = pickles.dictionary({"a": pickles.tensor()})
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", pickle)
    with pytest.raises(FormatError, match="appears twice"):
        read_torch_zip(files.open(target.getvalue()))

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle * 20)
    with pytest.raises(FormatError, match="compressed"):
        read_torch_zip(files.open(target.getvalue()))

    inner = good(files, pickles)  # a record that contains another record's header and data
    outer = files.archive(pickle, {"data/0": bytes(12), "inner": inner[: inner.index(b"PK\1\2")]})
    hidden = outer.index(b"archive/data/1") - 30
    extra = bytearray(outer[directory_entry(outer, "archive/inner") : len(outer) + END])
    entry = bytearray(inner[directory_entry(inner, "archive/data/1") : len(inner) + END])
    struct.pack_into("<I", entry, 42, hidden)
    end = bytearray(outer[END:])
    count, size = 5, struct.unpack_from("<I", end, 12)[0] + len(entry)
    struct.pack_into("<HHI", end, 8, count, count, size)
    assert extra
    with pytest.raises(FormatError, match="overlap"):
        read_torch_zip(files.open(outer[:END] + bytes(entry) + bytes(end)))


def test_records_must_share_one_folder(files, pickles) -> None:
    pickle = pickles.dictionary({"a": pickles.tensor()})
    names = {"one/data.pkl": pickle, "two/version": b"3\n"}, {"data.pkl": pickle, "version": b"3\n"}
    for records in names:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in records.items():
                archive.writestr(name, content)
        with pytest.raises(FormatError, match="one folder"):
            read_torch_zip(files.open(target.getvalue()))


@pytest.mark.parametrize(
    ("record", "content", "reason"),
    [
        ("byteorder", b"big", "byte order"),
        ("byteorder", b"little" * 100, "byte order"),
        ("version", b"99\n", "version"),
        ("version", b"\xb2", "version"),
        ("version", b"", "version"),
    ],
)
def test_small_records(files, pickles, record: str, content: bytes, reason: str) -> None:
    pickle = pickles.dictionary({"a": pickles.tensor()})
    records = {"data.pkl": pickle, "data/0": bytes(12), "version": b"3\n", record: content}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, raw in records.items():
            archive.writestr(f"archive/{name}", raw)
    with pytest.raises(FormatError, match=reason):
        read_torch_zip(files.open(target.getvalue()))


def test_a_flipped_bit_in_the_pickle_is_found_by_its_checksum(files) -> None:
    """One digit decides which storage a tensor has: no other check would notice."""
    content = saved({"a": torch.zeros(2), "b": torch.ones(2)})
    at = content.index(b"X\x01\x00\x00\x001") + 5
    with pytest.raises(FormatError, match="CRC-32"):
        read_torch_zip(files.open(content[:at] + b"0" + content[at + 1 :]))


TENSORS: dict[str, tuple[dict[str, object], str]] = {
    "missing storage": ({"key": "7"}, "missing"),
    "storage by path": ({"key": "../data.pkl"}, "missing"),
    "storage larger than its record": ({"elements": 7}, "record has 12 bytes"),
    "storage smaller than its record": ({"elements": 5}, "record has 12 bytes"),
    "negative storage": ({"elements": -6}, "record has 12 bytes"),
    "another type": ({"kind": "FloatStorage"}, "record has 12 bytes"),
    "starts too late": ({"start": 1}, "leaves its storage"),
    "negative start": ({"start": -1}, "negative"),
    "negative size": ({"shape": (-2, -3)}, "negative"),
    "too large": ({"shape": (3, 3), "strides": (3, 1)}, "leaves its storage"),
    "product overflows": ({"shape": (2**32, 2**32), "strides": (1, 1)}, "leaves its storage"),
    "nothing, far away": ({"shape": (0, 3), "start": 2**60}, "leaves its storage"),
    "transposed": ({"strides": (1, 2)}, "not contiguous"),
    "overlapping rows": ({"strides": (1, 1)}, "not contiguous"),
    "expanded": ({"strides": (0, 1)}, "not contiguous"),
    "negative strides": ({"strides": (-3, -1)}, "not contiguous"),
}


@pytest.mark.parametrize("attack", TENSORS)
def test_a_tensor_outside_its_storage_is_refused(files, pickles, attack: str) -> None:
    changes, reason = TENSORS[attack]
    pickle = pickles.dictionary({"a": pickles.tensor(**changes)})
    with pytest.raises(FormatError, match=reason):
        read_torch_zip(files.open(files.archive(pickle, {"data/0": bytes(12)})))


def test_no_pickle_and_a_huge_one(files, pickles) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/version", b"3\n")
    with pytest.raises(FormatError, match=r"no record data\.pkl"):
        read_torch_zip(files.open(target.getvalue()))
    with pytest.raises(FormatError, match="are allowed"):
        read_torch_zip(files.open(files.archive(bytes(3 * 2**20), {})))


def overwrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)


def test_flipped_bytes_give_a_typed_error_or_ranges_inside_the_file(tmp_path: Path, files) -> None:
    whole = saved({f"layer.{i}": torch.ones(3, i + 1).half() for i in range(3)})
    rng = random.Random(20_240_504)
    path = tmp_path / "flipped"
    path.write_bytes(whole)
    outcomes = {True: 0, False: 0}
    for _ in range(2500):
        flipped = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        overwrite(path, flipped)
        file = File(path)
        try:
            ranges = read_torch_zip(file)
        except FormatError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert all(r.offset + r.nbytes <= file.size for r in ranges.values())
    assert min(outcomes.values()) > 50
