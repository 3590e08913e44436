"""Text in and out of a model: its tokenizer, and what it writes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from pythia_fast.core import File
from pythia_fast.digest import sha256
from pythia_fast.errors import MissingTokensError
from pythia_fast.series.sources import CheckpointSeries
from pythia_fast.tokens.prompt import end_of_text, prompt_ids
from pythia_fast.tokens.sources import load_tokenizer

if TYPE_CHECKING:
    from pythia_fast.model.model import Model

TokenizerSource = str | os.PathLike[str] | Tokenizer
"""A tokenizer, or the path of its tokenizer.json."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and what a model wrote after it, without the end of text if it came to that.

    `continuation_ids` are all that were written, the end of text too.
    """

    prompt: str
    continuation: str
    prompt_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]

    @property
    def text(self) -> str:
        """Both, one after the other."""
        return self.prompt + self.continuation


class Tokenizers:
    """Each step's own tokenizer of a series, or one for all steps that was given.

    Read at the first use; steps whose files are equal share one.
    """

    def __init__(self, series: CheckpointSeries | None = None) -> None:
        self._series = series
        self._given: Tokenizer | None = None
        self._read: dict[str, Tokenizer] = {}

    def give(self, tokenizer: TokenizerSource) -> None:
        """Take this one from now on. MissingTokensError, ReadError or ArgumentError."""
        self._given = load_tokenizer(tokenizer)

    def of(self, step: int | None) -> Tokenizer:
        """The tokenizer of a step. MissingTokensError if none is known, and the series' errors."""
        if self._given is not None:
            return self._given
        if self._series is None or step is None:
            raise MissingTokensError(
                "this model was not loaded from a series, so no tokenizer is known: set "
                "model.tokenizer to one, or to the path of a tokenizer.json"
            )
        return self._load(self._series.tokenizer_file(step))

    def _load(self, path: Path) -> Tokenizer:
        digest = sha256(File(path))
        if digest not in self._read:
            self._read = {digest: load_tokenizer(path)}
        return self._read[digest]


def complete(
    model: "Model",
    prompt: str,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> Completion:
    """Let the model go on from a prompt until an end of text, or for `max_new_tokens`.

    ArgumentError for a prompt that is empty or no text, TokenRangeError for one with a token that
    the model has no embedding for, the errors of `Model.tokenizer` and of `generate`.
    """
    tokenizer = model.tokenizer
    ids = prompt_ids(tokenizer, prompt)
    written = model.generate(
        [ids],
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        stop_token=end_of_text(tokenizer, model.architecture.vocab_rows),
    )[0].tolist()
    new = written[len(ids) :]
    continuation = tokenizer.decode(new, skip_special_tokens=True)
    return Completion(prompt, continuation, tuple(ids), tuple(new))
