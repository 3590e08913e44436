"""From a task's texts to token ids, by the rules of the harness's `hf` model."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.likelihood import Pair
from pythia_fast.progress import Bar
from pythia_fast.tokens.sources import END_OF_TEXT

Ids: TypeAlias = "array[int]"
"""Four bytes each; a list takes eight and the numbers."""

TEXTS_AT_ONCE = 2048
"""Texts that are with the tokenizer at a time: its answers take hundreds of bytes a token."""


class Encoder:
    """Texts to ids and back. ArgumentError if the tokenizer has no <|endoftext|>.

    Attributes:
        tokenizer: the tokenizer itself.
        end_of_text: the id that stands before a text without context, and ends what is generated.
        bar: counts the texts that are encoded together, if there is one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        found = tokenizer.token_to_id(END_OF_TEXT)
        if found is None:
            raise ArgumentError(
                f"the tokenizer has no {END_OF_TEXT}, which evaluation needs before texts without "
                "a context"
            )
        self.tokenizer = tokenizer
        self.end_of_text: int = found
        self.bar: Bar | None = None

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of one text, with what the tokenizer adds around it if `special`."""
        return list(self._all([text], special=special)[text])

    def pairs(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:
        """Context and continuation as ids.

        Spaces at the context's end belong to the continuation. The two are encoded together, and
        what the context alone does not take is the continuation's. An empty context is the end of
        a text, unless the continuation begins with one.
        """
        split = [_spaces_behind(context, continuation) for context, continuation in texts]
        alone = self._all(
            (continuation for (context, _), (_, continuation) in zip(texts, split, strict=True)
             if not context),
            special=False,
        )  # fmt: skip
        whole = self._all(
            text
            for (given, _), (context, continuation) in zip(texts, split, strict=True)
            if given
            for text in (context, context + continuation)
        )
        pairs: list[Pair] = []
        for (given, _), (context, continuation) in zip(texts, split, strict=True):
            if given:
                before = whole[context]
                pairs.append((before, whole[context + continuation][len(before) :]))
            elif list(alone[continuation][:1]) == [self.end_of_text]:
                ids = alone[continuation]
                pairs.append((ids[:1], ids[1:]))
            else:
                pairs.append(([self.end_of_text], alone[continuation]))
        return pairs

    def windows(self, texts: Sequence[str], max_positions: int) -> list[list[Pair]]:
        """Each text in windows, of which every token is the continuation of one."""
        known = self._all(texts)
        return [list(_windows(known[text], self.end_of_text, max_positions)) for text in texts]

    def prompts(self, texts: Sequence[str]) -> list[Ids]:
        """What is to be continued."""
        known = self._all(texts)
        return [known[text] for text in texts]

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _all(self, texts: Iterable[str], *, special: bool = True) -> dict[str, Ids]:
        """Every text once. One that begins with an end of text needs nothing added before it."""
        known: dict[str, Ids] = {}
        by_kind: dict[bool, list[str]] = {True: [], False: []}
        for text in dict.fromkeys(texts):
            by_kind[special and not text.startswith(END_OF_TEXT)].append(text)
        if self.bar is not None:
            self.bar.begin("tokenize requests", "texts", sum(map(len, by_kind.values())))
        for kind, some in by_kind.items():
            for first in range(0, len(some), TEXTS_AT_ONCE):
                chunk = some[first : first + TEXTS_AT_ONCE]
                found = self.tokenizer.encode_batch_fast(chunk, add_special_tokens=kind)
                for text, each in zip(chunk, found, strict=True):
                    known[text] = array("i", each.ids)
                if self.bar is not None:
                    self.bar.advance(len(chunk))
        return known


def _spaces_behind(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _windows(ids: Sequence[int], before: int, size: int) -> Iterator[Pair]:
    """The first window is the first `size` ids; each later one has as much context as fits."""
    if ids:
        yield [before], ids[:size]
    for begin in range(size, len(ids), size):
        end = min(begin + size, len(ids))
        yield ids[end - size - 1 : begin], ids[begin:end]
