"""Rows as .npy: what numpy.load gives back, and what is there after a failure."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast import publish
from pythia_fast.errors import ArgumentError, RowIndexError, RunMismatchError, WriteError
from pythia_fast.tokens import TokenDataset, dataset
from pythia_fast.tokens.passes.save import matrix_of, save_rows, save_steps


def save(data, rows, path, dtype=None):
    return sum(save_rows(data, matrix_of(data, rows, dtype), path))


def padded(rows):
    result = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
    for place, row in zip(result, rows, strict=True):
        place[: len(row)] = row
    return result


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=12),
    span=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    block=st.integers(1, 30),
)
def test_one_file_holds_the_rows(tmp_path_factory, token_files, lengths, span, block):
    rows = [np.arange(n) + 1000 * n for n in lengths]
    folder = tmp_path_factory.mktemp("save")
    data = TokenDataset(token_files(folder / "data", rows))
    chosen = range(*(min(end, len(rows)) for end in sorted(span)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BLOCK_TOKENS", block)
        assert save(data, chosen, folder / "rows.npy") == len(chosen)
    got = np.load(folder / "rows.npy")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, padded([rows[row] for row in chosen]))
    assert not list(folder.glob("*partial*"))


@pytest.mark.parametrize(
    ("kept", "saved"),
    [("u1", "u2"), ("i1", "i4"), ("i2", "i4"), ("u2", "u2"), ("i4", "i4"), ("u4", "i8"),
     ("i8", "i8"), ("u8", "i8")],
)  # fmt: skip
def test_the_dtype_is_the_narrowest_or_the_one_asked_for(tmp_path, kept, saved):
    ids = np.arange(12).reshape(3, 4).astype(kept)
    data = TokenDataset(ids)
    save(data, range(3), tmp_path / "a.npy")
    assert np.load(tmp_path / "a.npy").dtype == saved
    for dtype in ("uint16", "int32", "int64"):
        save(data, range(3), tmp_path / "a.npy", dtype)  # in place of the older
        got = np.load(tmp_path / "a.npy")
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, ids)
    with pytest.raises(ArgumentError, match="ids are gathered as"):
        matrix_of(data, range(3), "float32")


def test_an_id_that_does_not_fit_leaves_the_older_file(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"older")
    with pytest.raises(ArgumentError, match="which does not fit uint16"):
        save(TokenDataset(np.array([[1], [70_000]])), range(2), tmp_path / "a.npy", "uint16")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert (tmp_path / "a.npy").read_bytes() == b"older"


def test_one_that_is_given_up_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK_TOKENS", 1)
    data = TokenDataset(np.zeros((3, 1), dtype=np.uint16))
    rows = save_rows(data, matrix_of(data, range(3)), tmp_path / "a.npy")
    assert next(rows) == 1
    rows.close()
    assert list(tmp_path.iterdir()) == []


def full(free_bytes):
    usage = shutil.disk_usage("/")
    return lambda _: usage._replace(free=free_bytes)


def test_a_full_disk_is_told_before(tmp_path, monkeypatch):
    data = TokenDataset(np.zeros((8, 100), dtype=np.uint16))
    monkeypatch.setattr(publish.shutil, "disk_usage", full(128 + 1600))
    save(data, range(8), tmp_path / "a.npy")
    monkeypatch.setattr(publish.shutil, "disk_usage", full(128 + 1599))
    with pytest.raises(WriteError, match=r"1\.73 kB free, but 1\.73 kB are .*, take less of it,"):
        save(data, range(8), tmp_path / "b.npy")
    with pytest.raises(WriteError, match=r"1\.73 kB free, but 1\.86 kB are .*, take less of it,"):
        list(save_steps(data, range(1, 3), tmp_path / "steps", batch=4))
    assert list((tmp_path / "steps").iterdir()) == []
    with pytest.raises(WriteError, match="No such file"):
        save(data, range(1), tmp_path / "missing" / "a.npy")


def test_a_disk_that_fills_up_leaves_no_part(tmp_path, monkeypatch):
    data = TokenDataset(np.zeros((8, 100), dtype=np.uint16))

    def no_room(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish.os, "fsync", no_room)
    with pytest.raises(WriteError, match=r"cannot write .*a\.npy: No space left") as caught:
        save(data, range(8), tmp_path / "a.npy")
    assert caught.value.errno == 28
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    path = tmp_path / "step=000001.npy"
    if kind == "link":
        (tmp_path / "other").write_bytes(b"other")
        path.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    data = TokenDataset(np.zeros((4, 5), np.uint16))
    with pytest.raises(WriteError, match="give the name of"):
        save(data, range(4), path)
    with pytest.raises(WriteError, match="give the name of"):
        list(save_steps(data, range(1, 2), tmp_path, batch=4))
    assert kind != "link" or (tmp_path / "other").read_bytes() == b"other"


def test_what_kills_left_of_this_path_is_removed(tmp_path):
    (tmp_path / ".a.npy.0123abcd.partial").write_bytes(b"left")
    (tmp_path / ".b.npy.0123abcd.partial").write_bytes(b"not ours")
    save(TokenDataset(np.zeros((4, 5), np.uint16)), range(4), tmp_path / "a.npy")
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", ".b.npy.0123abcd.partial"}


def test_two_saves_at_once_spare_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK_TOKENS", 1)
    data = TokenDataset(np.arange(3, dtype=np.uint16)[:, None])
    rows = save_rows(data, matrix_of(data, range(3)), tmp_path / "a.npy")
    next(rows)
    save(data, range(2), tmp_path / "a.npy")
    assert sum(rows) == 2
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), [[0], [1], [2]])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    with subprocess.Popen(["true"]) as ended:
        pass
    left = tmp_path / f".a.npy.{ended.pid}-0123abcd.partial"
    left.write_bytes(b"left")
    save(data, range(2), tmp_path / "a.npy")
    assert not left.exists()


class TestSteps:
    @pytest.fixture
    def ids(self):
        return np.random.default_rng(1).integers(0, 60_000, (22, 5)).astype(np.uint16)

    def test_a_file_for_each(self, ids, tmp_path):
        saved = list(save_steps(TokenDataset(ids), range(2, 6), tmp_path / "a" / "b", batch=4))
        assert [each.step for each in saved] == [2, 3, 4, 5]
        names = [f"step=00000{step}.npy" for step in (2, 3, 4, 5)]
        assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == names
        for each in saved:
            assert not each.kept
            got = np.load(each.path)
            assert got.dtype == np.uint16
            np.testing.assert_array_equal(got, ids[4 * each.step - 4 : 4 * each.step])

    def test_what_is_complete_is_kept(self, ids, tmp_path):
        data = TokenDataset(ids)
        list(save_steps(data, range(1, 6), tmp_path, batch=4))
        (tmp_path / "step=000002.npy").unlink()
        before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        saved = list(save_steps(data, range(1, 6), tmp_path, batch=4))
        assert [each.step for each in saved if not each.kept] == [2]
        np.testing.assert_array_equal(np.load(tmp_path / "step=000002.npy"), ids[4:8])
        assert {path: path.stat().st_mtime_ns for path in before} == before

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda path: np.save(path, np.zeros((4, 5), np.int64)), "160 bytes of int64"),
            (lambda path: np.save(path, np.zeros((3, 5), np.uint16)), r"\[3, 5\]"),
            (lambda path: path.write_bytes(path.read_bytes()[:-1]), "39 bytes of uint16"),
            (lambda path: np.save(path, np.ones((4, 5), np.uint16)), "other ids than rows 4 to 7"),
            (lambda path: path.write_bytes(b"text"), "is no .npy"),
            (lambda path: path.write_bytes(b""), "is no .npy"),
        ],
    )
    def test_what_is_something_else_is_refused(self, ids, tmp_path, make, words):
        data = TokenDataset(ids)
        list(save_steps(data, range(1, 3), tmp_path, batch=4))
        make(tmp_path / "step=000002.npy")
        with pytest.raises(RunMismatchError, match=words):
            list(save_steps(data, range(1, 4), tmp_path, batch=4))
        assert not (tmp_path / "step=000003.npy").exists()

    def test_symbolic_links_are_not_followed(self, ids, tmp_path):
        data = TokenDataset(ids)
        list(save_steps(data, range(1, 2), tmp_path / "a", batch=4))
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "step=000001.npy").symlink_to(tmp_path / "a" / "step=000001.npy")
        with pytest.raises(WriteError, match="symbolic link"):
            list(save_steps(data, range(1, 2), tmp_path / "b", batch=4))

    def test_files_of_other_data_are_refused_before_anything_is_written(self, ids, tmp_path):
        list(save_steps(TokenDataset(ids), range(3, 4), tmp_path, batch=4))
        with pytest.raises(RunMismatchError, match=r"step=000003.npy holds other ids"):
            list(save_steps(TokenDataset(ids[::-1]), range(1, 4), tmp_path, batch=4))
        assert [path.name for path in tmp_path.iterdir()] == ["step=000003.npy"]

    def test_steps_that_are_not_there(self, ids, tmp_path):
        for steps in (range(1, 7), range(6, 7)):
            with pytest.raises(RowIndexError, match="5 whole steps"):
                list(save_steps(TokenDataset(ids), steps, tmp_path / "a", batch=4))
        with pytest.raises(ArgumentError, match="counted from 1"):
            list(save_steps(TokenDataset(ids), range(2), tmp_path / "a", batch=4))
        assert not (tmp_path / "a").exists()
        assert list(save_steps(TokenDataset(ids), range(1, 1), tmp_path / "a")) == []
