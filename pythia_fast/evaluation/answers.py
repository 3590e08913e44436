"""A resident model's answers to the harness's three kinds of requests.

What depends on the texts alone is done once and kept for the checkpoints to come: encoding, finding
the same contexts, sorting and packing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from tokenizers import Tokenizer

from pythia_fast.evaluation.encoding import Encoder
from pythia_fast.evaluation.generating import Wish, generate_texts, prepared
from pythia_fast.evaluation.likelihood import Advance, Continuations
from pythia_fast.model import Model

T = TypeVar("T")


class Answers:
    """Answers by a model, whose weights may change between calls.

    Args:
        tokenizer: the model's tokenizer.
        max_positions: of the architecture.
        batch_tokens: tokens that go through the model at once; "auto" is what it does best.
        advance: is told how many tokens of requests are done.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_positions: int,
        *,
        batch_tokens: int | Literal["auto"] = "auto",
        advance: Advance | None = None,
    ) -> None:
        self.encoder = Encoder(tokenizer)
        self.max_positions = max_positions
        self._batch_tokens, self.advance = batch_tokens, advance
        self._ready: dict[str, tuple[list[Any], Any]] = {}

    def likelihoods(
        self, model: Model, requests: Sequence[tuple[str, str]]
    ) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, greedy) of each (context, continuation)."""
        prepared = self._once("loglikelihood", requests, self._pairs)
        values, greedy = self._ask(model, prepared)
        return list(zip(values.tolist(), greedy.tolist(), strict=True))

    def rolling(self, model: Model, texts: Sequence[str]) -> list[float]:
        """The log-likelihood of each whole text, in nats, by windows as long as the model takes."""
        prepared, text_of_window = self._once("rolling", texts, self._windows)
        values, _ = self._ask(model, prepared)
        sums = np.zeros(len(texts))
        np.add.at(sums, text_of_window, values)
        return [float(value) for value in sums]

    def texts(self, model: Model, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """What each prompt goes on with. ArgumentError for what `wish_of` refuses."""
        prepared = self._once("generate", requests, self._prompts)
        return generate_texts(model, self.encoder, prepared, advance=self.advance)

    def _ask(self, model: Model, prepared: Continuations) -> Any:
        return prepared.of(model, batch_tokens=self._batch_tokens, advance=self.advance)

    def _once(self, kind: str, requests: Sequence[Any], make: Callable[[Sequence[Any]], T]) -> T:
        """What `make` made of these requests before, or now."""
        asked = list(requests)
        known = self._ready.get(kind)
        if known is None or known[0] != asked:
            known = self._ready[kind] = asked, make(requests)
        prepared: T = known[1]
        return prepared

    def _pairs(self, requests: Sequence[tuple[str, str]]) -> Continuations:
        return Continuations(self.encoder.pairs(requests), self.max_positions)

    def _windows(self, texts: Sequence[str]) -> tuple[Continuations, list[int]]:
        windows = self.encoder.windows(texts, self.max_positions)
        text_of_window = [number for number, some in enumerate(windows) for _ in some]
        pairs = [pair for some in windows for pair in some]
        return Continuations(pairs, self.max_positions), text_of_window

    def _prompts(
        self, requests: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> list[tuple[Sequence[int], Wish]]:
        return prepared(self.encoder, requests, self.max_positions)

    def tokens(self, kind: str, requests: Sequence[Any]) -> int:
        """How many tokens go through a model for requests of a kind of the harness."""
        if kind == "loglikelihood":
            return self._once(kind, requests, self._pairs).tokens
        if kind == "loglikelihood_rolling":
            return self._once("rolling", requests, self._windows)[0].tokens
        prompts = self._once("generate", requests, self._prompts)
        return sum(min(len(ids), self.max_positions - wish.max_new_tokens) for ids, wish in prompts)
