"""read_tensors against NumPy (bfloat16: against float64 and its two neighbours)."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.core import File, Read, instruction_sets, read_tensors
from pythia_fast.errors import ArgumentError, TruncatedFileError

ITEM = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
NUMPY = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
SETS = instruction_sets()


def from_bf16(bits):
    """The exact float32 values of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


BF16_VALUES = from_bf16(np.arange(0x7F81, dtype=np.uint16)).astype(np.float64)
BF16_VALUES[0x7F80] = 2.0**128  # infinity rounds as if the next power of two were there


def to_bf16(values):
    """The bfloat16 bits nearest to float64 values, ties to even: found by looking at neighbours."""
    magnitude = np.abs(values)
    below = np.clip(np.searchsorted(BF16_VALUES, magnitude, side="right") - 1, 0, 0x7F80)
    above = np.minimum(below + 1, 0x7F80)
    with np.errstate(invalid="ignore"):
        down, up = magnitude - BF16_VALUES[below], BF16_VALUES[above] - magnitude
    nearest = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, below)
    nearest = np.where(magnitude >= BF16_VALUES[0x7F80], 0x7F80, nearest)
    nearest = np.where(np.isnan(values), 0x7FC0, nearest)
    return (nearest | (np.signbit(values).astype(np.int64) << 15)).astype(np.uint16)


def as_float64(raw, dtype):
    values = from_bf16(raw.view(np.uint16)) if dtype == "BF16" else raw.view(NUMPY[dtype])
    with np.errstate(invalid="ignore"):  # signalling NaN
        return values.astype(np.float64)


def expected(raw, source, destination):
    """The converted values as float64."""
    if destination == "BF16":
        return from_bf16(to_bf16(as_float64(raw, source))).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return as_float64(raw, source).astype(NUMPY[destination]).astype(np.float64)


def hard_values(dtype):
    """Every float16 and bfloat16; of the wider ones all kinds, and what lies halfway."""
    if dtype in ("F16", "BF16"):
        return np.arange(65536, dtype=np.uint16).view(np.uint8)
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 2**63, 100_000, dtype=np.uint64) * 2 + rng.integers(
        0, 2, 100_000, np.uint64
    )
    half = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float64)
    half[-1] = 65536.0
    brain = from_bf16(np.arange(0x7F80, dtype=np.uint16)).astype(np.float64)
    ties = np.concatenate([(half[:-1] + half[1:]) / 2, (brain[:-1] + brain[1:]) / 2])
    with np.errstate(over="ignore", invalid="ignore"):
        chosen = np.concatenate(
            [
                ties,
                -ties,
                np.nextafter(ties, np.inf),
                np.nextafter(ties, 0),
                rng.normal(size=10_000) * 2.0 ** rng.integers(-160, 130, 10_000),
                [
                    0.0,
                    -0.0,
                    np.nan,
                    np.inf,
                    -np.inf,
                    3.4028235677973366e38,
                    1e300,
                    5e-324,
                    2.0**-150,
                ],
            ]
        ).astype(NUMPY[dtype])
        if dtype == "F32":
            chosen = np.concatenate(
                [
                    chosen,
                    np.nextafter(chosen, np.float32(np.inf)),
                    np.nextafter(chosen, np.float32(0)),
                ]
            )
    return np.concatenate([bits.view(np.uint8), chosen.view(np.uint8)])


def convert(path, raw, source, destination, **options):
    path.write_bytes(raw.tobytes())
    count = raw.size // ITEM[source]
    out = np.full(count * ITEM[destination], 0xAA, dtype=np.uint8)
    read = Read(File(path), 0, source, 1, count, 0, destination, 0)
    (bad,) = read_tensors([read], out, 2, **options)
    return out, bad


@pytest.mark.parametrize("instructions", [None, *SETS])
@pytest.mark.parametrize("destination", ITEM)
@pytest.mark.parametrize("source", ITEM)
def test_hard_values_in_every_pair(tmp_path, source, destination, instructions):
    raw = hard_values(source)
    out, bad = convert(tmp_path / "w", raw, source, destination, instructions=instructions)
    if source == destination:
        np.testing.assert_array_equal(out, raw)  # NaN's payloads and all
    got, want = as_float64(out, destination), expected(raw, source, destination)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
    assert bad == np.count_nonzero(~np.isfinite(want))


