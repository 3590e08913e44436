"""Tokens as the text that they stand for."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pythia_fast.report.pieces import Pieces
from pythia_fast.testing.tokenizer import byte_tokenizer

READER = byte_tokenizer()


@settings(deadline=None)
@given(st.text(max_size=40))
@example("\ufffd\ufffdé")
def test_the_pieces_of_a_text_make_the_text(text: str) -> None:
    ids = list(text.encode())
    pieces = Pieces(READER).of(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), max_size=30))
def test_any_bytes_give_one_piece_each(ids: list[int]) -> None:
    assert len(Pieces(READER).of(ids)) == len(ids)


def test_a_cut_character_belongs_to_its_last_token() -> None:
    assert Pieces(READER).of(list("aéb".encode())) == ["a", "", "é", "b"]
    assert Pieces(READER).of(list("🙂".encode())) == ["", "", "", "🙂"]
    assert Pieces(READER).of(list("é".encode())[:1]) == ["\ufffd"]
    assert Pieces(READER).of(list("\ufffda".encode())) == ["", "", "\ufffd", "a"]
    assert Pieces(READER).of([*"€".encode()[:2], 97]) == ["", "\ufffd", "a"]


def test_special_and_unknown_tokens_and_no_tokenizer() -> None:
    assert Pieces(READER).of([256, 99_999]) == ["<|endoftext|>", "[99999]"]
    assert Pieces(None).of([3, 70]) == ["[3]", "[70]"]
