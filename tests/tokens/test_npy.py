"""Ids in .npy files: mapped, checked before they are used, known by their content."""

import errno
import io
import os
import pickle
import struct
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import (
    ArgumentError,
    MissingTokensError,
    PythiaFastError,
    ReadError,
    TokenFileError,
    TruncatedFileError,
)
from pythia_fast.tokens import TokenDataset, write_tokens
from pythia_fast.tokens.shards import shard

IDS = np.arange(24).reshape(4, 6)


@pytest.fixture
def saved(tmp_path):
    np.save(tmp_path / "ids.npy", IDS)
    return tmp_path / "ids.npy"


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
@pytest.mark.parametrize("shape", [(4, 6), (1, 24), (24, 1), (0, 6), (0, 0)])
def test_every_integer_dtype(tmp_path, dtype, shape):
    ids = IDS.ravel()[: shape[0] * shape[1]].reshape(shape).astype(dtype)
    path = tmp_path / "ids.npy"
    np.save(path, ids)
    data = TokenDataset(str(path))
    assert len(data) == shape[0]
    assert data.dtype == ids.dtype.name
    assert data.lengths.tolist() == [shape[1]] * shape[0]
    np.testing.assert_array_equal(data[:], ids[:, : shape[1] if shape[0] else 0])


def test_it_is_known_by_its_content(saved, tmp_path):
    write_tokens(tmp_path / "pair", IDS.astype(np.uint16))
    data = TokenDataset(saved)
    assert data.fingerprint() == TokenDataset(IDS).fingerprint()
    assert data.fingerprint() == TokenDataset(tmp_path / "pair").fingerprint()
    assert data.source == data.address == str(saved)
    assert data.files == (saved,)


def test_the_ids_are_mapped_and_not_loaded(tmp_path):
    rows, length = 4, 2**34  # with holes, 128 GiB
    text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({rows}, {length})}}"
    header = with_header(text + " " * (7 - len(text) % 8))
    with (tmp_path / "ids.npy").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 2 * rows * length)
        file.seek(-2, os.SEEK_END)
        file.write(np.uint16(99).tobytes())
    data = TokenDataset(tmp_path / "ids.npy")
    assert data.gather([3], columns=slice(length - 2, length)).tolist() == [[0, 99]]


def smaller(path):
    """By another one, as `view --mode save` and our other tools write it: under its own name."""
    np.save(path.with_name("new.npy"), IDS[:1])
    path.with_name("new.npy").replace(path)


def larger(path):
    """The same, by more rows."""
    np.save(path.with_name("new.npy"), np.zeros((100, 6), np.int64))
    path.with_name("new.npy").replace(path)


def others(path):
    """The same, by as many bytes with the same mtime."""
    before = path.stat()
    np.save(path.with_name("new.npy"), IDS[::-1])
    os.utime(path.with_name("new.npy"), ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_name("new.npy").replace(path)


def moved(path):
    """To another name."""
    path.rename(path.with_name("old.npy"))


REPLACED = pytest.mark.parametrize("change", [smaller, larger, others, moved, Path.unlink])


@REPLACED
def test_a_file_whose_name_goes_to_another_is_read_on(saved, change):
    data = TokenDataset(saved)
    before = data.fingerprint()
    np.testing.assert_array_equal(data[:2], IDS[:2])
    time.sleep(0.02)  # a tick of the file system's clock
    change(saved)
    np.testing.assert_array_equal(data[:], IDS)
    np.testing.assert_array_equal(data.gather([3, 0], columns=slice(2, 5)), IDS[[3, 0], 2:5])
    data.check_ids(24)
    assert data.fingerprint() == before


@REPLACED
@pytest.mark.parametrize("left", [-4, -100])
def test_a_file_without_its_name_that_shrinks(saved, change, left):
    """Its last page stays, with zeros at the end: only the file itself tells."""
    data = TokenDataset(saved)
    with saved.open("r+b") as file:
        change(saved)
        file.truncate(len(WHOLE) + left)
    for use in (lambda: data[:], lambda: data.check_ids(24)):
        with pytest.raises(TruncatedFileError, match=r"ids\.npy") as caught:
            use()
        assert caught.value.offset == len(WHOLE) + left


@REPLACED
def test_a_file_without_its_name_that_is_written_to(saved, change):
    data = TokenDataset(saved)
    with saved.open("r+b") as file:
        change(saved)
        time.sleep(0.02)  # a tick of the file system's clock
        file.write(WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]))
    with pytest.raises(ReadError, match="has changed since it was opened"):
        data[:]


def in_place(path):
    """Other ids where the old ones are, as np.save does under a name that is taken."""
    np.save(path, IDS[::-1])


def appended(path):
    """More than there was."""
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [in_place, appended])
def test_a_file_that_is_written_to_is_not_read_on(saved, change):
    data = TokenDataset(saved)
    np.testing.assert_array_equal(data[:], IDS)
    time.sleep(0.02)  # a tick of the file system's clock
    change(saved)
    for use in (lambda: data[:], lambda: data.check_ids(24), data.fingerprint):
        with pytest.raises(ReadError, match=r"ids\.npy has changed since") as caught:
            use()
        assert caught.value.errno == errno.ESTALE
    if change is not appended:
        np.testing.assert_array_equal(TokenDataset(saved)[:], IDS[::-1])


