"""A damaged .idx/.bin pair is a TokenFileError with path and offset, or holds the same data."""

import struct

import numpy as np
import pytest

from pythia_fast.core import TokenStore
from pythia_fast.errors import MissingTokensError, ReadError, TokenFileError
from pythia_fast.tokens import TokenDataset

LENGTHS = [5, 0, 7, 1]
ROWS = [np.arange(n, dtype=np.uint16) + 100 * n for n in LENGTHS]
SIZES, POINTERS, DOCUMENTS = 34, 34 + 16, 34 + 16 + 32  # where they begin
DOCUMENT_VALUES = (0, 2, 4)


def patched(offset, layout, value):
    def change(index):
        return (
            index[:offset] + struct.pack(layout, value) + index[offset + struct.calcsize(layout) :]
        )

    return change


# name: (what happens to the .idx, the offset that the error names, words of its reason)
MUTATIONS = {
    "empty": (lambda index: b"", 0, "within the header"),
    "only a header's beginning": (lambda index: index[:33], 33, "within the header"),
    "another magic": (patched(3, "<c", b"X"), 0, "MMIDIDX"),
    "a magic without its zeros": (patched(8, "<c", b"1"), 0, "MMIDIDX"),
    "version 0": (patched(9, "<Q", 0), 9, "version 0"),
    "version 2": (patched(9, "<Q", 2), 9, "version 2"),
    "a version with high bits": (patched(9, "<Q", 1 + 2**32), 9, "version"),
    "float32": (patched(17, "<B", 6), 17, "floating-point"),
    "float64": (patched(17, "<B", 7), 17, "floating-point"),
    "code 0": (patched(17, "<B", 0), 17, "unknown dtype code 0"),
    "code 9": (patched(17, "<B", 9), 17, "unknown dtype code 9"),
    "one sequence more": (patched(18, "<Q", 5), 18, "the file has"),
    "one sequence less": (patched(18, "<Q", 3), 18, "the file has"),
    "2^61 sequences": (patched(18, "<Q", 2**61), 18, "2^64"),
    "2^64-1 sequences": (patched(18, "<Q", 2**64 - 1), 18, "2^64"),
    "sequences whose bytes wrap": (patched(18, "<Q", 4 + 2**62), 18, "2^64"),
    "one document more": (patched(26, "<Q", 4), 18, "the file has"),
    "documents whose bytes wrap": (patched(26, "<Q", 3 + 2**61), 18, "2^64"),
    "a byte less": (lambda index: index[:-1], 18, "the file has"),
    "a byte more": (lambda index: index + b"\0", 18, "the file has"),
    "a negative size": (patched(SIZES + 8, "<i", -7), SIZES + 8, "-7 tokens"),
    "a size too small": (patched(SIZES, "<i", 4), POINTERS + 8, "end at byte 8"),
    "a size too large": (patched(SIZES + 8, "<i", 2**31 - 1), POINTERS + 24, "begin at byte 24"),
    "a first pointer": (patched(POINTERS, "<q", 2), POINTERS, "end at byte 0"),
    "a negative pointer": (patched(POINTERS + 8, "<q", -10), POINTERS + 8, "byte -10"),
    "an odd pointer": (patched(POINTERS + 24, "<q", 25), POINTERS + 24, "byte 25"),
    "a negative document": (patched(DOCUMENTS, "<q", -1), DOCUMENTS, "before 0"),
    "documents that fall": (patched(DOCUMENTS + 8, "<q", 4), None, None),
    "a document that falls": (patched(DOCUMENTS + 16, "<q", 1), DOCUMENTS + 16, "before 2"),
    "a document too far": (patched(DOCUMENTS + 16, "<q", 5), DOCUMENTS + 16, "there are 4"),
}


@pytest.fixture
def prefix(tmp_path, token_files):
    return token_files(tmp_path / "data", ROWS, documents=DOCUMENT_VALUES)


def test_the_undamaged_pair(prefix):
    data = TokenDataset(prefix)
    assert [row.tolist() for row in data] == [row.tolist() for row in ROWS]
    assert data.source == f"{prefix}.bin"
    store = TokenStore(f"{prefix}.idx", f"{prefix}.bin")
    assert (len(store), store.dtype, store.documents) == (4, "uint16", 3)


@pytest.mark.parametrize("name", MUTATIONS)
def test_damage_to_the_index(prefix, name):
    change, offset, words = MUTATIONS[name]
    path = prefix.with_suffix(".idx")
    path.write_bytes(change(path.read_bytes()))
    if offset is None:  # 0, 4, 4 is monotone and within the file: not damage that one can see
        assert len(TokenDataset(prefix)) == 4
        return
    with pytest.raises(TokenFileError) as caught:
        TokenDataset(prefix)
    assert caught.value.path == path
    assert caught.value.offset == offset
    assert words in caught.value.reason


