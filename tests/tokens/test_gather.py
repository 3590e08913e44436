"""TokenDataset.gather against numpy.memmap and plain slicing."""

import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.core import TokenStore
from pythia_fast.errors import ArgumentError, RowIndexError, TruncatedFileError
from pythia_fast.tokens import TokenDataset

CODES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


def padded(rows, start=0, stop=None):
    """What gather promises, row by row."""
    parts = [row[start:stop] for row in rows]
    result = np.zeros((len(parts), max(map(len, parts), default=0)), dtype=np.int64)
    for place, part in zip(result, parts, strict=True):
        place[: len(part)] = part
    return result


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("out", [np.int64, np.int32, np.uint16])
def test_every_dtype_code_equals_memmap(tmp_path, token_files, code, out):
    dtype = np.dtype(CODES[code])
    top = min(np.iinfo(dtype).max, np.iinfo(out).max)
    ids = np.random.default_rng(code).integers(0, top, (300, 257), endpoint=True).astype(dtype)
    prefix = token_files(tmp_path / "data", ids, code)
    mapped = np.memmap(f"{prefix}.bin", dtype=dtype, mode="r").reshape(300, 257)
    rows = np.random.default_rng(0).integers(0, 300, 500)  # shuffled, some twice
    data = TokenDataset(prefix)
    for threads in (1, 2, None):
        got = data.gather(rows, dtype=out, threads=threads)
        assert got.dtype == out
        np.testing.assert_array_equal(got, mapped[rows])


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_ragged_rows(tmp_path_factory, token_files, data):
    lengths = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=20))
    ids = np.random.default_rng(sum(lengths)).integers(0, 65536, sum(lengths))
    rows = np.split(ids, np.cumsum(lengths)[:-1])
    prefix = token_files(tmp_path_factory.mktemp("ragged") / "data", rows)
    dataset = TokenDataset(prefix)
    assert len(dataset) == len(rows)
    np.testing.assert_array_equal(dataset.lengths, lengths)
    index = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=30))
    start, width = data.draw(st.integers(0, 32)), data.draw(st.integers(0, 32))
    stop = data.draw(st.sampled_from([None, start + width]))
    want = padded([rows[i] for i in index], start, stop)
    got = dataset.gather(index, columns=slice(start, stop), threads=data.draw(st.integers(1, 3)))
    np.testing.assert_array_equal(got, want)
    wide = np.full((len(index), want.shape[1] + 3), 7, dtype=np.int32)
    dataset.gather(index, columns=slice(start, stop), out=wide)
    np.testing.assert_array_equal(wide[:, : want.shape[1]], want)
    assert not wide[:, want.shape[1] :].any()
    for row, one in zip(rows, dataset, strict=True):
        np.testing.assert_array_equal(one, row)


def test_rows_are_chosen_as_numpy_chooses():
    ids = np.arange(60, dtype=np.int16).reshape(10, 6)
    data = TokenDataset(ids)
    for rows in (slice(None), slice(8, 2, -2), slice(-3, None), slice(20, 30), [], [3, -1, 3]):
        got = data[rows]
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, ids[rows].reshape(len(got), got.shape[1]))
    for row in (0, 9, -10, np.int32(4), torch.tensor(5)):
        np.testing.assert_array_equal(data[row], ids[int(row)])
    for dtype in (np.int8, np.uint8, np.uint64):
        np.testing.assert_array_equal(data[np.array([1, 2], dtype=dtype)], ids[[1, 2]])
    np.testing.assert_array_equal(data[torch.tensor([4, 0])], ids[[4, 0]])


@pytest.mark.parametrize("row", [10, -11, 2**62, -(2**63)])
def test_rows_that_are_not_there(row):
    data = TokenDataset(np.zeros((10, 6), dtype=np.uint16))
    for choose in (
        lambda: data[row],
        lambda: data.gather([0, row]),
        lambda: data.fingerprint([row]),
    ):
        with pytest.raises(RowIndexError, match="10 rows") as caught:
            choose()
        assert isinstance(caught.value, IndexError)


