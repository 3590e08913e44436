"""write_tokens: what it writes is the format, whole or not at all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.tokens import TokenDataset, write_tokens


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
    with pytest.raises(WriteError, match="No such file") as caught:
        write_tokens(tmp_path / "missing" / "data", [[1]])
    assert caught.value.filename == str(tmp_path / "missing" / "data.bin")


def test_an_open_dataset_keeps_its_data_when_the_files_are_replaced(tmp_path):
    write_tokens(tmp_path / "data", [[1, 2, 3]])
    data = TokenDataset(tmp_path / "data")
    write_tokens(tmp_path / "data", [[9]])
    assert data[0].tolist() == [1, 2, 3]
