"""Raw data read in the order of training, against NumPy slices of the whole stream."""

import multiprocessing
import operator
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.errors import (
    ArgumentError,
    OrderError,
    OrderMismatchError,
    RowIndexError,
    TokenRangeError,
    TruncatedFileError,
)
from pythia_fast.tokens import TokenDataset, write_tokens
from pythia_fast.tokens.order import Order, build, verify
from pythia_fast.tokens.sources import Memory


def samples_of(rows, order):
    """Every sample in the order of training, [samples, sequence_length + 1]."""
    stream = np.concatenate(
        [np.asarray(rows[document], dtype=np.int64) for document in order.doc_idx]
    )
    begins = np.arange(len(order)) * order.sequence_length
    columns = np.arange(order.sequence_length + 1)
    return stream[begins[:, None] + columns][order.shuffle_idx]


def random_rows(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 50_000, length) for length in lengths]


LENGTHS = [7, 0, 30, 4, 1, 9, 25, 0, 0, 16, 3]


@pytest.fixture
def raw(token_files, tmp_path):
    """The prefix of some documents, and what they hold."""
    rows = random_rows(LENGTHS)
    return token_files(tmp_path / "raw", rows), rows


@pytest.fixture
def order():
    return build(LENGTHS, sequence_length=8, samples=40)


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=15).filter(any),
    sequence_length=st.integers(1, 30),
    samples=st.integers(1, 40),
    start=st.integers(0, 33),
    width=st.integers(0, 33),
    threads=st.integers(1, 2),
    narrow=st.booleans(),
)
def test_rows_are_slices_of_the_stream(
    lengths, sequence_length, samples, start, width, threads, narrow
):
    rows = random_rows(lengths)
    order = build(lengths, sequence_length=sequence_length, samples=samples)
    if narrow:
        order = Order(
            order.doc_idx,
            order.sample_idx.astype(np.int32),
            order.shuffle_idx.astype(np.int64),
            *(order.sequence_length, order.seed, order.samples),
        )
    data = ragged(rows).in_order(order)
    expected = samples_of(rows, order)
    assert len(data) == len(expected)
    np.testing.assert_array_equal(data.gather(slice(None), threads=threads), expected)
    columns = slice(start, start + width)
    np.testing.assert_array_equal(
        data.gather(slice(None), columns=columns, dtype=np.uint16, threads=threads),
        expected[:, columns],
    )


def ragged(rows):
    """A data set in memory whose rows have their own lengths."""
    bounds = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    data = TokenDataset.__new__(TokenDataset)
    data._open(Memory(np.concatenate(rows), bounds, "rows"))
    return data


def test_a_data_set_in_order_does_all_that_data_sets_do(raw, order):
    prefix, rows = raw
    data = TokenDataset(prefix).in_order(order)
    expected = samples_of(rows, order)
    assert data.dtype == "uint16"
    assert "seed 1234" in data.source
    assert repr(data).startswith("TokenDataset(")
    assert data.lengths.tolist() == [9] * len(order)
    assert data.lengths_of([3, 0]).tolist() == [9, 9]
    np.testing.assert_array_equal(data[5], expected[5])
    np.testing.assert_array_equal(data[-1], expected[-1])
    np.testing.assert_array_equal(data[[3, 1, 3]], expected[[3, 1, 3]])
    np.testing.assert_array_equal(data[10:4:-2], expected[10:4:-2])
    for found, row in zip(data, expected, strict=True):
        np.testing.assert_array_equal(found, row)
    assert data.fingerprint() == TokenDataset(expected).fingerprint()
    assert data.fingerprint([4, 2]) == TokenDataset(expected[[4, 2]]).fingerprint()
    for row in (len(order), -len(order) - 1):
        with pytest.raises(RowIndexError, match=f"row {row} of data with {len(order)} rows"):
            data[row]


