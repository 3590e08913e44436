"""Search against a naive loop over rows and columns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError, RowIndexError
from pythia_fast.tokens import TokenDataset, dataset, find
from pythia_fast.tokens.find import search, spellings


def naive(rows, wanted):
    return [
        [place, column]
        for place, row in enumerate(rows)
        for column in range(len(row) - len(wanted) + 1)
        if list(row[column : column + len(wanted)]) == list(wanted)
    ]


tokens = st.integers(0, 2)  # few different ids: hits are many, and overlap


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.lists(tokens, max_size=12), min_size=1, max_size=8),
    wanted=st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=3),
    part=st.integers(1, 6),
    block=st.integers(1, 30),
    code=st.sampled_from([1, 3, 4, 5, 8]),
    sparse=st.sampled_from([1, 2, 10**9]),
)
def test_it_finds_what_a_loop_finds(
    tmp_path_factory, token_files, rows, wanted, part, block, code, sparse
):
    data = TokenDataset(token_files(tmp_path_factory.mktemp("find") / "data", rows, code))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find, "PART_TOKENS", max(part, block))
        patch.setattr(find, "SPARSE", sparse)
        patch.setattr(dataset, "BLOCK_TOKENS", block)
        patch.setattr(dataset, "BLOCK_ROWS", 3)
        for one in wanted:
            found = data.find(one)
            assert found.dtype == np.int64
            assert found.tolist() == naive(rows, one)
        backwards = data.find(wanted[0], range(len(rows) - 1, -1, -1))
        assert backwards.tolist() == [
            [len(rows) - 1 - place, column] for place, column in naive(rows[::-1], wanted[0])
        ]
        blocks = list(search(data, wanted))
    assert sum(each.rows for each in blocks) == len(rows)
    for which, one in enumerate(wanted):
        hits = [hit for each in blocks for hit in each.hits[which].tolist()]
        assert hits == naive(rows, one)


@settings(max_examples=60, deadline=None)
@given(
    row=st.lists(tokens, max_size=40),
    wanted=st.lists(tokens, min_size=1, max_size=5),
    part=st.integers(1, 9),
)
def test_a_long_row_is_searched_in_parts(row, wanted, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find, "PART_TOKENS", part)
        patch.setattr(dataset, "BLOCK_TOKENS", 1)
        found = TokenDataset(np.array([row], dtype=np.uint16).reshape(1, -1)).find(wanted)
    assert found.tolist() == naive([row], wanted)


def test_rows_are_chosen():
    data = TokenDataset(np.tile(np.arange(5, dtype=np.uint16), (10, 1)))
    assert data.find([3, 4], slice(2, 8, 3)).tolist() == [[2, 3], [5, 3]]
    assert data.find(np.array([0]), [-1, 0]).tolist() == [[9, 0], [0, 0]]
    assert data.find([0], range(0)).shape == (0, 2)
    assert data.find([4, 0]).shape == (0, 2)  # from one row into the next
    with pytest.raises(RowIndexError, match="row 10"):
        data.find([0], range(5, 11))


def test_padding_is_not_found(token_files, tmp_path):
    data = TokenDataset(token_files(tmp_path / "data", [[1], [1, 0, 0], [0, 1], []]))
    assert data.find([0]).tolist() == [[1, 1], [1, 2], [2, 0]]
    assert data.find([1, 0]).tolist() == [[1, 0]]
    assert TokenDataset(token_files(tmp_path / "empty", [[], []])).find([0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("dtype", "ids", "beyond"),
    [
        ("u2", [65535, 7], [[65536], [-1], [65535 + 65536]]),
        ("i1", [-3, 5], [[128], [-(2**40)], [253]]),
        ("i8", [2**62, -5], [[2**63]]),
        ("u4", [2**32 - 1, 1], [[2**32], [-1]]),
    ],
)
def test_ids_that_the_data_cannot_hold_are_not_found(dtype, ids, beyond):
    data = TokenDataset(np.array([ids], dtype=dtype))
    assert data.find(ids).tolist() == [[0, 0]]
    for wanted in beyond:
        assert data.find(np.array(wanted)).shape == (0, 2)


@pytest.mark.parametrize("wanted", [[], [[1]], [1.5], ["a"], 3, None])
def test_what_cannot_be_looked_for(wanted):
    with pytest.raises(ArgumentError, match="a sequence to look for"):
        TokenDataset(np.zeros((1, 1), dtype=int)).find(wanted)
    with pytest.raises(ArgumentError, match="no sequence"):
        list(search(TokenDataset(np.zeros((1, 1), dtype=int)), []))


def test_two_spellings_of_a_text():
    from tokenizers import models, pre_tokenizers

    vocabulary = {"cat": 0, "Ġcat": 1, "Ġ": 2, "c": 3, "a": 4, "t": 5, "ca": 6, "Ġc": 7, "Ġca": 8}
    merges = [("c", "a"), ("ca", "t"), ("Ġ", "cat")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert spellings("cat", tokenizer) == {"cat": [0], " cat": [1]}
    assert spellings(" cat", tokenizer) == {" cat": [1]}
    tokenizer.enable_truncation(1)
    assert spellings("cat cat", tokenizer) == {"cat cat": [0, 1], " cat cat": [1, 1]}


def test_of_a_byte_tokenizer_there_is_one_spelling(tokenizer_json):
    assert list(spellings("cat", tokenizer_json)) == ["cat"]
    with pytest.raises(ArgumentError, match="gives no tokens"):
        spellings("", tokenizer_json)
