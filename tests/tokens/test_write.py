"""write_tokens and TokenWriter: what they write is the format, whole or not at all."""

import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.tokens import TokenDataset, write, write_tokens
from pythia_fast.tokens.shards import shard
from pythia_fast.tokens.write import TokenWriter


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=8), dtype=st.sampled_from(["uint16", "int32"]))
def test_what_is_written_is_the_format(tmp_path_factory, index_bytes, lengths, dtype):
    folder = tmp_path_factory.mktemp("written")
    rows = [np.arange(n) + 1000 * n for n in lengths]
    write_tokens(folder / "data", (row for row in rows), dtype=dtype)
    item = np.dtype(dtype).itemsize
    documents = range(len(rows) + 1)
    want = index_bytes(lengths, item, code={"uint16": 8, "int32": 4}[dtype], documents=documents)
    assert (folder / "data.idx").read_bytes() == want
    assert (folder / "data.bin").read_bytes() == b"".join(r.astype(dtype).tobytes() for r in rows)
    assert sorted(path.name for path in folder.iterdir()) == ["data.bin", "data.idx"]
    assert [row.tolist() for row in TokenDataset(folder / "data")] == [r.tolist() for r in rows]


def test_a_matrix_and_the_limits_of_each_dtype(tmp_path):
    for dtype, top in (("uint16", 65535), ("int32", 2**31 - 1)):
        write_tokens(tmp_path / "data.idx", np.array([[0, top], [top, 1]]), dtype=dtype)
        assert TokenDataset(tmp_path / "data")[:].tolist() == [[0, top], [top, 1]]
        for bad in (-1, top + 1):
            with pytest.raises(ArgumentError, match=f"row 1 holds id {bad} at offset 1"):
                write_tokens(tmp_path / "bad", [[1, 2], [3, bad]], dtype=dtype)
    assert not list(tmp_path.glob("*bad*"))


@pytest.mark.parametrize("row", [[1.5], [[1]], ["a"], [True], 3])
def test_rows_that_are_none(tmp_path, row):
    with pytest.raises(ArgumentError, match="row 0 must be a vector of integers"):
        write_tokens(tmp_path / "data", [row])
    assert not list(tmp_path.iterdir())


def test_a_dtype_that_is_not_written(tmp_path):
    with pytest.raises(ArgumentError, match="uint16, int32"):
        write_tokens(tmp_path / "data", [[1]], dtype="int64")


def test_a_failure_leaves_the_older_pair_as_it_was(tmp_path):
    write_tokens(tmp_path / "data", [[1, 2]])

    def rows():
        yield [3]
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_tokens(tmp_path / "data", rows())
    assert TokenDataset(tmp_path / "data")[:].tolist() == [[1, 2]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.bin", "data.idx"]
    write_tokens(tmp_path / "data", [[4]])
    assert TokenDataset(tmp_path / "data")[:].tolist() == [[4]]


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*missing/data\.bin: No such file"):
        write_tokens(tmp_path / "missing" / "data", [[1]])


def test_an_open_dataset_keeps_its_data_when_the_files_are_replaced(tmp_path):
    write_tokens(tmp_path / "data", [[1, 2, 3]])
    data = TokenDataset(tmp_path / "data")
    write_tokens(tmp_path / "data", [[9]])
    assert data[0].tolist() == [1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=5),
    block_rows=st.integers(1, 7),
)
def test_many_rows_at_a_time(tmp_path_factory, index_bytes, batches, block_rows):
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_BLOCK_ROWS", block_rows)
        with TokenWriter(folder / "data") as out:
            for lengths in batches:
                out.append(np.arange(sum(lengths), dtype=np.uint16), np.array(lengths, np.int64))
            assert not (folder / "data.bin").exists()
    every = [length for lengths in batches for length in lengths]
    assert (out.rows, out.tokens) == (len(every), sum(every))
    want = index_bytes(every, 2, documents=range(len(every) + 1))
    assert (folder / "data.idx").read_bytes() == want
    ids = [np.arange(sum(lengths), dtype="<u2").tobytes() for lengths in batches]
    assert (folder / "data.bin").read_bytes() == b"".join(ids)
    assert sorted(path.name for path in folder.iterdir()) == ["data.bin", "data.idx"]


