"""TokenDataset: what it can be made of, fingerprints, and the check of ids."""

import hashlib
import pickle
import platform
import shutil
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError, MissingTokensError, RowIndexError, TokenRangeError
from pythia_fast.tokens import TokenDataset, dataset, load_tokenizer, write_tokens

INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4", ">u2"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_arrays_of_every_integer_dtype(dtype):
    ids = np.arange(24).reshape(4, 6).astype(dtype)
    for array in (ids, np.asfortranarray(ids), ids[::-1, ::2], ids[:0], ids[:, :0]):
        data = TokenDataset(array)
        width = array.shape[1] if len(array) else 0  # of no rows, the longest has no tokens
        np.testing.assert_array_equal(data[:], array.astype(np.int64)[:, :width])
        assert data.lengths.tolist() == [array.shape[1]] * len(array)
    data = TokenDataset(ids)
    assert str(data.source).endswith("array [4, 6]")


def test_tensors_and_lists():
    ids = torch.arange(24).reshape(4, 6)
    for source in (ids, ids.int(), ids.to(torch.uint8), ids.t().contiguous().t(), ids.tolist()):
        np.testing.assert_array_equal(TokenDataset(source)[:], ids.numpy())


def test_a_contiguous_array_is_not_copied():
    ids = np.zeros((2, 3), dtype=np.uint16)
    data = TokenDataset(ids)
    ids[1, 2] = 7
    assert data[1].tolist() == [0, 0, 7]
    read_only = np.zeros((2, 3), dtype=np.int64)
    read_only.flags.writeable = False
    assert TokenDataset(read_only)[:].sum() == 0


def test_an_unaligned_array():
    ids = np.frombuffer(b"\0" + np.arange(12, dtype=np.int64).tobytes(), dtype=np.uint8)[1:]
    unaligned = ids.view(np.int64).reshape(3, 4)
    np.testing.assert_array_equal(TokenDataset(unaligned)[:], unaligned)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((2, 3)),
        np.zeros(3, dtype=np.int64),
        np.zeros((2, 3, 1), dtype=np.int64),
        np.zeros((2, 3), dtype=bool),
        torch.zeros(2, 3, dtype=torch.bfloat16),
        [[1, 2], [3]],
        [],
        [b"bytes"],
        ["text", 3],
        3,
        None,
        {"ids": [1]},
    ],
)
def test_what_is_no_token_data(source):
    with pytest.raises(ArgumentError):
        TokenDataset(source)


def test_lengths_are_read_only():
    data = TokenDataset(np.zeros((2, 3), dtype=np.int64))
    assert data.lengths.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        data.lengths[0] = 5


def test_lengths_of_some_rows(token_files, tmp_path):
    data = TokenDataset(token_files(tmp_path / "data", [[1] * n for n in (3, 0, 5, 2)]))
    assert data.lengths_of(slice(1, 3)).tolist() == [0, 5]
    assert data.lengths_of([-1, 0, 0]).tolist() == [2, 3, 3]
    assert data.lengths_of([]).tolist() == []
    assert data.lengths_of([0]).dtype == np.int64
    with pytest.raises(RowIndexError, match="row 4 of data with 4 rows"):
        data.lengths_of([4])