@pytest.mark.parametrize("destination", ITEM)
@pytest.mark.parametrize("source", ITEM)
def test_all_instruction_sets_give_the_same_bits(tmp_path, source, destination):
    raw = hard_values(source)
    results = [convert(tmp_path / "w", raw, source, destination, instructions=i)[0] for i in SETS]
    for result in results:
        np.testing.assert_array_equal(result, results[0])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_many_tensors_at_once_with_gaps(tmp_path_factory, data):
    """Reads of any shape into rows with gaps, in any order: every byte is where it belongs."""
    path = tmp_path_factory.mktemp("gaps") / "w"
    content = np.random.default_rng(0).integers(0, 256, 8192, dtype=np.uint8)
    path.write_bytes(content.tobytes())
    file = File(path)
    at, reads, checks = 0, [], []
    for _ in range(data.draw(st.integers(1, 5))):
        source, destination = (data.draw(st.sampled_from(list(ITEM))) for _ in range(2))
        rows, columns = data.draw(st.integers(0, 12)), data.draw(st.integers(0, 40))
        offset = data.draw(st.integers(0, 8192 - rows * columns * ITEM[source]))
        item = ITEM[destination]
        stride = (columns + data.draw(st.integers(0, 5))) * item
        at = -(-at // item) * item + data.draw(st.integers(0, 9)) * item
        reads.append(Read(file, offset, source, rows, columns, at, destination, stride))
        checks.append((offset, source, rows, columns, at, destination, stride))
        at += rows * stride
    # Only what a read owns may change: the rest keeps its pattern.
    out = np.full(at + 64, 0xA5, dtype=np.uint8)
    want = out.copy()
    instructions = data.draw(st.sampled_from(SETS))
    counts = read_tensors(reads, out, data.draw(st.integers(1, 3)), instructions=instructions)
    for (offset, source, rows, columns, begin, destination, stride), bad in zip(
        checks, counts, strict=True
    ):
        raw = content[offset : offset + rows * columns * ITEM[source]].copy()
        values = expected(raw, source, destination).reshape(rows, columns)
        assert bad == np.count_nonzero(~np.isfinite(values))
        for row in range(rows):
            place = slice(begin + row * stride, begin + row * stride + columns * ITEM[destination])
            np.testing.assert_array_equal(as_float64(out[place].copy(), destination), values[row])
            want[place] = out[place]
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("threads", [1, 2, 5, 10**6])
@pytest.mark.parametrize("gap", [0, 6])
def test_a_tensor_of_many_pieces(tmp_path, threads, gap):
    rows, columns = 301, 2999  # pieces end within rows
    values = np.random.default_rng(1).normal(size=(rows, columns)).astype(np.float16)
    values[100, 5] = np.nan
    values[300, 2998] = -np.inf
    (tmp_path / "w").write_bytes(b"head" + values.tobytes())
    out = np.zeros((rows, columns + gap), dtype=np.float32)
    read = Read(File(tmp_path / "w"), 4, "F16", rows, columns, 0, "F32", (columns + gap) * 4)
    assert read_tensors([read], out, threads) == [2]
    np.testing.assert_array_equal(out[:, :columns], values.astype(np.float32))
    assert not out[:, columns:].any()


def test_nothing_to_read(tmp_path):
    (tmp_path / "w").write_bytes(b"")
    out = np.empty(0, dtype=np.uint8)
    assert read_tensors([], out, 1) == []
    file = File(tmp_path / "w")
    reads = [Read(file, 0, "F16", 0, 7, 0, "F32", 28), Read(file, 0, "F16", 7, 0, 0, "F32", 0)]
    assert read_tensors(reads, out, 2) == [0, 0]


GOOD = {
    "offset": 0,
    "dtype": "F16",
    "rows": 4,
    "columns": 8,
    "destination_offset": 0,
    "destination_dtype": "F32",
    "destination_row_bytes": 32,
}
OUT_OF_FILE = [
    {"offset": 1},
    {"rows": 5},
    {"dtype": "F32"},
    {"offset": 2**64 - 1},
    {"offset": 2**63, "columns": 2**60},
]
OUT_OF_RANGE = [
    {"rows": 2**33, "columns": 2**33},
    {"columns": 2**62, "rows": 2},
    {"destination_offset": 4},
    {"destination_offset": 2**64 - 4},
    {"destination_row_bytes": 36},
    {"destination_row_bytes": 2**63},
    {"destination_row_bytes": 28},
    {"destination_dtype": "F64", "destination_row_bytes": 64},
    {"destination_offset": 2, "rows": 1},
    {"destination_row_bytes": 33, "rows": 2},
]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "w").write_bytes(bytes(64))
    return File(tmp_path / "w")


