"""Text for people: boundaries, wrapping, and nothing that a terminal obeys."""

import shutil

import pytest

from pythia_fast.demo.corpus import byte_tokenizer
from pythia_fast.tokens import load_tokenizer
from pythia_fast.tokens.readable import (
    BOUNDARY,
    decode,
    documents,
    on_one_line,
    page,
    tokenizer_beside,
)

END = 256


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def ids(*parts):
    return [token for part in parts for token in ([part] if part == END else list(part.encode()))]


def test_ends_of_text_are_lines_of_their_own(tokenizer):
    row = ids("one\ntwo", END, "three\n", END, END, " four")
    assert documents(tokenizer, row) == ["one\ntwo", "three\n", "", " four"]
    assert page(tokenizer, row).split("\n") == [
        *("one", "two", BOUNDARY, "three", BOUNDARY, BOUNDARY, " four")
    ]
    assert page(tokenizer, ids(END)) == BOUNDARY
    assert page(tokenizer, []) == ""
    assert decode(tokenizer, ids("a", END)) == "a<|endoftext|>"


@pytest.mark.parametrize("unknown", [257, 60_000, 2**32 + 97, 2**63 - 1, -1])
def test_ids_that_the_tokenizer_does_not_know_are_shown(tokenizer, unknown):
    row = [unknown, *ids("a"), unknown, unknown, *ids("é", END), unknown]
    mark = f"<id {unknown}>"
    assert decode(tokenizer, row) == f"{mark}a{mark}{mark}é<|endoftext|>{mark}"
    assert page(tokenizer, row) == f"{mark}a{mark}{mark}é\n{BOUNDARY}\n{mark}"


def test_a_tokenizer_without_an_end_of_text(tokenizer_json):
    plain = load_tokenizer(tokenizer_json)
    row = plain.encode("a<|endoftext|>").ids
    assert page(plain, row) == "a<|endoftext|>"


def test_lines_are_whole_or_wrapped(tokenizer):
    text = "the quick  brown fox jumps\n\nover " + "x" * 25
    assert page(tokenizer, ids(text)) == text
    lines = page(tokenizer, ids(text), 10).split("\n")
    assert max(map(len, lines)) <= 10
    assert "".join(lines) == text.replace("\n", "")
    assert "" in lines  # an empty line stays one


def test_control_characters_are_escaped(tokenizer):
    hostile = "a\x1b[2Jb\rc\x07d\te\x7f\u202ef"
    assert page(tokenizer, ids(hostile)) == "a\\x1b[2Jb\\x0dc\\x07d\te\\x7f\\u202ef"
    assert on_one_line("a\n\tb\x00\u2028") == "a\\n\\tb\\x00\\u2028"


def test_a_tokenizer_beside_the_data(tokenizer_json, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tokenizer_beside("train") is None
    shutil.copy(tokenizer_json, tmp_path / "tokenizer.json")
    for source in (tmp_path / "train", str(tmp_path / "train.bin"), tmp_path, tmp_path / "shards"):
        assert tokenizer_beside(source) == tmp_path / "tokenizer.json"
    assert tokenizer_beside("hub:pile-deduped") is None