def test_a_file_that_is_touched_linked_or_of_another_mode_is_read_on(saved, tmp_path):
    data = TokenDataset(saved)
    for time_ns in (10**18, 2 * 10**18):
        os.utime(saved, ns=(time_ns, time_ns))
        np.testing.assert_array_equal(data[:], IDS)
    (tmp_path / "backup.npy").hardlink_to(saved)
    saved.chmod(0o444)
    np.testing.assert_array_equal(data[:], IDS)


def test_a_pickle_holds_the_path(saved, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    kept = pickle.dumps(TokenDataset("ids.npy"))
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(kept)[:], IDS)
    np.save(saved, IDS[:2])
    with pytest.raises(TokenFileError, match="when the data was opened"):
        pickle.loads(kept)
    saved.unlink()
    with pytest.raises(MissingTokensError, match="every machine"):
        pickle.loads(kept)


def test_a_pair_may_be_called_so_too(tmp_path):
    write_tokens(tmp_path / "odd.npy", IDS.astype(np.uint16))
    np.testing.assert_array_equal(TokenDataset(tmp_path / "odd.npy")[:], IDS)


def test_a_file_that_shrinks(saved):
    ids = np.zeros((100, 1024), np.int32)
    np.save(saved, ids)
    for left in (-4, -200_000):
        np.save(saved, ids)
        data = TokenDataset(saved)
        os.truncate(saved, saved.stat().st_size + left)
        with pytest.raises(TruncatedFileError, match=r"ids\.npy"):
            data.gather([99])
        with pytest.raises(TruncatedFileError, match=r"ids\.npy"):
            data.check_ids(5)


def npy_bytes(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


WHOLE = npy_bytes(IDS)


def with_header(text):
    body = text.encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(body)) + body


@pytest.mark.filterwarnings("ignore")  # numpy's, of headers by Python 2
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy_bytes(IDS.astype(float)), "float64 of shape .4, 6.; token ids are integers"),
        (npy_bytes(IDS > 3), "bool of shape"),
        (npy_bytes(IDS[0]), "shape .6.;"),
        (npy_bytes(IDS[None]), "shape .1, 4, 6."),
        (npy_bytes(np.array([[1, None]]), allow_pickle=True), "object of shape"),
        (npy_bytes(IDS.astype([("a", "i4")])), "shape .4, 6."),
        (npy_bytes(np.asfortranarray(IDS)), "Fortran order"),
        (npy_bytes(IDS.astype(">i4")), "another byte order"),
        (npy_bytes(np.zeros((3, 0), int)), "header says .3, 0."),
        (b"", "no whole .npy file"),
        (b"hello", "no whole .npy file"),
        (WHOLE[:60], "no whole .npy file"),
        (b"\x93NUMPY\7\0" + WHOLE[8:], "version 7.0|only support"),
        (WHOLE + b"more", "4 bytes follow the last row"),
        (with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (-1, -4)}"), "header says"),
        (with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (1e9, 4)}"), "no whole"),
        (with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 4)}"), "object"),
        (with_header("__import__('os').abort()"), "no whole .npy file"),
        (with_header("(" * 5000), "no whole .npy file"),
        (with_header("-" * 5000 + "1"), "no whole .npy file"),
    ],
)
def test_what_is_no_token_ids(tmp_path, content, words):
    (tmp_path / "ids.npy").write_bytes(content)
    with pytest.raises(TokenFileError, match=words) as caught:
        TokenDataset(tmp_path / "ids.npy")
    assert str(tmp_path / "ids.npy") in str(caught.value)


@pytest.mark.parametrize("rows", [5, 2**61, 10**30])
def test_a_header_that_promises_more_than_there_is(tmp_path, rows):
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({rows}, 4)}}"
    (tmp_path / "ids.npy").write_bytes(with_header(text) + bytes(64))
    with pytest.raises((TruncatedFileError, TokenFileError)):
        TokenDataset(tmp_path / "ids.npy")


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_damaged_headers(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    content = bytearray(WHOLE)
    content[place % 128] = value
    path.write_bytes(bytes(content)[: len(content) - cut])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = TokenDataset(path)
        except PythiaFastError:
            return
    assert data[:].size * np.dtype(data.dtype).itemsize <= len(WHOLE)


def test_what_needs_a_pair_says_so(saved, tmp_path):
    with pytest.raises(ArgumentError, match=r"is a \.npy file, and an \.idx/\.bin pair is needed"):
        shard(saved, tmp_path / "shards")


def test_paths_without_a_file(tmp_path):
    with pytest.raises(MissingTokensError, match="there is no such file"):
        TokenDataset(tmp_path / "ids.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(MissingTokensError, match="there is no such file"):
        TokenDataset(tmp_path / "folder.npy")
    np.save(tmp_path / "ids.npy", IDS)
    with pytest.raises(ArgumentError, match=r"a \.npy file holds ids already"):
        TokenDataset(tmp_path / "ids.npy", tokenizer="tokenizer.json")
