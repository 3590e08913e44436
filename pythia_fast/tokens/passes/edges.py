"""What the text of each token begins and ends with, to see whether a word or a number ends there.

V ids of the tokenizer.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

LETTER, DIGIT, SPACE, OTHER = 1, 2, 4, 8
"""The kinds of characters, as bits; 0 stands for no text, as of a special token."""
_PART = "\ufffd"  # what a tokenizer decodes a part of a character to


class Edges(NamedTuple):
    """Of each id the kind of its first and of its last character: [V] uint8."""

    begins: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.uint8]


def edges(tokenizer: Tokenizer) -> Edges:
    """The kinds of all ids; of those between two known ones that are none, 0.

    A special token, such as <|endoftext|>, is no text: words end there. A part of a character, as
    of a letter that is cut into bytes, is OTHER; see `partial`.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True).values()
    special = {
        number for number, added in tokenizer.get_added_tokens_decoder().items() if added.special
    }
    rows = max(vocabulary, default=-1) + 1
    begins, ends = np.zeros(rows, np.uint8), np.zeros(rows, np.uint8)
    ids = sorted(set(vocabulary) - special)
    texts = tokenizer.decode_batch([[each] for each in ids], skip_special_tokens=False)
    for each, text in zip(ids, texts, strict=True):
        if text:
            begins[each], ends[each] = kind(text[0]), kind(text[-1])
    return Edges(begins, ends)


def partial(tokenizer: Tokenizer) -> Edges:
    """Of each id whether it begins, and whether it ends, with a part of a character: [V] uint8."""
    known = edges(tokenizer)
    begins, ends = np.zeros_like(known.begins), np.zeros_like(known.ends)
    ids = np.flatnonzero((known.begins == OTHER) | (known.ends == OTHER)).tolist()
    texts = tokenizer.decode_batch([[each] for each in ids], skip_special_tokens=False)
    for each, text in zip(ids, texts, strict=True):
        begins[each], ends[each] = text[0] == _PART, text[-1] == _PART
    return Edges(begins, ends)


def kind(character: str) -> int:
    """LETTER, DIGIT, SPACE or OTHER."""
    if character.isspace():
        return SPACE
    if character.isdecimal():
        return DIGIT
    return LETTER if character.isalpha() else OTHER