def test_every_flipped_bit_is_an_error_or_harmless(prefix):
    path = prefix.with_suffix(".idx")
    good = path.read_bytes()
    survived = []
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            rows = [row.tolist() for row in TokenDataset(prefix)]
        except TokenFileError:
            continue
        survived.append(bit // 8)
        # Other documents, or the last size, which nothing follows; or another dtype that fits.
        if bit // 8 >= DOCUMENTS:
            assert rows == [row.tolist() for row in ROWS]
        elif bit // 8 == 17:
            assert [len(row) for row in rows] == LENGTHS
        else:
            assert SIZES + 12 <= bit // 8 < SIZES + 16
            assert rows[:3] == [row.tolist() for row in ROWS[:3]]
            assert rows[3] == ROWS[3].tolist()[: len(rows[3])]
    assert set(range(DOCUMENTS)) - set(survived) >= set(range(17)) | set(range(18, SIZES + 12))


def test_random_damage_never_crashes(prefix):
    path = prefix.with_suffix(".idx")
    good = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(2000):
        damaged = np.frombuffer(good, dtype=np.uint8).copy()
        places = rng.integers(0, len(good), rng.integers(1, 9))
        damaged[places] = rng.choice([0, 1, 255, 127, 128, rng.integers(256)], len(places))
        path.write_bytes(damaged.tobytes()[: rng.choice([len(good), rng.integers(len(good))])])
        try:
            data = TokenDataset(prefix)
        except TokenFileError:
            continue
        assert len(list(data)) == 4
        data.fingerprint()


@pytest.mark.parametrize("size", [0, 1, 25])
def test_a_bin_that_is_too_short(prefix, size):
    path = prefix.with_suffix(".bin")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(TokenFileError, match="needs 26 bytes") as caught:
        TokenDataset(prefix)
    assert (caught.value.path, caught.value.offset) == (path, size)


def test_a_bin_may_be_longer(prefix):
    with prefix.with_suffix(".bin").open("ab") as file:
        file.write(b"more")
    assert TokenDataset(prefix)[3].tolist() == ROWS[3].tolist()


def test_huge_counts_ask_for_no_memory(tmp_path):
    """A header alone, with counts whose arrays would take exabytes."""
    (tmp_path / "data.bin").write_bytes(b"")
    for rows, documents in ((2**60, 1), (1, 2**60), (2**40, 2**40)):
        head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, rows, documents)
        (tmp_path / "data.idx").write_bytes(head)
        with pytest.raises(TokenFileError, match="the file has 34"):
            TokenDataset(tmp_path / "data")


@pytest.mark.parametrize("documents", [(), (0,), (0, 0, 1, 4), (0, 1, 2, 3, 4)])
def test_documents_need_not_be_one_a_row(tmp_path, token_files, documents):
    prefix = token_files(tmp_path / "data", ROWS, documents=documents)
    store = TokenStore(f"{prefix}.idx", f"{prefix}.bin")
    assert store.documents == len(documents)
    assert len(TokenDataset(prefix)) == 4


def test_no_rows_at_all(tmp_path, token_files):
    data = TokenDataset(token_files(tmp_path / "data", [], documents=(0,)))
    assert len(data) == 0
    assert data[:].shape == (0, 0)
    assert data.lengths.shape == (0,)
    data.check_ids(1)


def test_an_index_that_changes_after_opening(prefix):
    data = TokenDataset(prefix)
    path = prefix.with_suffix(".idx")
    with path.open("r+b") as file:  # in place: the mapping sees it
        file.seek(POINTERS + 16)
        file.write(struct.pack("<q", 2**40))
    assert data[0].tolist() == ROWS[0].tolist()
    with pytest.raises(TokenFileError, match="has changed since it was opened"):
        data[2]


def test_missing_files_say_what_was_looked_for(tmp_path, prefix):
    with pytest.raises(
        MissingTokensError, match=r"neither .*nothing\.idx nor .*nothing\.bin"
    ) as caught:
        TokenDataset(tmp_path / "nothing")
    assert isinstance(caught.value, FileNotFoundError)
    prefix.with_suffix(".bin").unlink()
    with pytest.raises(MissingTokensError, match=r"data\.bin is not there"):
        TokenDataset(str(prefix) + ".idx")


def test_a_folder_in_place_of_a_file(prefix):
    prefix.with_suffix(".bin").unlink()
    prefix.with_suffix(".bin").mkdir()
    with pytest.raises(ReadError, match="directory"):
        TokenDataset(prefix)