def test_wider_and_strided_buffers_are_filled_and_padded(raw, order):
    prefix, rows = raw
    data = TokenDataset(prefix).in_order(order)
    expected = samples_of(rows, order)
    for columns in (slice(None), slice(2, 5), slice(9, 12), slice(0, 0)):
        wide = np.full((len(order), 2, 12), -1, dtype=np.int32)
        data.gather(slice(None), columns=columns, out=wide[:, 0])
        part = expected[:, columns]
        np.testing.assert_array_equal(wide[:, 0, : part.shape[1]], part)
        assert not wide[:, 0, part.shape[1] :].any()
        assert (wide[:, 1] == -1).all()
    with pytest.raises(ArgumentError, match="do not fit a buffer with 8"):
        data.gather([0], out=np.empty((1, 8), dtype=np.int64))
    with pytest.raises(ArgumentError, match="do not fit a buffer of 3"):
        data.gather([0], out=np.empty((3, 9), dtype=np.int64))


def test_ids_are_checked_where_training_sees_them(raw, order):
    prefix, rows = raw
    data = TokenDataset(prefix).in_order(order)
    expected = samples_of(rows, order)
    limit = int(expected.max())
    data.check_ids(limit + 1)
    row, offset = map(int, np.argwhere(expected == limit)[0])
    with pytest.raises(TokenRangeError) as caught:
        data.check_ids(limit)
    assert (caught.value.sequence, caught.value.offset, caught.value.token) == (row, offset, limit)


def test_a_pickle_reads_the_same_files(raw, order, tmp_path):
    prefix, rows = raw
    order.save(prefix)
    data = TokenDataset(prefix).in_order(Order.load(prefix))
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[:], samples_of(rows, order))
    assert copy.source == data.source
    assert len(pickle.dumps(data)) < 2000


def test_relative_paths_of_an_order_are_found_from_elsewhere(raw, order, monkeypatch):
    prefix, rows = raw
    order.save(prefix)
    monkeypatch.chdir(prefix.parent)
    pickled = pickle.dumps(TokenDataset(prefix.name).in_order(Order.load(prefix.name)))
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(pickled)[:], samples_of(rows, order))


@pytest.mark.parametrize("shard_bytes", [7, 50, 51])
def test_documents_that_straddle_shards_are_stitched_too(raw, order, tmp_path, shard_bytes):
    prefix, rows = raw
    ids = prefix.with_suffix(".bin").read_bytes()
    last = (len(ids) - 1) // shard_bytes
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "raw.idx").write_bytes(prefix.with_suffix(".idx").read_bytes())
    for number in range(last + 1):
        part = ids[number * shard_bytes : (number + 1) * shard_bytes]
        (folder / f"raw-{number:05}-of-{last:05}.bin").write_bytes(part)
    data = TokenDataset(folder).in_order(order)
    np.testing.assert_array_equal(data[:], samples_of(rows, order))


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_other_processes_read_in_order(raw, order, start_method):
    prefix, rows = raw
    order.save(prefix)
    data = TokenDataset(prefix).in_order(Order.load(prefix))
    context = multiprocessing.get_context(start_method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found = list(pool.map(partial(operator.getitem, data), range(len(order))))
    np.testing.assert_array_equal(found, samples_of(rows, order))


def test_threads_read_one_data_set_at_once(raw, order):
    prefix, rows = raw
    data = TokenDataset(prefix).in_order(order)
    expected = samples_of(rows, order)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: data.gather(slice(None), threads=2), range(40)):
            np.testing.assert_array_equal(found, expected)


def test_many_documents_a_sample_and_many_samples_a_document():
    random = np.random.default_rng(1)
    lengths = np.where(random.random(200_000) < 0.97, 0, 3)
    lengths[5] = 100_000
    rows = random_rows(lengths)
    order = build(lengths, sequence_length=512, samples=100)
    data = ragged(rows).in_order(order)
    np.testing.assert_array_equal(data[:], samples_of(rows, order))


@pytest.mark.parametrize("lengths", [[*LENGTHS, 2], LENGTHS[:-1], [*LENGTHS[:-1], 90]])
def test_an_order_of_other_data_is_refused(raw, lengths):
    other = build(lengths, sequence_length=8, samples=40)
    with pytest.raises(OrderError, match="does not belong"):
        TokenDataset(raw[0]).in_order(other)


def test_an_order_of_data_of_the_same_size_is_found_out(raw):
    other = build(LENGTHS[::-1], sequence_length=8, samples=40)
    data = TokenDataset(raw[0]).in_order(other)
    with pytest.raises(OrderError, match="not the order of this data"):
        data[:]