@pytest.mark.parametrize("rows", [[1.0], "0", [[0]], [True], None, 1.5, ["a"]])
def test_what_chooses_no_rows(rows):
    with pytest.raises(ArgumentError, match="rows"):
        TokenDataset(np.zeros((10, 6), dtype=np.uint16))[rows]


def test_caller_memory_is_filled_and_nothing_else():
    ids = np.random.default_rng(0).integers(0, 99, (50, 8))
    around = np.full((50, 20), -1, dtype=np.int64)
    out = around[:, 4:14]  # rows with gaps
    assert TokenDataset(ids).gather(np.arange(50), out=out) is out
    np.testing.assert_array_equal(around[:, 4:12], ids)
    assert not around[:, 12:14].any()
    assert (around[:, :4] == -1).all()
    assert (around[:, 14:] == -1).all()
    backwards = np.empty((50, 8), dtype=np.int32)[::-1]
    np.testing.assert_array_equal(TokenDataset(ids).gather(np.arange(50), out=backwards), ids)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, 5), dtype=np.int64),  # too narrow
        np.empty((3, 6), dtype=np.int64),  # other number of rows
        np.empty((2, 6), dtype=np.uint8),
        np.empty((2, 6), dtype=np.float64),
        np.empty((2, 6), dtype=">i8"),
        np.empty(12, dtype=np.int64),
        np.empty((6, 2), dtype=np.int64).T,
        np.empty((2, 12), dtype=np.int64)[:, ::2],
        np.frombuffer(bytes(96), dtype=np.int64).reshape(2, 6),  # read-only
        np.empty(97, dtype=np.uint8)[1:].view(np.int64).reshape(2, 6),  # not aligned
        [[0] * 6] * 2,
    ],
)
def test_memory_that_does_not_fit(out):
    with pytest.raises(ArgumentError):
        TokenDataset(np.ones((4, 6), dtype=np.int64)).gather([0, 1], out=out)


@pytest.mark.parametrize("columns", [slice(-1, 3), slice(3, 2), slice(0, 4, 2), slice(None, -1)])
def test_columns_that_are_none(columns):
    with pytest.raises(ArgumentError, match="columns"):
        TokenDataset(np.ones((4, 6), dtype=np.int64)).gather([0], columns=columns)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("given", "out", "bad"),
    [
        (np.int64, np.int32, 2**31),
        (np.int64, np.int32, -(2**31) - 1),
        (np.int64, np.uint16, -1),
        (np.int32, np.uint16, 65536),
        (np.int8, np.uint16, -128),
        (np.uint64, np.int64, 2**63),
        (np.uint32, np.int32, 2**32 - 1),
    ],
)
def test_an_id_that_does_not_fit_is_named(given, out, bad, threads):
    ids = np.ones((3000, 70), dtype=given)
    ids[1717, 33] = ids[2900, 1] = bad
    data = TokenDataset(ids)
    with pytest.raises(ArgumentError, match=f"row 1717 holds id {bad} at offset 33") as caught:
        data.gather(slice(None), dtype=out, threads=threads)
    assert np.dtype(out).name in str(caught.value)
    assert data.gather(slice(0, 1717), dtype=out, threads=threads).all()
    assert data.gather(slice(None), columns=slice(34, 70), dtype=out).all()


def test_offsets_beyond_4_gib(tmp_path):
    """A sparse file: 5 GiB by its size, a few pages on the disk."""
    length, rows = 1 << 20, 2560  # of uint16: 2 MiB a row
    with (tmp_path / "big.bin").open("wb") as file:
        for row in (0, 1023, 1024, 2047, 2048, 2559):
            file.seek(row * length * 2)
            file.write(struct.pack("<HH", row + 1, row + 2))
            file.seek((row + 1) * length * 2 - 2)
            file.write(struct.pack("<H", row + 3))
    sizes = np.full(rows, length, dtype="<i4")
    pointers = np.arange(rows, dtype="<i8") * length * 2
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, rows, 1)
    (tmp_path / "big.idx").write_bytes(head + sizes.tobytes() + pointers.tobytes() + bytes(8))
    assert (tmp_path / "big.bin").stat().st_size == 5 * 2**30
    data = TokenDataset(tmp_path / "big")
    index = [2559, 0, 2048, 2047, 1024, 1023]
    got = data.gather(index, columns=slice(0, 2))
    np.testing.assert_array_equal(got, [[i + 1, i + 2] for i in index])
    last = data.gather(index, columns=slice(length - 1, None))
    np.testing.assert_array_equal(last, [[i + 3] for i in index])
    assert data[1500].sum() == 0


