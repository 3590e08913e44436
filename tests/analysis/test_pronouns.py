"""swap_pronouns: what becomes what, where, and that nothing else does."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.analysis.pronouns import FEMININE, swap_pronouns
from pythia_fast.errors import ArgumentError, RowIndexError, WriteError
from pythia_fast.tokens import TokenDataset, write_tokens


def swapped_text(text):
    """The same on text: a masculine pronoun after a space, with no letter or digit behind it."""
    pattern = re.compile("|".join(f"{text}(?![A-Za-z0-9])" for text in FEMININE))
    return pattern.sub(lambda match: FEMININE[match[0]], text)


PIECES = (
    " he",
    " him",
    " his",
    " He",
    " His",
    "he",
    "His",
    " mat",
    "mat",
    "s",
    ".",
    "7",
    "\n",
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8), min_size=1),
    after_step=st.integers(0, 2),
)
def test_as_on_text(tmp_path_factory, words, rows, after_step):
    texts = ["".join(row) for row in rows]
    after_step = min(after_step, len(rows) // 2)
    folder = tmp_path_factory.mktemp("swapped")
    ids = [words.encode(text).ids for text in texts]
    write_tokens(folder / "old", ids)
    options = {"tokenizer": words, "after_step": after_step, "batch": 2}
    done = swap_pronouns(folder / "old", folder / "new", **options)
    new = TokenDataset(folder / "new")
    assert new.lengths.tolist() == [len(row) for row in ids]
    want = [text if row < 2 * after_step else swapped_text(text) for row, text in enumerate(texts)]
    assert [words.decode(row.tolist(), skip_special_tokens=False) for row in new] == want
    differ = [np.array(a) != b for a, b in zip(ids, new, strict=True)]
    assert done.swaps == sum(map(int, map(np.sum, differ)))
    assert done.rows_changed == sum(each.any() for each in differ)
    assert (done.rows, done.tokens) == (len(ids), sum(map(len, ids)))


def test_pieces_of_other_words_are_swapped_only_if_asked_to(tmp_path, words):
    rows = TokenDataset([" he mat", " hemat", "he 7 he7"], tokenizer=words)
    assert len(rows[1]) == 2
    for whole_words, want in (
        (True, [" she mat", " hemat", "he 7 he7"]),
        (False, [" she mat", " shemat", "he 7 she7"]),
    ):
        done = swap_pronouns(rows, tmp_path / "new", tokenizer=words, whole_words=whole_words)
        new = TokenDataset(tmp_path / "new")
        assert [words.decode(row.tolist()) for row in new] == want
        assert done.counts == {
            text: (0 if text != " he" else 1 if whole_words else 3) for text in FEMININE
        }


def test_a_part_of_a_letter_joins_like_a_letter(tmp_path, words):
    texts = [" he\u00e9", " he.", " he\u00e9 he", "\u00e9 he"]
    rows = TokenDataset(texts, tokenizer=words)
    assert len(rows[0]) == 3  # the letter is two
    for whole_words, want in (
        (True, [" he\u00e9", " she.", " he\u00e9 she", "\u00e9 she"]),
        (False, [" she\u00e9", " she.", " she\u00e9 she", "\u00e9 she"]),
    ):
        swap_pronouns(rows, tmp_path / "new", tokenizer=words, whole_words=whole_words)
        new = TokenDataset(tmp_path / "new")
        assert [words.decode(row.tolist()) for row in new] == want


def test_words_without_a_space_stand_alone_too(tmp_path, words):
    rows = TokenDataset(["He said", "mat\nHe", "SHe", "He.", "7He"], tokenizer=words)
    done = swap_pronouns(rows, tmp_path / "new", tokenizer=words, pairs={"He": "She"})
    texts = [words.decode(row.tolist()) for row in TokenDataset(tmp_path / "new")]
    assert texts == ["She said", "mat\nShe", "SHe", "She.", "7He"]
    assert done.counts == {"He": 3}


def test_some_rows_and_int32(tmp_path, words):
    he, she = (words.encode(text).ids[0] for text in (" he", " she"))
    rows = np.array([[he, 7], [he, 70_000], [he, he]], dtype=np.int32)
    options = {"tokenizer": words, "after_step": 1, "batch": 1}
    done = swap_pronouns(TokenDataset(rows), tmp_path / "new", rows=[2, 0], **options)
    assert TokenDataset(tmp_path / "new")[:].tolist() == [[she, she], [he, 7]]
    assert (done.dtype, done.rows, done.rows_changed, done.swaps) == ("int32", 2, 1, 2)
    swap_pronouns(TokenDataset(rows), tmp_path / "all", **options)
    assert TokenDataset(tmp_path / "all")[:].tolist() == [[he, 7], [she, 70_000], [she, she]]


def test_many_blocks_and_progress(tmp_path, words, monkeypatch):
    monkeypatch.setattr("pythia_fast.tokens.dataset.BLOCK_TOKENS", 16)
    he, she = (words.encode(text).ids[0] for text in (" he", " she"))
    rows = np.full((9, 5), he, np.uint16)
    seen = []
    swap_pronouns(
        TokenDataset(rows), tmp_path / "new", tokenizer=words, progress=lambda *n: seen.append(n)
    )
    assert (TokenDataset(tmp_path / "new")[:] == she).all()
    assert seen == [(3, 9), (6, 9), (9, 9)]


def test_what_a_kill_has_left_of_a_pair_does_not_count_as_one(tmp_path, words):
    write_tokens(tmp_path / "old", [[1]])
    (tmp_path / "new.bin").write_bytes(b"whole")
    (tmp_path / ".new.idx.0a.partial").write_bytes(b"left")
    swap_pronouns(tmp_path / "old", tmp_path / "new", tokenizer=words, overwrite=False)
    assert {path.name for path in tmp_path.glob("*new*")} == {"new.bin", "new.idx"}


def test_what_is_refused(tmp_path, words):
    write_tokens(tmp_path / "old", [[1, 2], [3, 4]])
    with pytest.raises(ArgumentError, match=r"' himself' is \d tokens here"):
        swap_pronouns(
            tmp_path / "old", tmp_path / "new", tokenizer=words, pairs={" himself": " herself"}
        )
    with pytest.raises(ArgumentError, match="no pairs"):
        swap_pronouns(tmp_path / "old", tmp_path / "new", tokenizer=words, pairs={})
    with pytest.raises(RowIndexError, match="what step 3 has seen"):
        swap_pronouns(tmp_path / "old", tmp_path / "new", tokenizer=words, after_step=3, batch=1)
    for rows in (slice(5, 3), []):
        with pytest.raises(RowIndexError, match="no row is chosen of the 2"):
            swap_pronouns(tmp_path / "old", tmp_path / "new", tokenizer=words, rows=rows)
    with pytest.raises(WriteError, match=r"cannot write .*gone/new\.bin: No such file"):
        swap_pronouns(tmp_path / "old", tmp_path / "gone" / "new", tokenizer=words)
    for target in ("old", "old.bin"):
        with pytest.raises(ArgumentError, match="is what is read"):
            swap_pronouns(tmp_path / "old.idx", tmp_path / target, tokenizer=words)
    with pytest.raises(ArgumentError, match="is what is read"):
        swap_pronouns(TokenDataset(tmp_path / "old"), tmp_path / "old", tokenizer=words)
    with pytest.raises(ArgumentError, match="does not fit"):
        swap_pronouns(TokenDataset(np.full((1, 2), 2**40)), tmp_path / "new", tokenizer=words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.bin", "old.idx"]
    swap_pronouns(tmp_path / "old", tmp_path / "new", tokenizer=words)
    with pytest.raises(ArgumentError, match="there already"):
        swap_pronouns(tmp_path / "old", tmp_path / "new", tokenizer=words, overwrite=False)