def test_data_in_order_has_no_other_order(raw, order):
    data = TokenDataset(raw[0]).in_order(order)
    with pytest.raises(ArgumentError, match="in order already"):
        data.in_order(order)


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("shuffle_idx", 0, 2**32 - 1, "shuffle_idx.0. is sample 4294967295"),
        ("sample_idx", (slice(None), 0), -1, "does not lie in"),
        ("sample_idx", (slice(None), 0), 10**12, "does not lie in"),
        ("sample_idx", (slice(None), 1), -1, "does not lie in"),
        ("sample_idx", (slice(None), 1), 2**62, "not the order of this data"),
        ("sample_idx", (slice(None), slice(None)), 0, "no part of a sample|not 9"),
        ("doc_idx", slice(None), 11, "document 11 of 11"),
        ("doc_idx", slice(None), -1, "document -1 of 11"),
        ("doc_idx", slice(None), 1, "not the order of this data"),
    ],
)
def test_what_is_used_of_an_order_is_checked(raw, order, name, place, value, words):
    arrays = {part: getattr(order, part) for part in ("doc_idx", "sample_idx", "shuffle_idx")}
    arrays[name] = arrays[name].copy()
    arrays[name][place] = value
    damaged = Order(**arrays, sequence_length=8, seed=1234, samples=40)
    data = TokenDataset(raw[0]).in_order(damaged)
    with pytest.raises(OrderError, match=words):
        data[:]


def test_an_order_that_shrinks_while_it_is_used_is_an_error(raw, tmp_path):
    prefix, _ = raw
    order = build(LENGTHS, sequence_length=8, samples=20_000)
    stem = order.save(prefix)
    data = TokenDataset(prefix).in_order(Order.load(stem))
    data[:]
    path = stem.with_name(f"{stem.name}_shuffle_idx.npy")
    with path.open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(TruncatedFileError, match="shuffle_idx"):
        data[:]


@pytest.fixture
def pair(raw, order, tmp_path):
    """Raw data in order, and the same as it would be published."""
    prefix, rows = raw
    expected = samples_of(rows, order)
    return TokenDataset(prefix).in_order(order), expected, tmp_path / "shuffled"


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_the_same_rows_verify(pair, dtype):
    data, expected, prefix = pair
    write_tokens(prefix, expected[:30], dtype=dtype)
    shuffled = TokenDataset(prefix)
    assert verify(data, shuffled) == 30
    assert verify(data, shuffled, rows=slice(3, 10)) == 7
    assert verify(data, shuffled, rows=[-1, 4]) == 2
    assert verify(data, shuffled, rows=[]) == 0
    with pytest.raises(RowIndexError):
        verify(data, shuffled, rows=[30])
    with pytest.raises(RowIndexError):
        verify(shuffled, data)


@pytest.mark.parametrize("block", [1, 10, 1 << 22])
def test_the_first_difference_is_named(pair, block, monkeypatch):
    monkeypatch.setattr("pythia_fast.tokens.dataset.BLOCK_TOKENS", block * 9)
    data, expected, prefix = pair
    wrong = expected.copy()
    wrong[17, 4] ^= 1
    wrong[17, 6] ^= 1
    wrong[21, 0] ^= 1
    write_tokens(prefix, wrong)
    with pytest.raises(OrderMismatchError, match="row 17 differs at column 4") as caught:
        verify(data, TokenDataset(prefix))
    error = caught.value
    assert (error.row, error.column, error.rows) == (17, 4, 17)
    assert (error.found, error.expected) == (expected[17, 4], wrong[17, 4])
    with pytest.raises(OrderMismatchError) as caught:
        verify(data, TokenDataset(prefix), rows=slice(18, None))
    assert (caught.value.row, caught.value.rows) == (21, 3)


def test_a_row_that_ends_early_differs_there(pair):
    data, expected, prefix = pair
    rows = list(expected)
    rows[3] = rows[3][:-1]
    write_tokens(prefix, rows)
    with pytest.raises(OrderMismatchError, match=r"column 8.*the end of the row") as caught:
        verify(data, TokenDataset(prefix))
    assert (caught.value.found, caught.value.expected) == (expected[3, 8], None)
