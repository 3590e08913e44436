"""Token ids as the pieces of text that they stand for."""

from collections.abc import Sequence

from tokenizers import Tokenizer

_LONGEST = 4
"""So many bytes make a character at most, so byte-level tokens that are parts of one."""
_BROKEN = "\ufffd"


class Pieces:
    """The text of each token, each id decoded once.

    A character that is cut among several tokens is put down to the last of them, the others are
    empty. Without a tokenizer each piece is the id in brackets.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def of(self, ids: Sequence[int]) -> list[str]:
        """One piece for each id."""
        if self._tokenizer is None:
            return [f"[{each}]" for each in ids]
        pieces = [self._one(each) for each in ids]
        begin = 0
        while begin < len(ids):
            end = begin + 1
            if _BROKEN in pieces[begin]:
                end = self._mend(ids, pieces, begin)
            begin = end
        return pieces

    def _mend(self, ids: Sequence[int], pieces: list[str], begin: int) -> int:
        """Join what makes a whole character from `begin` on; where it ends.

        Failing that, what makes one replacement character: that may be the text's own.
        """
        ends = range(begin + 2, min(begin + _LONGEST, len(ids)) + 1)
        texts = {end: self._decode(ids[begin:end]) for end in ends}
        whole = [end for end, text in texts.items() if _BROKEN not in text][:1]
        whole = whole or [end for end, text in texts.items() if text == _BROKEN][-1:]
        for end in whole:
            pieces[begin : end - 1] = [""] * (end - 1 - begin)
            pieces[end - 1] = texts[end]
            return end
        return begin + 1

    def _one(self, token: int) -> str:
        if token not in self._known:
            text = self._decode([token])
            self._known[token] = text or f"[{token}]"  # an id that the tokenizer lacks
        return self._known[token]

    def _decode(self, ids: Sequence[int]) -> str:
        assert self._tokenizer is not None
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text