class TestTexts:
    TEXTS = ("ab", "Grüße", " a longer text\n", "x")

    def test_rows_are_the_tokens_of_each_text(self, tokenizer_json):
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
        for given_tokenizer in (tokenizer_json, str(tokenizer_json), tokenizer):
            data = TokenDataset(self.TEXTS, tokenizer=given_tokenizer)
            assert data.lengths.tolist() == [len(text.encode()) for text in self.TEXTS]
            for text, row in zip(self.TEXTS, data, strict=True):
                assert row.tolist() == tokenizer.encode(text).ids
        assert data.source == "4 texts"

    def test_padding_and_truncation_of_the_tokenizer_are_left_out(self, tokenizer_json):
        tokenizer = load_tokenizer(tokenizer_json)
        tokenizer.enable_padding()
        tokenizer.enable_truncation(3)
        data = TokenDataset(list(self.TEXTS), tokenizer=tokenizer)
        assert data.lengths.tolist() == [len(text.encode()) for text in self.TEXTS]
        assert tokenizer.padding is not None  # the caller's own is as it was

    def test_more_texts_than_a_batch(self, tokenizer_json):
        texts = [str(i) for i in range(2500)]
        data = TokenDataset(texts, tokenizer=tokenizer_json)
        assert data.lengths.tolist() == [len(text) for text in texts]

    def test_bad_texts_are_named(self, tokenizer_json):
        with pytest.raises(ArgumentError, match="text 1 gives no tokens"):
            TokenDataset(["a", "", "b"], tokenizer=tokenizer_json)
        with pytest.raises(ArgumentError, match="text 1 is not valid Unicode"):
            TokenDataset(["a", "\ud800"], tokenizer=tokenizer_json)

    def test_a_tokenizer_is_needed_and_must_be_one(self, tmp_path, tokenizer_json):
        with pytest.raises(
            ArgumentError, match=r"give TokenDataset\(texts, tokenizer=…\) in their"
        ):
            TokenDataset(["a"])
        with pytest.raises(ArgumentError, match=r"or a tokenizers\.Tokenizer, not 5"):
            TokenDataset(["a"], tokenizer=5)
        with pytest.raises(MissingTokensError, match=r"nothing\.json"):
            TokenDataset(["a"], tokenizer=tmp_path / "nothing.json")
        (tmp_path / "bad.json").write_text("{}")
        with pytest.raises(ArgumentError, match="holds no tokenizer"):
            TokenDataset(["a"], tokenizer=tmp_path / "bad.json")
        with pytest.raises(ArgumentError, match="holds ids already"):
            TokenDataset(np.zeros((2, 2), dtype=int), tokenizer=tokenizer_json)

    def test_the_folder_of_a_tokenizer_will_do(self, tmp_path, tokenizer_json):
        (tmp_path / "folder").mkdir()
        with pytest.raises(
            MissingTokensError, match=r"folder': the folder holds no tokenizer\.json"
        ):
            load_tokenizer(tmp_path / "folder")
        shutil.copy(tokenizer_json, tmp_path / "folder/tokenizer.json")
        assert (
            load_tokenizer(tmp_path / "folder").to_str() == load_tokenizer(tokenizer_json).to_str()
        )
        data = TokenDataset(["ab"], tokenizer=str(tmp_path / "folder"))
        assert data.lengths.tolist() == [2]
        with pytest.raises(MissingTokensError, match="there is no such file"):
            load_tokenizer(tmp_path / "nowhere")

    def test_a_text_that_is_no_list_is_taken_for_a_path(self, tokenizer_json):
        with pytest.raises(MissingTokensError, match=r"neither Hello, I am\.idx nor"):
            TokenDataset("Hello, I am")
        with pytest.raises(ArgumentError, match="holds ids already"):
            TokenDataset("Hello, I am", tokenizer=tokenizer_json)


class TestNothingThere:
    def test_what_is_called_nearly_so_is_named(self, tmp_path):
        write_tokens(tmp_path / "train", [[1, 2]])
        np.save(tmp_path / "held-out.npy", np.ones((1, 2), int))
        with pytest.raises(MissingTokensError, match=r"trian\.bin is there; near is train\. Give"):
            TokenDataset(tmp_path / "trian")
        with pytest.raises(MissingTokensError, match=r"near is held-out\.npy"):
            TokenDataset(tmp_path / "heldout")
        with pytest.raises(MissingTokensError, match=r"no such file; near is held-out\.npy"):
            TokenDataset(tmp_path / "heldout.npy")

    def test_each_file_is_named_once(self, tmp_path):
        with pytest.raises(MissingTokensError) as caught:
            TokenDataset(tmp_path / "nothing")
        for ending in ("idx", "bin"):
            assert str(caught.value).count(str(tmp_path / f"nothing.{ending}")) == 1


