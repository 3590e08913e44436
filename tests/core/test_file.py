"""File: exact reads, and an error with path and place for every other case."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.core import File
from pythia_fast.errors import ArgumentError, ReadError, TruncatedFileError

CONTENT = bytes(range(256)) * 3


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "täst.bin"
    path.write_bytes(CONTENT)
    return path


def test_says_what_it_is(path):
    file = File(path)
    assert file.path == str(path)
    assert file.size == len(CONTENT)
    assert os.fstat(file.fileno()).st_size == len(CONTENT)
    assert repr(file) == f"File({str(path)!r}, {len(CONTENT)} bytes)"


@given(st.integers(0, 800), st.integers(0, 800))
def test_reads_exactly_or_not_at_all(path, offset, nbytes):
    file = File(str(path))
    if offset + nbytes <= len(CONTENT):
        assert file.read(offset, nbytes) == CONTENT[offset : offset + nbytes]
    else:
        with pytest.raises(TruncatedFileError) as caught:
            file.read(offset, nbytes)
        assert (caught.value.path, caught.value.offset) == (path, offset)


def test_takes_whatever_counts_as_an_integer(path):
    assert File(path).read(np.int64(1), np.uint8(2)) == b"\x01\x02"
    with pytest.raises(TypeError):
        File(path).read(1.0, 2)


@pytest.mark.parametrize("offset", [2**63, 2**64 - 1])
def test_a_sum_beyond_64_bits_is_no_way_around_the_check(path, offset):
    with pytest.raises(TruncatedFileError):
        File(path).read(offset, 2**63)


@pytest.mark.parametrize("bad", [-1, 2**64])
def test_numbers_outside_64_bits_are_refused(path, bad):
    with pytest.raises(ArgumentError, match="offset"):
        File(path).read(bad, 1)
    with pytest.raises(ArgumentError, match="nbytes"):
        File(path).read(0, bad)


def test_a_file_that_shrinks_is_an_error(tmp_path):
    path = tmp_path / "shrinks"
    path.write_bytes(b"0123456789")
    file = File(path)
    os.truncate(path, 4)
    assert file.read(0, 4) == b"0123"
    with pytest.raises(TruncatedFileError, match="10 bytes when it was opened") as caught:
        file.read(2, 5)
    assert caught.value.offset == 4


def test_a_missing_file(tmp_path):
    with pytest.raises(ReadError, match="No such file") as caught:
        File(tmp_path / "missing")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(tmp_path / "missing")


def test_a_folder_and_a_pipe_are_no_files(tmp_path):
    with pytest.raises(ReadError, match="directory"):
        File(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match="regular file"):
        File(tmp_path / "pipe")  # and does not wait for a writer


def test_names_that_are_no_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe"
    with open(name, "wb") as file:  # noqa: PTH123  # Path takes no bytes
        file.write(b"abc")
    assert File(os.fsdecode(name)).read(0, 3) == b"abc"
    with pytest.raises(TruncatedFileError) as caught:
        File(os.fsdecode(name)).read(0, 4)
    assert os.fsencode(caught.value.path) == name


def test_descriptors_are_given_back(path):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(50):
        File(path).read(0, 1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
