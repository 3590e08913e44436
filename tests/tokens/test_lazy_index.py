"""An index above 64 MiB: opened by its ends, each row checked when it is used, or all at once."""

import struct

import numpy as np
import pytest

from pythia_fast.core import TokenStore
from pythia_fast.errors import TokenFileError
from pythia_fast.tokens import TokenDataset

ROWS = 6_000_000
SIZES, POINTERS = 34, 34 + 4 * ROWS
DOCUMENTS = POINTERS + 8 * ROWS
SMALL_ROWS = [np.arange(n, dtype=np.uint16) + 100 * n for n in (5, 0, 7, 1)]


@pytest.fixture(scope="module")
def large(tmp_path_factory, index_bytes):
    """One token a row, and a .bin of holes."""
    prefix = tmp_path_factory.mktemp("large") / "data"
    prefix.with_suffix(".idx").write_bytes(index_bytes(np.ones(ROWS), 2, documents=(0, 7, 9)))
    with prefix.with_suffix(".bin").open("wb") as file:
        file.truncate(2 * ROWS)
    assert prefix.with_suffix(".idx").stat().st_size > 64 * 2**20
    return prefix


@pytest.fixture
def damage(large):
    """Writes into the large index, and takes it back at the end."""
    undo = []

    def write(offset, layout, value):
        with large.with_suffix(".idx").open("r+b") as file:
            file.seek(offset)
            undo.append((offset, file.read(struct.calcsize(layout))))
            file.seek(offset)
            file.write(struct.pack(layout, value))

    yield write
    with large.with_suffix(".idx").open("r+b") as file:
        for offset, before in reversed(undo):
            file.seek(offset)
            file.write(before)


def test_undamaged(large):
    data = TokenDataset(large)
    assert len(data) == ROWS
    data.verify()
    assert data.lengths_of([0, ROWS // 2, -1]).tolist() == [1, 1, 1]


# name: (offset, layout, value, a row that shows it, where, words of both errors)
INSIDE = {
    "a negative size": (SIZES + 4 * 4_000_000, "<i", -2, 4_000_000, None, "has -2 tokens"),
    "a size": (SIZES + 4 * 4_000_000, "<i", 2, 4_000_000, POINTERS + 8 * 4_000_001, "end at byte"),
    "a pointer": (POINTERS + 8 * 262_144, "<q", 9, 262_143, None, "said to begin at byte 9 "),
    "a negative one": (POINTERS + 8 * 5_999_998, "<q", -8, 5_999_997, None, "begin at byte -8 "),
}


@pytest.mark.parametrize("name", INSIDE)
def test_damage_inside_shows_where_it_is_used(large, damage, name):
    offset, layout, value, row, where, words = INSIDE[name]
    where = offset if where is None else where
    damage(offset, layout, value)
    data = TokenDataset(large)
    assert data.lengths_of([0, 1, -1]).tolist() == [1, 1, 1]
    for use in (
        lambda: data[row],
        lambda: data.lengths_of([row]),
        lambda: data.check_ids(9, [3, row]),
        data.verify,
        lambda: data.verify(threads=1),
        lambda: TokenStore(f"{large}.idx", f"{large}.bin", "full"),
    ):
        with pytest.raises(TokenFileError, match=words) as caught:
            use()
        assert caught.value.path == large.with_suffix(".idx")
        assert caught.value.offset == where


def test_the_first_of_several_is_named(large, damage):
    for row in (5_500_000, 100_000, 3_000_000):
        damage(POINTERS + 8 * row, "<q", 1)
    for threads in (1, 2, 8):
        with pytest.raises(TokenFileError, match="sequence 100000 ") as caught:
            TokenDataset(large).verify(threads=threads)
        assert caught.value.offset == POINTERS + 800_000


def test_documents_are_left_to_verify(large, damage):
    damage(DOCUMENTS + 16, "<q", 3)
    data = TokenDataset(large)
    with pytest.raises(TokenFileError, match="document 2 begins at sequence 3, before 7") as caught:
        data.verify()
    assert caught.value.offset == DOCUMENTS + 16


ENDS = {
    "the first pointer": (POINTERS, "<q", 2, "sequence 0 is said to begin at byte 2"),
    "the first size": (SIZES, "<i", -1, "sequence 0 has -1 tokens"),
    "the last size": (POINTERS - 4, "<i", -3, f"sequence {ROWS - 1} has -3 tokens"),
    "the last pointer": (DOCUMENTS - 8, "<q", -2, f"sequence {ROWS - 1} is said to begin"),
    "an odd last pointer": (DOCUMENTS - 8, "<q", 2 * ROWS - 3, "where none of its ids can begin"),
}


@pytest.mark.parametrize("name", ENDS)
def test_damage_at_the_ends_shows_at_once(large, damage, name):
    offset, layout, value, words = ENDS[name]
    damage(offset, layout, value)
    with pytest.raises(TokenFileError, match=words) as caught:
        TokenDataset(large)
    assert caught.value.offset == offset


def test_a_last_row_that_needs_more_than_there_is(large, damage):
    damage(POINTERS - 4, "<i", 5)
    with pytest.raises(TokenFileError, match=f"needs {2 * ROWS + 8} bytes"):
        TokenDataset(large)


def test_a_quick_check_reads_no_more_than_it_says(tmp_path, token_files):
    """A mirror with holes: header, first and last row, and what the rows used need."""
    prefix = token_files(tmp_path / "data", SMALL_ROWS, documents=(0, 4))
    index = prefix.with_suffix(".idx")
    good = index.read_bytes()
    pointers = 34 + 16
    needed = [(0, 38), (34 + 12, pointers + 8), (pointers + 24, pointers + 32)]  # opening
    needed += [(34 + 8, 34 + 12), (pointers + 16, pointers + 32)]  # row 2
    holes = bytearray(b"\xee" * len(good))
    for begin, end in needed:
        holes[begin:end] = good[begin:end]
    index.write_bytes(holes)
    store = TokenStore(index, prefix.with_suffix(".bin"), "quick")
    assert store.bin_bytes == 26
    out = np.empty((1, 7), dtype=np.int64)
    store.gather(np.array([2]), 0, 7, out, 1)
    np.testing.assert_array_equal(out[0], SMALL_ROWS[2])
    with pytest.raises(TokenFileError):
        store.gather(np.array([1]), 0, 7, out, 1)
    with pytest.raises(TokenFileError):
        TokenStore(index, prefix.with_suffix(".bin"))
    index.write_bytes(good)  # the same file, now whole: the mapping sees it
    store.verify(1)


def test_every_flipped_bit_is_an_error_at_its_row_or_harmless(tmp_path, token_files):
    prefix = token_files(tmp_path / "data", SMALL_ROWS, documents=(0, 2, 4))
    index, bin_ = prefix.with_suffix(".idx"), prefix.with_suffix(".bin")
    good = index.read_bytes()
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        index.write_bytes(damaged)
        try:
            TokenStore(index, bin_, "full")
            whole = True
        except TokenFileError:
            whole = False
        try:
            store = TokenStore(index, bin_, "quick")
        except TokenFileError:
            assert not whole
            continue
        rows = np.arange(len(store))
        out = np.empty((len(store), 13), dtype=np.int64)
        try:
            store.gather(rows, 0, 13, out, 1)
        except TokenFileError:
            assert not whole
        try:
            store.verify(2)
            assert whole
        except TokenFileError:
            assert not whole


def test_nothing_is_left_to_check_in_memory():
    TokenDataset(np.zeros((2, 3), dtype=np.int64)).verify()
