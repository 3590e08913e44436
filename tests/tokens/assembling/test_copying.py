"""copy_range: the same bytes whatever the system can do; the fallbacks are forced."""

import errno
import fcntl
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import TruncatedFileError
from pythia_fast.tokens.assembling import copying

BLOCK = 4096


@pytest.fixture
def files(tmp_path):
    """A source of random bytes and an empty target, both open."""
    data = np.random.default_rng(0).bytes(5 * BLOCK + 77)
    (tmp_path / "source").write_bytes(data)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield source, target, data
    os.close(source)
    os.close(target)


def refuse(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


def content(target):
    return os.pread(target, 1 << 20, 0)


@pytest.mark.parametrize("copy_file_range", [None, *sorted(copying._CANNOT)])
@pytest.mark.parametrize(
    ("source_offset", "target_offset", "nbytes"),
    [(0, 0, 5 * BLOCK + 77), (0, 0, 0), (3, 0, 9000), (100, 4196, 9000), (8192, 512, 4096)],
)
def test_every_way_copies_the_same(
    files, monkeypatch, copy_file_range, source_offset, target_offset, nbytes
):
    source, target, data = files
    monkeypatch.setattr(copying, "BUFFER_BYTES", 1000)
    monkeypatch.setattr(fcntl, "ioctl", refuse(errno.EOPNOTSUPP))
    if copy_file_range is not None:
        monkeypatch.setattr(os, "copy_file_range", refuse(copy_file_range))
    assert copying.copy_range(source, source_offset, target, target_offset, nbytes) == 0
    want = data[source_offset : source_offset + nbytes]
    assert content(target) == (bytes(target_offset) + want if nbytes else b"")


def test_a_kernel_that_copies_nothing_and_one_that_copies_little(files, monkeypatch):
    source, target, data = files
    real = os.copy_file_range
    calls = []

    def little(src, dst, count, offset_src, offset_dst):
        calls.append(count)
        return 0 if len(calls) % 2 else real(src, dst, min(count, 100), offset_src, offset_dst)

    monkeypatch.setattr(os, "copy_file_range", little)
    monkeypatch.setattr(copying, "BUFFER_BYTES", 333)
    copying.copy_range(source, 5, target, 0, 9000)
    assert content(target) == data[5:9005]
    assert len(calls) > 20


def test_short_writes_are_gone_on_with(files, monkeypatch):
    source, target, data = files
    real = os.pwrite
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.EXDEV))
    monkeypatch.setattr(os, "pwrite", lambda fd, part, at: real(fd, part[:7], at))
    copying.copy_range(source, 0, target, 0, 1000)
    assert content(target) == data[:1000]


def test_other_errors_are_not_taken_for_want_of_a_call(files, monkeypatch):
    source, target, _ = files
    monkeypatch.setattr(fcntl, "ioctl", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        copying.copy_range(source, 0, target, 0, 2 * BLOCK)
    monkeypatch.setattr(fcntl, "ioctl", refuse(errno.EXDEV))
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        copying.copy_range(source, 0, target, 0, 100)


def test_a_source_that_ends_early(files, monkeypatch, tmp_path):
    source, target, data = files
    with pytest.raises(TruncatedFileError, match="the file ends here") as caught:
        copying.copy_range(source, 10, target, 0, len(data))
    assert caught.value.path == tmp_path / "source"
    assert caught.value.offset == len(data)
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    monkeypatch.setattr(os, "pread", lambda *_: b"")  # it shrinks after it was looked at
    with pytest.raises(TruncatedFileError):
        copying.copy_range(source, 0, target, 0, 100)


@settings(max_examples=200, deadline=None)
@given(
    source_offset=st.integers(0, 3 * BLOCK),
    target_offset=st.integers(0, 3 * BLOCK),
    nbytes=st.integers(0, 5 * BLOCK),
    alike=st.booleans(),
)
def test_what_can_be_shared_are_whole_blocks_and_all_of_them(
    tmp_path_factory, source_offset, target_offset, nbytes, alike
):
    if alike:
        target_offset += (source_offset - target_offset) % BLOCK
    with open(os.devnull, "rb") as file:  # noqa: PTH123
        begin, end = copying.shareable(file.fileno(), source_offset, target_offset, nbytes)
    if begin == end:
        first = -(-source_offset // BLOCK)
        last = (source_offset + nbytes) // BLOCK
        assert (source_offset - target_offset) % BLOCK or first >= last
        return
    assert 0 <= begin < end <= nbytes
    for offset in (source_offset, target_offset):
        assert (offset + begin) % BLOCK == 0
        assert (offset + end) % BLOCK == 0
    assert begin < BLOCK
    assert nbytes - end < BLOCK


def test_blocks_that_are_shared_are_counted_and_the_rest_is_copied(files, monkeypatch):
    """The call is stood in for by one that copies, so that this runs on any file system."""
    source, target, data = files
    shared = []

    def ioctl(fd, request, argument):
        assert fd == target
        assert request == 0x4020940D
        numbers = np.frombuffer(argument, "<i8")
        assert numbers[0] == source
        assert not any(numbers[1:] % BLOCK)
        shared.append(tuple(numbers[1:].tolist()))
        os.pwrite(fd, os.pread(source, int(numbers[2]), int(numbers[1])), int(numbers[3]))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert copying.copy_range(source, 100, target, 100 + BLOCK, 3 * BLOCK) == 2 * BLOCK
    assert shared == [(BLOCK, 2 * BLOCK, 2 * BLOCK)]
    assert content(target) == bytes(100 + BLOCK) + data[100 : 100 + 3 * BLOCK]
    assert copying.copy_range(source, 0, target, 1, 3 * BLOCK) == 0
    assert len(shared) == 1


def test_holes_stay_holes_and_cost_nothing(tmp_path):
    """5 GiB and a few bytes: offsets beyond 2^32 too."""
    beyond = (5 << 30) + 123
    source = os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(source, b"begin", 10)
        os.pwrite(source, b"end", beyond)
        os.ftruncate(target, beyond + 10)
        copying.copy_range(source, 0, target, 7, beyond + 3)
        assert os.fstat(target).st_blocks * 512 < 1 << 20
        assert os.pread(target, 20, 10) == bytes(7) + b"begin" + bytes(8)
        assert os.pread(target, 20, beyond) == bytes(7) + b"end"
    finally:
        os.close(source)
        os.close(target)


def test_a_file_system_that_knows_no_holes(files, monkeypatch):
    source, target, data = files
    monkeypatch.setattr(os, "lseek", refuse(errno.EINVAL))
    copying.copy_range(source, 50, target, 0, 5000)
    assert content(target) == data[50:5050]
    monkeypatch.setattr(os, "lseek", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        copying.copy_range(source, 0, target, 0, 100)