@pytest.mark.parametrize(
    ("change", "error"),
    [(c, TruncatedFileError) for c in OUT_OF_FILE] + [(c, ArgumentError) for c in OUT_OF_RANGE],
)
def test_every_range_is_checked_before_the_first_byte_moves(file, change, error):
    out = np.full(128, 0x11, dtype=np.uint8)
    good, bad = Read(file, **GOOD), Read(file, **(GOOD | change))
    with pytest.raises(error, match="w"):
        read_tensors([good, bad], out, 2)
    assert (out == 0x11).all()
    assert read_tensors([good], out, 2) == [0]


def test_arguments_that_are_none(file):
    with pytest.raises(ArgumentError, match="F16, BF16, F32 and F64"):
        Read(file, **(GOOD | {"dtype": "I64"}))
    for name in ("offset", "rows", "columns", "destination_offset", "destination_row_bytes"):
        for bad in (-1, 2**64):
            with pytest.raises(ArgumentError, match=name):
                Read(file, **(GOOD | {name: bad}))
    out = np.zeros(128, dtype=np.uint8)
    with pytest.raises(ArgumentError, match="threads"):
        read_tensors([], out, 0)
    with pytest.raises(ArgumentError, match="instruction set"):
        read_tensors([], out, 1, instructions="mmx")


def test_destinations_that_are_none(file):
    read_only = np.zeros(128, dtype=np.uint8)
    read_only.flags.writeable = False
    for out in (read_only, np.zeros((16, 16), dtype=np.uint8)[:, ::2], bytes(128), 5):
        with pytest.raises(ArgumentError, match="destination"):
            read_tensors([Read(file, **GOOD)], out, 1)


def test_a_file_that_shrinks_is_an_error_and_no_sigbus(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(bytes(4 << 20))
    file = File(path)
    os.truncate(path, 3 << 20)
    out = np.zeros(8 << 20, dtype=np.uint8)
    with pytest.raises(TruncatedFileError, match="when it was opened") as caught:
        read_tensors([Read(file, 0, "F16", 1, 2 << 20, 0, "F32", 0)], out, 2)
    assert caught.value.path == path
    assert caught.value.offset == 3 << 20


def test_a_file_that_shrinks_and_grows_while_it_is_read_raises_no_sigbus(tmp_path):
    """What is called into the cache ahead of its reading may be gone by then."""
    path = tmp_path / "w"
    content = np.random.default_rng(2).integers(0, 256, 8 << 20, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    file = File(path)
    read = Read(file, 0, "F16", 1, 4 << 20, 0, "F16", 0)
    out = np.zeros(8 << 20, dtype=np.uint8)
    done = threading.Event()

    def come_and_go():
        with path.open("r+b") as writer:
            while not done.is_set():
                writer.truncate(1 << 20)
                writer.seek(0)
                writer.write(content)

    outcomes = []
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(100):
            try:
                outcomes.append(len(read_tensors([read], out, 2)))
            except TruncatedFileError as error:
                outcomes.append(error.path)
    finally:
        done.set()
        thread.join()
    assert set(outcomes) <= {1, path}
    read_tensors([read], out, 2)
    assert out.tobytes() == content


@pytest.mark.parametrize("instructions", SETS)
def test_tensors_larger_than_what_is_read_at_a_time(tmp_path, instructions):
    """Several spans of several pieces, beginning and ending anywhere, in two files by turns."""
    rng = np.random.default_rng(3)
    values, reads, at = [], [], 0
    for name in ("a", "b"):
        floats = rng.normal(size=6_600_001).astype(np.float16)
        floats[rng.integers(0, floats.size, 9)] = np.inf
        (tmp_path / name).write_bytes(floats.tobytes())
        file = File(tmp_path / name)
        for begin, end in ((4_000_003, 6_600_001), (0, 77), (77, 4_000_003)):
            reads.append(Read(file, begin * 2, "F16", 1, end - begin, at, "F32", 0))
            values.append(floats[begin:end].astype(np.float32))
            at += (end - begin) * 4 + 12
    out = np.zeros(at // 4, dtype=np.float32)
    counts = read_tensors(reads, out, 2, instructions=instructions)
    assert counts == [np.count_nonzero(np.isinf(v)) for v in values]
    np.testing.assert_array_equal(out, np.concatenate([np.append(v, [0, 0, 0]) for v in values]))


def test_the_file_stays_open_as_long_as_a_read_needs_it(tmp_path):
    (tmp_path / "w").write_bytes(np.arange(32, dtype=np.float16).tobytes())
    read = Read(File(tmp_path / "w"), **GOOD)
    out = np.zeros(32, dtype=np.float32)
    read_tensors([read], out, 1)
    np.testing.assert_array_equal(out, np.arange(32))