def test_rows_are_held_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_HELD_ROWS", 3)
    monkeypatch.setattr(write, "_HELD_TOKENS", 10)
    rows = [list(range(length)) for length in (1, 2, 3, 4, 20, 5, 6, 0, 0, 0, 0)]
    write_tokens(tmp_path / "data", rows)
    assert [row.tolist() for row in TokenDataset(tmp_path / "data")] == rows

    def rows_in_one_place():
        row = np.zeros(2, np.uint16)
        for number in range(5):
            row[:] = number
            yield row

    write_tokens(tmp_path / "data", rows_in_one_place())
    assert TokenDataset(tmp_path / "data")[:].tolist() == [[n, n] for n in range(5)]
    write_tokens(tmp_path / "none", [])
    assert len(TokenDataset(tmp_path / "none")) == 0


def test_rows_that_do_not_fit_together(tmp_path):
    with TokenWriter(tmp_path / "data", dtype="int32") as out:
        for ids, lengths in (
            (np.zeros(3, np.int32), [2]),
            (np.zeros(3, np.uint16), [3]),
            (np.zeros((1, 3), np.int32), [3]),
        ):
            with pytest.raises(ArgumentError, match="int32 ids"):
                out.append(ids, np.array(lengths))
        wide = np.broadcast_to(np.int32(0), 2**31)  # one number, however often
        with pytest.raises(ArgumentError, match=r"row 0 has 2147483648 tokens; .* 2\^31 - 1"):
            out.append(wide, np.array([2**31]))
    assert len(TokenDataset(tmp_path / "data")) == 0


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(write, "_complete_index", full)
        with pytest.raises(WriteError, match="No space left"):
            write_tokens(tmp_path / "data", [[1]])
    assert not list(tmp_path.iterdir())


def test_pointers_beyond_32_bits(tmp_path):
    """Four rows of 2^30 int32 ids, 2^34 bytes: the index alone is made."""
    (tmp_path / "sizes").write_bytes(bytes(34) + np.full(4, 2**30, "<i4").tobytes())
    with (tmp_path / "sizes").open("r+b") as file:
        write._complete_index(file, 4, 4, 4)
    index = (tmp_path / "sizes").read_bytes()
    assert np.frombuffer(index, "<i8", 4, 34 + 16).tolist() == [0, 2**32, 2**33, 3 * 2**32]


@pytest.mark.parametrize("whole_set", [True, False])
def test_shards_keep_their_index(tmp_path, whole_set):
    write_tokens(tmp_path / "data", [[1, 2, 3, 4]])
    shard(tmp_path / "data", tmp_path / "shards", shard_bytes=4)
    if not whole_set:
        (tmp_path / "shards" / "data-00000-of-00001.bin").unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    with pytest.raises(ArgumentError, match=r"is a shard of the data whose index"):
        write_tokens(tmp_path / "shards" / "data", [[7]])
    assert {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == before
    write_tokens(tmp_path / "shards" / "other", [[7]])


@pytest.mark.parametrize("prefix", ["", ".", "..", "/", ".idx"])
def test_a_prefix_without_a_name(tmp_path, monkeypatch, prefix):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="gives the files no name"):
        write_tokens(prefix, [[1]])
    assert not list(tmp_path.iterdir())


def test_what_a_kill_has_left_goes_with_the_next_writer(tmp_path):
    for name in (".data.bin.0a.partial", ".data.idx.0a.partial", ".data2.bin.0a.partial"):
        (tmp_path / name).write_bytes(b"left")
    write_tokens(tmp_path / "data", [[1]])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".data2.bin.0a.partial", "data.bin", "data.idx")
    ]
