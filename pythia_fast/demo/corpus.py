"""The demo's data: English text that ships with Python, with canaries planted in it.

N rows in the order of training, T + 1 tokens each: T inputs and the last label. Tokens are bytes.
"""

import json
import pydoc_data.topics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pythia_fast.demo.recipe import CANARY_TOKENS, Recipe
from pythia_fast.testing.tokenizer import END_OF_TEXT, byte_tokenizer
from pythia_fast.tokens.steps import position_of

__all__ = [
    "END_OF_TEXT",
    "Canary",
    "Corpus",
    "byte_tokenizer",
    "canary_rows",
    "english_text",
    "make_corpus",
    "read_canaries",
    "token_ids",
    "write_canaries",
]

Tokens = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Canary:
    """A random text, and the rows of the training data that begin with it."""

    text: str
    rows: tuple[int, ...]

    @property
    def planted(self) -> int:
        """How many times it is in the training data."""
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The training data in order, and what was planted in it."""

    rows: Tokens
    canaries: tuple[Canary, ...]


def make_corpus(recipe: Recipe) -> Corpus:
    """Windows of the text in random order, the beginning of some replaced by canaries.

    The text is cut into windows that overlap by one token, as Pythia's data is, and gone through
    again only if it does not suffice.
    """
    random = np.random.default_rng(recipe.seed)
    text = english_text()
    windows = (len(text) - 1) // recipe.tokens
    epochs = -(-recipe.rows // windows)
    order = np.concatenate([random.permutation(windows) for _ in range(epochs)])[: recipe.rows]
    rows = text[order[:, None] * recipe.tokens + np.arange(recipe.tokens + 1)]

    counts = [count for count in recipe.repetitions for _ in range(recipe.canaries_each)]
    places = np.split(random.permutation(recipe.rows)[: sum(counts)], np.cumsum(counts)[:-1])
    canaries = []
    for place in places:
        canary = random.bytes(CANARY_TOKENS // 2).hex()
        rows[place, :CANARY_TOKENS] = token_ids(canary)
        canaries.append(Canary(canary, tuple(sorted(place.tolist()))))
    return Corpus(rows, tuple(canaries))


def english_text() -> Tokens:
    """Python's own help texts, end-of-text after each."""
    texts = pydoc_data.topics.topics.values()
    return np.concatenate([np.append(token_ids(text), np.uint16(END_OF_TEXT)) for text in texts])


def token_ids(text: str) -> Tokens:
    """A text's bytes, one id each."""
    return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)


def canary_rows(canaries: tuple[Canary, ...]) -> Tokens:
    """The canaries' tokens, [canaries, 64], the never planted ones too."""
    return np.stack([token_ids(canary.text) for canary in canaries])


def write_canaries(path: Path, corpus: Corpus, recipe: Recipe) -> None:
    """Where each canary is: rows of the training data, and the training steps that saw them.

    Training step s, counted from 1, sees the rows from batch_rows·(s - 1) up to batch_rows·s.
    """
    record = {
        "prompt_tokens": CANARY_TOKENS // 2,
        "continuation_tokens": CANARY_TOKENS // 2,
        "batch_rows": recipe.batch_rows,
        "canaries": [
            {
                "text": canary.text,
                "planted": canary.planted,
                "rows": canary.rows,
                "steps": [position_of(row, recipe.batch_rows).step for row in canary.rows],
            }
            for canary in corpus.canaries
        ],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def read_canaries(path: Path) -> tuple[Canary, ...]:
    """What `write_canaries` wrote."""
    record = json.loads(path.read_text())
    return tuple(Canary(each["text"], tuple(each["rows"])) for each in record["canaries"])
