"""The record of a file in the making says what is there, and nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.errors import WriteError
from pythia_fast.hub.partial import BLOCK_BYTES, PartialFile, present_bytes, record_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x"


@given(
    size=st.integers(0, 5 * BLOCK_BYTES + 3),
    spans=st.lists(st.tuples(st.integers(0, 5 * BLOCK_BYTES), st.integers(0, 5 * BLOCK_BYTES + 3))),
)
def test_the_record_against_a_set(
    size: int, spans: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("partial") / "x"
    partial = PartialFile(path, size)
    there: set[int] = set()
    blocks = -(-size // BLOCK_BYTES)
    ends = [min((block + 1) * BLOCK_BYTES, size) for block in range(blocks)]
    for first, last in spans:
        begin, end = sorted((min(first, size), min(last, size)))
        partial.mark(begin, end)
        there |= {b for b in range(blocks) if begin <= b * BLOCK_BYTES and ends[b] <= end}
    nbytes = sum(ends[block] - block * BLOCK_BYTES for block in there)
    absent = [b for b in range(blocks) if b not in there]
    for _ in range(2):  # and again by somebody who only has the files
        assert partial.present_bytes == present_bytes(path, size) == nbytes
        assert partial.frontier() == (absent[0] * BLOCK_BYTES if absent else size)
        missing = [
            b
            for low, high in partial.missing()
            for b in range(blocks)
            if low <= b * BLOCK_BYTES < high
        ]
        assert missing == absent
        partial.release()
        partial = PartialFile(path, size)
    partial.release()
    assert path.stat().st_size == size


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: b"",
        lambda record: record[:-1],
        lambda record: record + b"\1",
        lambda record: b"x" + record[1:],
        lambda record: record[:-1] + b"\2",
        lambda record: record[:8] + bytes(8) + record[16:],
    ],
)
def test_a_record_that_makes_no_sense_is_not_believed(path: Path, spoil) -> None:
    size = 3 * BLOCK_BYTES
    partial = PartialFile(path, size)
    partial.mark(0, size)
    partial.release()
    assert present_bytes(path, size) == size
    record_of(path).write_bytes(spoil(record_of(path).read_bytes()))
    assert present_bytes(path, size) == 0
    partial = PartialFile(path, size)
    assert list(partial.missing())
    assert partial.present_bytes == 0
    partial.release()


def test_a_record_of_another_file_is_not_believed(path: Path) -> None:
    partial = PartialFile(path, BLOCK_BYTES)
    partial.mark(0, BLOCK_BYTES)
    partial.release()
    path.unlink()  # as eviction would
    assert present_bytes(path, BLOCK_BYTES) == 0
    partial = PartialFile(path, BLOCK_BYTES)
    assert partial.present_bytes == 0
    partial.release()
    assert present_bytes(path, BLOCK_BYTES + 1) == 0


def test_it_is_open_as_long_as_somebody_holds_it(path: Path) -> None:
    partial = PartialFile(path, 5)
    assert partial.hold()
    partial.release()
    partial.write(0, memoryview(b"abcde"))
    data = bytearray(5)
    partial.read_into(memoryview(data), 0)
    assert data == b"abcde"
    partial.release()
    assert not partial.hold()


def test_a_file_cut_by_somebody(path: Path) -> None:
    partial = PartialFile(path, 5)
    path.write_bytes(b"ab")
    with pytest.raises(WriteError, match="cut by somebody"):
        partial.read_into(memoryview(bytearray(5)), 0)
    partial.release()


def test_a_folder_or_pipe_in_its_place(path: Path) -> None:
    path.mkdir()
    with pytest.raises(WriteError, match="cannot write"):
        PartialFile(path, 5)
