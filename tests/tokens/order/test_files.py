"""Orders on disk: GPT-NeoX's names and types, and every way in which files can be wrong."""

import pickle
import shutil

import numpy as np
import pytest

from pythia_fast.errors import ArgumentError, MissingTokensError, OrderError, ReadError, WriteError
from pythia_fast.tokens.order import Order, build
from pythia_fast.tokens.order import files as order_files

LENGTHS = [7, 0, 30, 4, 1, 9, 25]
STEM = "raw_train_0_indexmap_20ns_8sl_1234s"
PARTS = ("doc_idx", "sample_idx", "shuffle_idx")


@pytest.fixture
def order():
    return build(LENGTHS, sequence_length=8, samples=20)


@pytest.fixture
def stem(order, tmp_path):
    return order.save(tmp_path / "raw")


def assert_same(a, b):
    for part in PARTS:
        np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    assert (a.sequence_length, a.seed, a.samples) == (b.sequence_length, b.seed, b.samples)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def file_of(stem, part):
    return stem.with_name(f"{stem.name}_{part}.npy")


def test_files_have_the_names_and_types_that_gpt_neox_loads(order, stem, tmp_path):
    assert stem == tmp_path / STEM
    assert names_in(tmp_path) == [f"{STEM}_{part}.npy" for part in PARTS]
    for part in PARTS:
        found = np.load(file_of(stem, part), allow_pickle=True, mmap_mode="r")
        np.testing.assert_array_equal(found, getattr(order, part))
        assert found.dtype == getattr(order, part).dtype


@pytest.mark.parametrize("mmap", [True, False])
def test_what_was_saved_is_loaded_by_prefix_stem_or_file(order, stem, tmp_path, mmap):
    for path in (
        *(tmp_path / "raw", str(tmp_path / "raw.idx"), tmp_path / "raw.bin", stem),
        *(file_of(stem, part) for part in PARTS),
    ):
        loaded = Order.load(path, mmap=mmap)
        assert_same(loaded, order)
        assert isinstance(loaded.doc_idx, np.memmap) is mmap
        loaded.check(LENGTHS)


def test_what_gpt_neox_v1_saves_is_loaded(order, tmp_path):
    """np.save with int32 rows, as its helpers give them; later versions say more in the name."""
    for name in (STEM, f"{STEM}_packedpi_ac"):
        rows = order.sample_idx.astype(np.int32)
        np.save(tmp_path / f"{name}_doc_idx.npy", order.doc_idx, allow_pickle=True)
        np.save(tmp_path / f"{name}_sample_idx.npy", rows, allow_pickle=True)
        np.save(tmp_path / f"{name}_shuffle_idx.npy", order.shuffle_idx, allow_pickle=True)
        loaded = Order.load(tmp_path / f"{name}_doc_idx.npy")
        assert loaded.sample_idx.dtype == np.int32
        assert_same(loaded, order)
        loaded.check(LENGTHS)


def test_a_pickle_of_a_loaded_order_is_where_it_lies(stem):
    loaded = Order.load(stem)
    pickled = pickle.dumps(loaded)
    copy = pickle.loads(pickled)
    assert_same(copy, loaded)
    assert isinstance(copy.doc_idx, np.memmap)
    assert copy.files == loaded.files


def test_several_orders_are_told_apart_by_their_stem(order, stem, tmp_path):
    other = build(LENGTHS, sequence_length=8, samples=20, seed=7).save(tmp_path / "raw")
    with pytest.raises(ArgumentError, match=f"2 orders.*{stem.name}, {other.name}"):
        Order.load(tmp_path / "raw")
    assert_same(Order.load(stem), order)
    order.save(tmp_path / "raw", name="valid_0")
    assert Order.load(tmp_path / "raw_valid_0_indexmap_20ns_8sl_1234s").seed == 1234


@pytest.mark.parametrize("path", ["raw", "no/folder/raw", f"{STEM}", f"{STEM}_doc_idx.npy"])
def test_an_order_that_is_not_there_is_missing(tmp_path, path):
    (tmp_path / "raw_train_0_indexmap_20ns_8sl_1234s.txt").write_text("no order")
    with pytest.raises(MissingTokensError, match=r"_doc_idx\.npy"):
        Order.load(tmp_path / path)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("mmap", [True, False])
def test_one_file_that_is_not_there_is_named(stem, part, mmap):
    file_of(stem, part).unlink()
    with pytest.raises(MissingTokensError, match=rf"{part}\.npy on .+: an order has three files"):
        Order.load(stem, mmap=mmap)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("mmap", [True, False])
