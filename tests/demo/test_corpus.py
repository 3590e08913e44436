import json
import pydoc_data.topics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pythia_fast.demo import Recipe
from pythia_fast.demo.corpus import (
    END_OF_TEXT,
    byte_tokenizer,
    canary_rows,
    english_text,
    make_corpus,
    read_canaries,
    write_canaries,
)

TOKENIZER = byte_tokenizer()


def as_bytes(ids: np.ndarray) -> bytes:
    return bytes(ids[ids != END_OF_TEXT].astype(np.uint8))


@given(st.text())
def test_ids_are_the_bytes_of_the_text_and_come_back(text):
    ids = TOKENIZER.encode(text).ids
    if "<|endoftext|>" not in text:
        assert ids == list(text.encode())
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_every_character_of_two_bytes_survives():
    text = "".join(map(chr, range(0x800)))
    assert TOKENIZER.encode(text).ids == list(text.encode())
    assert TOKENIZER.decode(list(text.encode())) == text


def test_end_of_text_is_one_token_behind_the_bytes():
    assert TOKENIZER.get_vocab_size() == 257
    assert TOKENIZER.token_to_id("<|endoftext|>") == END_OF_TEXT
    assert TOKENIZER.encode("a<|endoftext|>b").ids == [97, END_OF_TEXT, 98]


def test_the_tokenizer_is_the_same_from_its_file(tmp_path):
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(str(path))
    again = Tokenizer.from_file(str(path))
    text = "def f(x):\n\treturn  x  # ½ é 漢字 🐍\r\n"
    assert again.encode(text).ids == list(text.encode())
    assert again.decode(list(text.encode())) == text


def test_the_text_is_pythons_own_topics():
    texts = list(pydoc_data.topics.topics.values())
    ids = english_text()
    assert (ids == END_OF_TEXT).sum() == len(texts)
    assert as_bytes(ids).decode() == "".join(texts)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(seed=5, batch_rows=2, canaries_each=3)])
def test_canaries_are_where_they_are_said_to_be_and_nowhere_else(recipe):
    corpus = make_corpus(recipe)
    assert corpus.rows.shape == (recipe.rows, recipe.tokens + 1)
    times = [canary.planted for canary in corpus.canaries]
    assert times == [n for n in recipe.repetitions for _ in range(recipe.canaries_each)]
    beginnings = [as_bytes(row[:64]).decode(errors="replace") for row in corpus.rows]
    for canary in corpus.canaries:
        assert len(canary.text) == 64
        assert set(canary.text) <= set("0123456789abcdef")
        found = [row for row, text in enumerate(beginnings) if text == canary.text]
        assert found == list(canary.rows)
        assert b"".join(map(as_bytes, corpus.rows)).count(canary.text.encode()) == len(found)
    assert len({canary.text for canary in corpus.canaries}) == len(corpus.canaries)


def test_rows_without_a_canary_are_windows_of_the_text_each_seen_once():
    recipe = Recipe()
    corpus = make_corpus(recipe)
    planted = {row for canary in corpus.canaries for row in canary.rows}
    text = english_text()
    windows = Counter(  # some of which are equal: topics quote each other
        text[start : start + recipe.tokens + 1].tobytes()
        for start in range(0, len(text) - recipe.tokens, recipe.tokens)
    )
    plain = Counter(row.tobytes() for i, row in enumerate(corpus.rows) if i not in planted)
    assert plain.total() == recipe.rows - len(planted)
    assert plain <= windows


def test_a_short_text_is_gone_through_again():
    recipe = Recipe(steps=3000, tokens=128)
    corpus = make_corpus(recipe)
    assert len(corpus.rows) == 12_000
    windows = (len(english_text()) - 1) // 128
    assert len(np.unique(corpus.rows[:, 64:], axis=0)) <= windows


def test_the_seed_decides_everything():
    first, second = make_corpus(Recipe(seed=1)), make_corpus(Recipe(seed=1))
    assert first.canaries == second.canaries
    assert (first.rows == second.rows).all()
    assert make_corpus(Recipe(seed=2)).canaries != first.canaries


def test_canaries_are_written_with_the_steps_that_saw_them(tmp_path):
    recipe = Recipe()
    corpus = make_corpus(recipe)
    path = tmp_path / "canaries.json"
    write_canaries(path, corpus, recipe)
    record = json.loads(path.read_text())
    assert (record["prompt_tokens"], record["continuation_tokens"]) == (32, 32)
    for each in record["canaries"]:
        for row, step in zip(each["rows"], each["steps"], strict=True):
            assert recipe.batch_rows * (step - 1) <= row < recipe.batch_rows * step
    assert read_canaries(path) == corpus.canaries
    assert canary_rows(corpus.canaries).shape == (20, 64)
