"""Rows as text that a person reads: where documents end, whatever the text holds."""

import itertools
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from pythia_fast.cache import expanded
from pythia_fast.tokens.sources import END_OF_TEXT, is_remote

BOUNDARY = f"────── {END_OF_TEXT} ──────"

# What would move a terminal's cursor, change its colours, or turn the direction of the text;
# and the line ends that only some programs know.
_CONTROLS = {*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
_ESCAPED = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROLS - {9, 10}
}
_ON_ONE_LINE = _ESCAPED | {9: "\\t", 10: "\\n"}


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of some ids, special tokens shown, exactly as the tokenizer gives it.

    An id that it does not know, which it would leave out, becomes <id 60000>.
    """
    unknown = {each for each in set(ids) if not _is_known(tokenizer, each)}
    if not unknown:
        return tokenizer.decode(list(ids), skip_special_tokens=False)
    return "".join(
        "".join(f"<id {each}>" for each in some)
        if strange
        else tokenizer.decode(list(some), skip_special_tokens=False)
        for strange, some in itertools.groupby(ids, unknown.__contains__)
    )


def documents(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text before, between and after the ends of text; without any, one piece."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    pieces: list[list[int]] = [[]]
    for each in ids:
        if each == end:
            pieces.append([])
        else:
            pieces[-1].append(each)
    return [decode(tokenizer, piece) for piece in pieces]


def page(tokenizer: Tokenizer, ids: Sequence[int], width: int | None = None) -> str:
    """Lines to read: each end of text a line of its own, control characters escaped.

    Lines are broken at `width` characters, or left whole.
    """
    lines: list[str] = []
    for number, text in enumerate(documents(tokenizer, ids)):
        if number > 0:
            lines.append(BOUNDARY)
        if text:
            shown = text.translate(_ESCAPED).removesuffix("\n").split("\n")
            lines += shown if width is None else _wrapped(shown, width)
    return "\n".join(lines)


def on_one_line(text: str) -> str:
    """Text without line breaks and control characters: each is escaped."""
    return text.translate(_ON_ONE_LINE)


def tokenizer_beside(source: str | os.PathLike[str]) -> Path | None:
    """A tokenizer.json beside token data, or in the folder that holds its shards."""
    if is_remote(str(source)):
        return None
    path = expanded(source)
    for folder in (path, path.parent):
        found = folder / "tokenizer.json"
        if found.is_file():
            return found
    return None


def _is_known(tokenizer: Tokenizer, token: int) -> bool:
    return 0 <= token < 1 << 32 and tokenizer.id_to_token(token) is not None


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    wrapper = textwrap.TextWrapper(
        width, expand_tabs=False, replace_whitespace=False, drop_whitespace=False
    )
    return [piece for line in lines for piece in wrapper.wrap(line) or [""]]