def test_a_file_cut_anywhere_is_refused(stem, part, mmap):
    path = file_of(stem, part)
    whole = path.read_bytes()
    for size in (0, 1, 7, 64, 127, 128, 129, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(OrderError, match=part):
            Order.load(stem, mmap=mmap)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("mmap", [True, False])
def test_a_file_that_is_something_else_is_refused(stem, part, mmap):
    path = file_of(stem, part)
    path.write_bytes(b"not numpy" * 100)
    with pytest.raises(OrderError, match=r"no whole \.npy file"):
        Order.load(stem, mmap=mmap)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(OrderError, match=r"no whole \.npy file"):
        Order.load(stem, mmap=mmap)
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(OrderError, match="archive"):
        Order.load(stem, mmap=mmap)
    np.save(path, np.zeros(3, dtype=np.float64))
    with pytest.raises(OrderError, match=part):
        Order.load(stem, mmap=mmap)


def test_files_of_two_orders_are_refused(order, stem, tmp_path):
    more = build(LENGTHS, sequence_length=8, samples=40).save(tmp_path / "more")
    shutil.copy(file_of(more, "shuffle_idx"), file_of(stem, "shuffle_idx"))
    with pytest.raises(OrderError, match="samples need"):
        Order.load(stem)
    fewer = stem.with_name("raw_train_0_indexmap_2000ns_8sl_1234s")
    for part in PARTS:
        shutil.copy(file_of(more, part), file_of(fewer, part))
    with pytest.raises(OrderError, match="2,000 were asked for"):
        Order.load(fewer)


def test_rows_in_fortrans_order_are_refused(order, stem):
    np.save(file_of(stem, "sample_idx"), np.asfortranarray(order.sample_idx))
    with pytest.raises(OrderError, match="Fortran"):
        Order.load(stem)


def test_what_cannot_be_read_says_why(stem):
    path = file_of(stem, "doc_idx")
    path.unlink()
    path.mkdir()
    with pytest.raises(ReadError, match="doc_idx"):
        Order.load(stem)


def test_an_order_is_replaced_and_nothing_else_is_left(order, tmp_path):
    stem = build([9] * 20, sequence_length=8, samples=20).save(tmp_path / "raw")
    assert order.save(tmp_path / "raw") == stem
    assert_same(Order.load(stem), order)
    assert len(names_in(tmp_path)) == 3


def test_nothing_half_written_gets_a_name(order, tmp_path, monkeypatch):
    real, calls = np.save, []

    def full_disk(file, array, **options):
        calls.append(array)
        if len(calls) == 2:
            file.write(b"half")
            raise OSError("10 requested and 4 written")  # as numpy says it
        real(file, array, **options)

    monkeypatch.setattr(order_files.np, "save", full_disk)
    with pytest.raises(WriteError, match=r"sample_idx.*10 requested and 4 written.*disk full"):
        order.save(tmp_path / "raw")
    assert names_in(tmp_path) == []


def test_an_interrupted_save_leaves_no_mixture(order, tmp_path, monkeypatch):
    """Between two of its files another order's are not to be found beside them."""
    stem = build([9] * 20, sequence_length=8, samples=20).save(tmp_path / "raw")
    real, calls = order_files.Path.replace, []

    def killed(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(order_files.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        order.save(tmp_path / "raw")
    with pytest.raises(MissingTokensError, match=r"doc_idx\.npy"):
        Order.load(stem)
    assert not [name for name in names_in(tmp_path) if "partial" in name]


def test_a_folder_that_is_not_there_and_a_name_that_is_none(order, tmp_path):
    with pytest.raises(WriteError, match="No such file"):
        order.save(tmp_path / "nowhere" / "raw")
    with pytest.raises(ArgumentError, match="part of a file's"):
        order.save(tmp_path / "raw", name="a/b")


@pytest.mark.parametrize("part", PARTS)
def test_files_that_shrink_while_they_are_checked_are_an_error(tmp_path, part):
    stem = build(LENGTHS, sequence_length=8, samples=40_000).save(tmp_path / "raw")
    loaded = Order.load(stem)
    loaded.check(LENGTHS)
    with file_of(stem, part).open("r+b") as file:
        file.truncate(4096)
    for data in (None, LENGTHS):
        with pytest.raises(OrderError, match=f"{part} cannot be read any more"):
            loaded.check(data)


def test_lengths_that_shrink_while_they_are_read_are_an_error(tmp_path):
    path = tmp_path / "lengths"
    np.full(5000, 3, dtype=np.int32).tofile(path)
    lengths = np.memmap(path, np.int32, "r")
    expected = build(lengths, sequence_length=8, samples=20)
    assert_same(expected, build(np.full(5000, 3), sequence_length=8, samples=20))
    with path.open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(OrderError, match="the documents' lengths cannot be read any more"):
        build(lengths, sequence_length=8, samples=20)


@pytest.mark.parametrize("prefix", ["", ".", "..", "/"])
def test_a_prefix_without_a_name(tmp_path, monkeypatch, prefix):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="gives the files no name"):
        order_files.save(prefix, "train_0", 1, 2, 3, {})
    assert not list(tmp_path.iterdir())
