"""token_stats against numpy over all tokens at once."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.tokens import TokenDataset, write_tokens
from pythia_fast.tokens.passes.stats import QUANTILES, save_counts, token_stats

stats_module = importlib.import_module("pythia_fast.tokens.passes.stats")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(stats_module, "BLOCK_TOKENS", 50)
    monkeypatch.setattr(stats_module, "_SORTED_ROWS", 7)
    monkeypatch.setattr(stats_module, "_SHORT_TOKENS", 60)


def check(found, rows, limit):
    """`found` beside what numpy says of the same rows."""
    flat = np.concatenate([np.asarray(row, np.int64) for row in rows] or [[]]).astype(np.int64)
    inside = flat[(flat >= 0) & (flat < limit)]
    lengths = np.array([len(row) for row in rows], np.int64)
    assert found.counts.dtype == np.int64
    assert found.counts.tolist() == np.bincount(inside, minlength=limit).tolist()
    assert (found.rows, found.tokens) == (len(rows), len(flat))
    assert found.outside == len(flat) - len(inside)
    assert found.ends == np.count_nonzero(flat == found.end_id)
    assert found.distinct == len(np.unique(inside))
    if len(inside):
        assert (found.lowest_id, found.highest_id) == (inside.min(), inside.max())
    else:
        assert (found.lowest_id, found.highest_id) == (None, None)
    if len(rows):
        assert (found.shortest, found.longest) == (lengths.min(), lengths.max())
        assert found.mean_length == lengths.mean()
        assert found.quantiles == {
            part: np.quantile(lengths, part, method="inverted_cdf") for part in QUANTILES
        }
    else:
        assert (found.shortest, found.longest, found.mean_length) == (None, None, None)
        assert found.quantiles == {}


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 130), max_size=40),
    dtype=st.sampled_from(["uint16", "int32"]),
    limit=st.sampled_from([None, 1, 300, 65_536]),
    threads=st.integers(1, 3),
)
def test_any_rows(tmp_path_factory, lengths, dtype, limit, threads):
    prefix = tmp_path_factory.mktemp("stats") / "data"
    random = np.random.default_rng(len(lengths))
    top = {"uint16": 65_536, "int32": 1 << 21}[dtype]
    rows = [random.choice([0, 1, 2, 299, 300, top - 1], length) for length in lengths]
    write_tokens(prefix, rows, dtype=dtype)
    found = token_stats(TokenDataset(prefix), vocab_rows=limit, threads=threads)
    check(found, rows, limit or {"uint16": 65_536, "int32": 1 << 20}[dtype])


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8"])
def test_every_dtype_with_its_ends(dtype):
    ends = np.iinfo(dtype)
    top = min(int(ends.max), 2**63 - 1)  # of what gather gives
    ids = np.array([[0, 1, top], [max(int(ends.min), -(2**31)), 5, 7]], dtype)
    found = token_stats(TokenDataset(ids))
    check(found, ids.astype(np.int64), min(1 << 20, ends.max + 1))


@pytest.mark.parametrize(
    "chosen", [slice(3, 9), slice(None, None, 3), slice(20, 5, -2), slice(50, 60)]
)
def test_some_rows(tmp_path, chosen):
    random = np.random.default_rng(1)
    rows = [random.integers(0, 9, length) for length in random.integers(0, 30, 40)]
    write_tokens(tmp_path / "data", rows)
    check(token_stats(TokenDataset(tmp_path / "data"), chosen), rows[chosen], 65_536)


def test_the_most_frequent_and_the_ends(tmp_path):
    write_tokens(tmp_path / "data", [[7, 7, 7, 3, 3, 9], [9, 5, 256], []])
    found = token_stats(TokenDataset(tmp_path / "data"), end_id=256)
    assert found.top(3) == [(7, 3), (3, 2), (9, 2)]
    assert found.top(99) == [(7, 3), (3, 2), (9, 2), (5, 1), (256, 1)]
    assert found.ends == 1
    told = found.to_dict(2)
    assert told["top"] == [{"id": 7, "count": 3}, {"id": 3, "count": 2}]
    assert told["length_quantiles"]["0.5"] == 3
    assert told["mean_length"] == 3


def test_progress_counts_rows(tmp_path):
    write_tokens(tmp_path / "data", [[1] * length for length in range(0, 200, 5)])
    told = []
    token_stats(TokenDataset(tmp_path / "data"), progress=lambda *each: told.append(each))
    assert told == sorted(told)
    assert told[-1] == (40, 40)


def test_what_is_held_is_bounded(tmp_path, monkeypatch):
    """No matrix is much larger than a block, whatever the rows' lengths."""
    random = np.random.default_rng(2)
    rows = [np.zeros(length, int) for length in random.integers(0, 400, 100)]
    write_tokens(tmp_path / "data", rows)
    data = TokenDataset(tmp_path / "data")
    real = data.gather
    sizes = []

    def gather(*arguments, **options):
        matrix = real(*arguments, **options)
        sizes.append(matrix.size)
        return matrix

    monkeypatch.setattr(data, "gather", gather)
    assert token_stats(data).counts[0] == sum(map(len, rows))
    assert max(sizes) <= 50
    assert sum(sizes) < 1.2 * sum(map(len, rows))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocab_rows": 0}, "vocab_rows"),
        ({"vocab_rows": (1 << 20) + 1}, "vocab_rows"),
        ({"end_id": -1}, "end_id"),
        ({"vocab_rows": 5, "end_id": 5}, "end_id"),
        ({"threads": 0}, "threads"),
    ],
)
def test_arguments_that_are_none(options, words):
    with pytest.raises(ArgumentError, match=words):
        token_stats(TokenDataset([[1, 2]]), **options)


def test_an_error_in_a_thread_arrives(monkeypatch):
    data = TokenDataset([[1, 2]] * 100)

    def gather(*_, **__):
        raise MemoryError("too much")

    monkeypatch.setattr(data, "gather", gather)
    with pytest.raises(MemoryError, match="too much"):
        token_stats(data)


def test_counts_are_saved_whole_or_not_at_all(tmp_path):
    found = token_stats(TokenDataset([[1, 2, 2]]), vocab_rows=5)
    save_counts(tmp_path / "counts.npy", found)
    np.testing.assert_array_equal(np.load(tmp_path / "counts.npy"), [0, 1, 2, 0, 0])
    assert [path.name for path in tmp_path.iterdir()] == ["counts.npy"]
    with pytest.raises(WriteError, match="cannot write"):
        save_counts(tmp_path / "no" / "counts.npy", found)
