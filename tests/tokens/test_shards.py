"""A .bin in shards: read in place, stitched anywhere, and named where something is wrong."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.core import TokenStore
from pythia_fast.errors import (
    ArgumentError,
    MissingTokensError,
    PythiaFastError,
    TokenFileError,
    TokenRangeError,
)
from pythia_fast.tokens import TokenDataset

CODES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


def split(prefix, nbytes):
    """Put the .bin into shards of `nbytes`, as the published sets are; the .bin is gone then."""
    whole = prefix.with_suffix(".bin").read_bytes()
    parts = [whole[i : i + nbytes] for i in range(0, len(whole), nbytes)]
    for number, part in enumerate(parts):
        shard(prefix, number, len(parts) - 1).write_bytes(part)
    prefix.with_suffix(".bin").unlink()
    return len(parts)


def shard(prefix, number, last):
    return prefix.with_name(f"{prefix.name}-{number:05}-of-{last:05}.bin")


@pytest.fixture
def rows():
    return np.random.default_rng(0).integers(0, 50_254, (40, 33)).astype(np.uint16)


@pytest.fixture
def sharded(tmp_path, token_files, rows):
    """40 rows of 66 bytes in 27 shards of 100, alone in their folder."""
    prefix = token_files(tmp_path / "document", rows)
    assert split(prefix, 100) == 27
    return prefix


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_shards_of_any_size(tmp_path_factory, token_files, data):
    """An id may lie in two files, or in more; files may be empty."""
    code = data.draw(st.sampled_from(sorted(CODES)))
    dtype = np.dtype(CODES[code])
    lengths = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=12))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = [random.integers(0, 100, length).astype(dtype) for length in lengths]
    folder = tmp_path_factory.mktemp("any")
    prefix = token_files(folder / "data", rows, code)
    whole = prefix.with_suffix(".bin").read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    paths = [folder / f"part{i}" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    store = TokenStore(prefix.with_suffix(".idx"), paths)
    assert len(store) == len(rows)
    assert store.bin_bytes == len(whole)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
    index = np.array(chosen, dtype=np.int64)
    found = np.empty(len(index), dtype=np.int64)
    store.lengths(index, found)
    np.testing.assert_array_equal(found, [len(rows[i]) for i in chosen])
    start, width = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
    out = np.full((len(index), 20), 77, dtype=data.draw(st.sampled_from([np.int64, np.uint16])))
    threads = data.draw(st.integers(1, 3))
    store.gather(index, start, start + width, out, threads)
    for row, i in zip(out, chosen, strict=True):
        part = rows[i][start : start + width]
        np.testing.assert_array_equal(row, np.pad(part, (0, 20 - len(part))))
    limit = data.draw(st.integers(0, 100))
    outside = [
        (position, int(offset), int(rows[i][offset]))
        for position, i in enumerate(chosen)
        for offset in np.flatnonzero(rows[i] >= limit)[:1]
    ]
    assert store.find_outside(index, limit, threads) == (outside[0] if outside else None)


@pytest.mark.parametrize("nbytes", [1, 2, 3, 7, 65, 66, 67, 131, 132, 133, 1000, 2639, 2640])
def test_a_folder_is_one_dataset(tmp_path, token_files, rows, nbytes):
    prefix = token_files(tmp_path / "document", rows)
    whole = TokenDataset(prefix)
    fingerprint = whole.fingerprint()
    number = split(prefix, nbytes)
    for source in (
        tmp_path,
        str(tmp_path),
        prefix,
        prefix.with_suffix(".idx"),
        prefix.with_suffix(".bin"),
        shard(prefix, 0, number - 1),
        shard(prefix, number - 1, number - 1),
    ):
        data = TokenDataset(source)
        np.testing.assert_array_equal(data[:], rows)
        assert data.fingerprint() == fingerprint
    with pytest.raises(TokenRangeError) as caught:
        data.check_ids(int(rows[30:].max()), slice(30, None))
    sequence, offset = np.argwhere(rows[30:] == rows[30:].max())[0]
    assert (caught.value.sequence, caught.value.offset) == (30 + sequence, offset)


def test_many_threads_read_one_dataset(sharded, rows):
    data = TokenDataset(sharded)
    choices = [np.random.default_rng(i).integers(0, 40, 3000) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for chosen, got in zip(choices, pool.map(data.gather, choices), strict=True):
            np.testing.assert_array_equal(got, rows[chosen])


def test_where_the_ids_come_from(sharded):
    first, last = shard(sharded, 0, 26), shard(sharded, 26, 26)
    data = TokenDataset(sharded)
    assert data.source == f"{first} to {last.name}"
    assert data.address == str(first)
    assert TokenDataset(data.address).fingerprint() == data.fingerprint()


def test_a_folder_with_one_pair(tmp_path, token_files, rows):
    prefix = token_files(tmp_path / "document", rows)
    (tmp_path / "README.md").write_text("words")
    (tmp_path / ".document.idx.1234.partial").write_text("half")
    assert TokenDataset(tmp_path).source == f"{prefix}.bin"


def test_a_pair_beside_a_folder_of_the_same_name(tmp_path, token_files, rows):
    prefix = token_files(tmp_path / "document", rows)
    prefix.mkdir()
    np.testing.assert_array_equal(TokenDataset(prefix)[:], rows)


def test_one_shard_alone(tmp_path, token_files, rows):
    prefix = token_files(tmp_path / "document", rows)
    assert split(prefix, 10_000) == 1
    np.testing.assert_array_equal(TokenDataset(tmp_path)[:], rows)


def test_missing_shards_are_all_named(sharded):
    for number in (0, 3, 4, 5, 9, 25, 26):
        shard(sharded, number, 26).unlink()
    with pytest.raises(MissingTokensError) as caught:
        TokenDataset(sharded.parent)
    words = str(caught.value)
    assert "7 of the 27 shards" in words
    assert words.endswith("00000, 00003 to 00005, 00009, 00025 to 00026")
    assert "document-NNNNN-of-00026.bin" in words


def test_a_short_shard_is_named(sharded):
    path = shard(sharded, 7, 26)
    path.write_bytes(path.read_bytes()[:93])
    with pytest.raises(TokenFileError, match="7 bytes short of the 100") as caught:
        TokenDataset(sharded)
    assert (caught.value.path, caught.value.offset) == (path, 93)


def test_a_short_last_shard_is_named(sharded):
    path = shard(sharded, 26, 26)
    path.write_bytes(path.read_bytes()[:38])
    with pytest.raises(TokenFileError, match="needs 2640 bytes in 27 shards: 2 are missing") as e:
        TokenDataset(sharded)
    assert (e.value.path, e.value.offset) == (path, 38)


def test_shards_that_are_longer_or_of_another_index(sharded, index_bytes):
    path = shard(sharded, 26, 26)
    good = path.read_bytes()
    path.write_bytes(bytes(101))
    with pytest.raises(TokenFileError, match="last shard has 101 bytes, more than the 100") as e:
        TokenDataset(sharded)
    assert e.value.path == path
    path.write_bytes(good)
    index = sharded.with_suffix(".idx")
    index.write_bytes(index_bytes([33] * 39, 2))
    with pytest.raises(TokenFileError, match=r"rows take 2574 bytes.*27 shards.*have 2640") as e:
        TokenDataset(sharded)
    assert e.value.path == index


def test_foreign_shards_are_named(sharded):
    other = shard(sharded, 2, 25)
    other.write_bytes(bytes(100))
    for source in (sharded.parent, sharded, shard(sharded, 0, 26), other):
        with pytest.raises(TokenFileError, match=r"of different sets: .*1 of document-\*-of-00025"):
            TokenDataset(source)
    other.unlink()
    twice = sharded.with_name("document-000003-of-00026.bin")
    twice.write_bytes(bytes(100))
    with pytest.raises(TokenFileError, match=r"there twice, also as .*-000003-of-00026\.bin"):
        TokenDataset(sharded)
    twice.unlink()
    beyond = shard(sharded, 27, 26)
    beyond.write_bytes(bytes(100))
    with pytest.raises(TokenFileError, match="last shard of the set is number 00026") as caught:
        TokenDataset(sharded)
    assert caught.value.path == beyond
    beyond.unlink()
    shard(sharded.with_name("other"), 0, 3).write_bytes(b"")
    assert len(TokenDataset(sharded)) == 40  # asked for by name, it is plain which
    with pytest.raises(TokenFileError, match=r"shards of other data: other"):
        TokenDataset(sharded.parent)


def test_a_folder_with_several_sets(sharded):
    shutil.copy(sharded.with_suffix(".idx"), sharded.with_name("valid.idx"))
    with pytest.raises(ArgumentError, match=r"more than one data set.*document\.idx, valid\.idx"):
        TokenDataset(sharded.parent)
    sharded.with_name("valid.idx").unlink()
    sharded.with_suffix(".bin").write_bytes(bytes(2640))
    with pytest.raises(ArgumentError, match=r"document\.bin, document-\*\.bin"):
        TokenDataset(sharded.parent)
    assert not TokenDataset(sharded)[:].any()  # the prefix is the .bin, where there is one
    assert TokenDataset(shard(sharded, 4, 26))[:].any()


def test_no_index(sharded, tmp_path):
    sharded.with_suffix(".idx").unlink()
    with pytest.raises(MissingTokensError, match=r"it would be document\.idx"):
        TokenDataset(sharded.parent)
    with pytest.raises(MissingTokensError, match=r"its index .*document\.idx is not"):
        TokenDataset(shard(sharded, 4, 26))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingTokensError, match=r"holds no \.idx"):
        TokenDataset(tmp_path / "empty")
    with pytest.raises(MissingTokensError, match=r"neither .* is there"):
        TokenDataset(tmp_path / "no" / "such" / "folder")


def test_what_the_store_takes(sharded):
    index = sharded.with_suffix(".idx")
    with pytest.raises(ArgumentError, match="at least one"):
        TokenStore(index, [])
    with pytest.raises(ArgumentError, match="check"):
        TokenStore(index, [shard(sharded, 0, 26)], "some")
    with pytest.raises(PythiaFastError):
        TokenStore(index, [shard(sharded, 0, 26)])
    with pytest.raises(TypeError):
        TokenStore(index, [3])