class TestFingerprint:
    ROWS = ((1, 2, 3), (4,), (60000, 7, 0, 0))

    def reference(self, rows):
        ids = [token for row in rows for token in row]
        numbers = [len(rows), *map(len, rows), *ids]
        return hashlib.sha256(
            b"pythia_fast tokens 1\n" + struct.pack(f"<{len(numbers)}q", *numbers)
        ).hexdigest()

    def test_it_is_what_it_says(self, tmp_path, token_files):
        data = TokenDataset(token_files(tmp_path / "data", self.ROWS))
        assert data.fingerprint() == self.reference(self.ROWS)
        assert data.fingerprint([2, 0, -1]) == self.reference([self.ROWS[i] for i in (2, 0, 2)])
        assert data.fingerprint(slice(0, 0)) == self.reference([])

    def test_it_does_not_depend_on_where_the_tokens_come_from(
        self, tmp_path, token_files, tokenizer_json
    ):
        text = ["abcd", "efgh"]
        texts = TokenDataset(text, tokenizer=tokenizer_json)
        sources = [texts[:], texts[:].astype(np.uint8), torch.from_numpy(texts[:]).int()]
        sources += [token_files(tmp_path / f"d{code}", texts[:], code) for code in (1, 4, 5, 8)]
        assert {TokenDataset(source).fingerprint() for source in sources} == {texts.fingerprint()}

    def test_it_tells_apart_where_rows_end(self):
        shapes = [np.zeros(shape, dtype=np.int64) for shape in ((2, 3), (3, 2), (1, 6), (6, 1))]
        assert len({TokenDataset(ids).fingerprint() for ids in shapes}) == 4

    @settings(max_examples=60, deadline=None)
    @given(lengths=st.lists(st.integers(0, 25), min_size=1, max_size=12), block=st.integers(1, 40))
    def test_blocks_do_not_show(self, tmp_path_factory, token_files, lengths, block):
        rows = [list(range(n)) for n in lengths]
        prefix = token_files(tmp_path_factory.mktemp("blocks") / "data", rows)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dataset, "BLOCK_TOKENS", block)
            patch.setattr(dataset, "BLOCK_ROWS", 3)
            assert TokenDataset(prefix).fingerprint() == self.reference(rows)


class TestCheckIds:
    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_all_within(self, dtype):
        ids = np.arange(100).reshape(10, 10).astype(dtype)
        TokenDataset(ids).check_ids(100)
        with pytest.raises(TokenRangeError) as caught:
            TokenDataset(ids).check_ids(99)
        error = caught.value
        assert (error.sequence, error.offset, error.token, error.vocab_rows) == (9, 9, 99, 99)

    @pytest.mark.parametrize(
        ("dtype", "bad"),
        [
            ("i1", -1),
            ("i2", -300),
            ("i8", -(2**63)),
            ("u8", 2**64 - 1),
            ("i8", 2**40),
            ("u4", 2**31),
        ],
    )
    def test_the_first_offender_is_named(self, dtype, bad):
        ids = np.ones((5000, 64), dtype=dtype)
        ids[4321, 17] = ids[4321, 40] = ids[4400, 3] = bad
        for rows, sequence in ((None, 4321), (slice(None, None, -1), 4400), ([7, 4321, -1], 4321)):
            with pytest.raises(TokenRangeError) as caught:
                TokenDataset(ids).check_ids(50304, rows)
            error = caught.value
            assert error.sequence == sequence
            assert error.offset == (17 if sequence == 4321 else 3)
            assert error.token == bad
        TokenDataset(ids).check_ids(50304, slice(0, 4321))

    def test_an_embedding_without_rows(self):
        with pytest.raises(TokenRangeError):
            TokenDataset(np.zeros((1, 1), dtype=np.uint8)).check_ids(0)
        with pytest.raises(ArgumentError, match="vocab_rows"):
            TokenDataset(np.zeros((1, 1), dtype=np.uint8)).check_ids(-1)

    def test_ragged_rows_and_blocks(self, tmp_path):
        write_tokens(tmp_path / "data", [[1], [], [2, 3, 9], [4]])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dataset, "BLOCK_ROWS", 2)
            with pytest.raises(TokenRangeError) as caught:
                TokenDataset(tmp_path / "data").check_ids(9)
        assert (caught.value.sequence, caught.value.offset) == (2, 2)


