"""count_terms: what counts as a term, on texts; and the counts of many steps from one pass."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, RowIndexError
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.passes.terms import RULES, Terms, count_terms

NUMBERS = (0, 3, 7, 24, 20, 99)
PATTERNS = {
    "spaced": r"(?<!\S){}(?!\S)",
    "word": r"(?<![^\W_]){}(?![^\W_])",
}
PIECES = (
    "24",
    " 24",
    "3",
    " 7",
    "20",
    " 99",
    " ",
    "  ",
    "\n",
    ".",
    ",",
    "-",
    "(",
    "th",
    " was",
    "x",
)


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=10).map("".join),
        min_size=1,
        max_size=6,
    ),
    rule=st.sampled_from(sorted(PATTERNS)),
)
def test_a_number_counts_where_a_pattern_on_the_text_finds_it(words, texts, rule):
    data = TokenDataset(texts, tokenizer=words)
    terms = Terms.numbers(NUMBERS, words, rule=rule)
    steps = range(1, len(texts) + 1)
    found = count_terms(data, terms, steps, batch=1)
    for step in steps:
        want = {
            str(number): sum(
                len(re.findall(PATTERNS[rule].format(number), text)) for text in texts[:step]
            )
            for number in NUMBERS
        }
        assert found.at(step) == want
    assert found.tokens == tuple(np.cumsum(data.lengths).tolist())


def test_words_phrases_and_the_end_of_a_document(words):
    end = words.token_to_id("<|endoftext|>")
    he_was = words.encode(" he was").ids
    rows = np.array([[*he_was, end, he_was[1]], [*he_was, *he_was]], np.uint16)
    terms = Terms.of(["he was", "he", "was"], words)
    found = count_terms(TokenDataset(rows), terms, [0, 1, 2], batch=1)
    assert found.counts_SK.tolist() == [[0, 0, 0], [1, 1, 2], [3, 3, 4]]
    assert found.table.to_pylist()[3] == {
        "step": 1,
        "term": "he was",
        "count": 1,
        "source": "uint16 array [2, 4]",
        "rule": "spaced",
        "batch": 1,
    }
    assert found.table.num_rows == 9


def test_anywhere_is_inside_words_too(words):
    data = TokenDataset(["2024 24th"], tokenizer=words)
    counts = {
        rule: count_terms(data, Terms.numbers([24], words, rule=rule), [1], batch=1).at(1)["24"]
        for rule in RULES
    }
    assert counts == {"anywhere": 2, "word": 0, "spaced": 0}


def test_blocks_threads_and_progress(words, monkeypatch):
    monkeypatch.setattr("pythia_fast.tokens.dataset.BLOCK_TOKENS", 64)
    random = np.random.default_rng(0)
    texts = [" ".join(map(str, random.integers(0, 120, 20))) for _ in range(30)]
    data = TokenDataset(texts, tokenizer=words)
    terms = Terms.numbers(range(100), words)
    told = []
    found = count_terms(
        data, terms, [1, 4, 15], batch=2, threads=3, progress=lambda *n: told.append(n)
    )
    for step in (1, 4, 15):
        numbers = " ".join(texts[: 2 * step]).split()
        assert found.at(step) == {str(n): numbers.count(str(n)) for n in range(100)}
    assert told[-1] == (30, 30)
    assert told == sorted(told)


def test_what_is_wrong(words):
    data = TokenDataset(np.zeros((4, 3), np.uint16))
    terms = Terms.numbers([1], words)
    for steps in ([], [2, 1], [1, 1], [-1]):
        with pytest.raises(ArgumentError, match="steps ascend"):
            count_terms(data, terms, steps, batch=1)
    with pytest.raises(RowIndexError, match="step 5 has seen"):
        count_terms(data, terms, [1, 5], batch=1)
    with pytest.raises(ArgumentError, match="not for 2"):
        count_terms(data, terms, [1], batch=1).at(2)
    with pytest.raises(ArgumentError, match="spaced, word, anywhere"):
        Terms.numbers([1], words, rule="near")
    for texts in ([], [""], [" a"], ["a", "b", "a"], [3]):
        with pytest.raises(ArgumentError, match=r"nothing to count|spaces around|same tokens"):
            Terms.of(texts, words)
    with pytest.raises(ArgumentError, match="not negative"):
        Terms.numbers([-1], words)