def test_truncation_after_opening_is_an_error_and_no_sigbus(tmp_path, token_files):
    for ending in (".bin", ".idx"):
        prefix = token_files(tmp_path / "data", np.ones((64, 4096), dtype=np.uint16))
        data = TokenDataset(prefix)
        os.truncate(f"{prefix}{ending}", 100)
        for use in (
            lambda data=data: data[0],
            lambda data=data: data.check_ids(5),
            lambda data=data: data.lengths,
            lambda data=data: data.fingerprint(),
        ):
            with pytest.raises(TruncatedFileError, match="when it was opened") as caught:
                use()
            assert str(caught.value.path) == f"{prefix}{ending}"
            assert caught.value.offset == 100


def test_many_threads_read_one_dataset(tmp_path, token_files):
    from concurrent.futures import ThreadPoolExecutor

    ids = np.random.default_rng(0).integers(0, 65536, (400, 301))
    data = TokenDataset(token_files(tmp_path / "data", ids))
    choices = [np.random.default_rng(i).permutation(400) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for rows, got in zip(choices, pool.map(data.gather, choices), strict=True):
            np.testing.assert_array_equal(got, ids[rows])


def test_an_unsigned_row_beyond_int64_is_not_there():
    with pytest.raises(RowIndexError, match="row 18446744073709551615"):
        TokenDataset(np.zeros((3, 2), dtype=np.uint16))[np.array([2**64 - 1], dtype=np.uint64)]


def test_where_rows_lie(tmp_path, token_files):
    lengths = [3, 0, 5, 2]
    prefix = token_files(tmp_path / "data", [[1] * n for n in lengths])
    for store in (
        TokenStore(f"{prefix}.idx", f"{prefix}.bin"),
        TokenStore.in_memory(np.ones(10, np.uint16), np.cumsum([0, *lengths])),
    ):
        rows = np.array([3, 0, 1, 2, 3])
        offsets, found = np.empty(5, np.int64), np.empty(5, np.int64)
        store.locate(rows, offsets, found)
        assert offsets.tolist() == [16, 0, 6, 6, 16]
        assert found.tolist() == [2, 3, 0, 5, 2]
        with pytest.raises(RowIndexError):
            store.locate(np.array([4]), offsets[:1], found[:1])
        with pytest.raises(ArgumentError, match="5 rows do not fit vectors of 5 and 4"):
            store.locate(rows, offsets, found[:4])


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("left", [None, 0, 5000])
def test_files_whose_names_go_to_others_are_read_on(tmp_path, token_files, shards, left):
    """By a rename, to shorter ones, or to none: what is mapped stays whole."""
    ids = np.random.default_rng(0).integers(0, 50_254, (64, 512))
    prefix = token_files(tmp_path / "data", ids)
    whole = prefix.with_suffix(".bin")
    paths = [whole]
    if shards > 1:
        cuts = np.array_split(np.frombuffer(whole.read_bytes(), np.uint8), shards)
        paths = [prefix.with_name(f"data-{i:05}-of-{shards - 1:05}.bin") for i in range(shards)]
        for path, part in zip(paths, cuts, strict=True):
            path.write_bytes(part.tobytes())
        whole.unlink()
    data = TokenDataset(prefix)
    np.testing.assert_array_equal(data[:2], ids[:2])
    for path in (prefix.with_suffix(".idx"), *paths):
        new = path.with_name("new")
        if left is None:
            path.unlink()
        else:
            new.write_bytes(bytes(left))
            new.replace(path)
    np.testing.assert_array_equal(data[:], ids)
    data.check_ids(50_254)
    assert data.lengths_of([63, 0]).tolist() == [512, 512]