def test_a_relative_path_means_the_folder_of_then(tmp_path, token_files, monkeypatch):
    rows = {name: np.full((3, 4), number) for number, name in enumerate(("here", "there"))}
    for name in rows:
        (tmp_path / name).mkdir()
        token_files(tmp_path / name / "data", rows[name])
    monkeypatch.chdir(tmp_path / "here")
    data = TokenDataset("data")
    assert data.source == str(tmp_path / "here" / "data.bin")
    monkeypatch.chdir(tmp_path / "there")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[:], rows["here"])
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[:], rows["here"])


@pytest.mark.parametrize("gone", ["data.idx", "data.bin"])
def test_a_pickle_whose_files_are_not_on_this_machine(tmp_path, token_files, gone):
    token_files(tmp_path / "data", np.ones((3, 4)))
    pickled = pickle.dumps(TokenDataset(tmp_path / "data"))
    away = (tmp_path / gone).rename(tmp_path / "away")
    with pytest.raises(MissingTokensError) as caught:
        pickle.loads(pickled)
    assert f"there is no {tmp_path / gone} on {platform.node()}" in str(caught.value)
    assert "every machine" in str(caught.value)
    away.rename(tmp_path / gone)
    assert len(pickle.loads(pickled)) == 3


HUGE = 10**30


@pytest.mark.parametrize(
    "use",
    [
        *(lambda data: data[HUGE], lambda data: data[-HUGE], lambda data: data[[0, HUGE]]),
        *(lambda data: data[range(HUGE)], lambda data: data[range(-1, -HUGE, -1)]),
        *(lambda data: data.seen(HUGE), lambda data: data.step(1, batch=HUGE)),
        *(lambda data: data.batches(range(1, HUGE)), lambda data: data.lengths_of([-HUGE])),
    ],
)
def test_rows_far_beyond_the_data(use):
    with pytest.raises(RowIndexError):
        use(TokenDataset(np.ones((3, 4), dtype=np.uint16)))


@pytest.mark.parametrize(
    "use",
    [
        *(lambda data: data[[1, [2]]], lambda data: data[::0], lambda data: data["a":]),
        *(lambda data: data["a"], lambda data: data[1.5], lambda data: data[None]),
        lambda data: data.gather([0], columns=3),
        lambda data: data.gather([0], columns=slice("a", None)),
        lambda data: data.gather([0], dtype="bogus"),
        *(lambda data: data.gather([0], threads=1.5), lambda data: data.verify(threads="2")),
        *(lambda data: data.check_ids(3.5), lambda data: data.in_order(None)),
        lambda data: data.batches(None),
    ],
)
def test_arguments_of_other_types(use):
    with pytest.raises(ArgumentError):
        use(TokenDataset(np.ones((3, 4), dtype=np.uint16)))


def test_huge_numbers_that_mean_something():
    data = TokenDataset(np.ones((3, 4), dtype=np.uint16))
    assert data.gather([0, 1], columns=slice(HUGE, HUGE)).shape == (2, 0)
    assert data.gather([0], columns=slice(1, HUGE), threads=HUGE).tolist() == [[1, 1, 1]]
    assert data[::HUGE].tolist() == data[range(0, 3, HUGE)].tolist() == [[1] * 4]
    assert data[range(HUGE, HUGE)].shape == data[-HUGE:-HUGE].shape == (0, 0)
    data.check_ids(HUGE)


def test_an_address_opens_the_same_again_from_any_folder(tmp_path, monkeypatch):
    rows = np.arange(24).reshape(4, 6)
    write_tokens(tmp_path / "train", rows)
    monkeypatch.chdir(tmp_path)
    address = TokenDataset("train").address
    assert address == str(tmp_path / "train.bin")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(TokenDataset(address)[:], rows)
    assert TokenDataset(rows).address is None
