"""The harness's view of a resident model: a `TemplateLM`."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, TypeVar

from tokenizers import Tokenizer

from pythia_fast.evaluation.answers import Answers
from pythia_fast.evaluation.likelihood import Continuations
from pythia_fast.extras import require
from pythia_fast.model import Model

A = TypeVar("A")


def harness_model(
    model: Model,
    answers: Answers | Tokenizer,
    *,
    batch_tokens: int | Literal["auto"] = "auto",
) -> Any:
    """A model for `lm_eval.simple_evaluate(model=…)` (extra: `eval`).

    `answers` is the model's tokenizer, or what is already prepared for other checkpoints. The
    attribute `model` may be replaced, or have other weights: requests that come again are not
    encoded again. ArgumentError if the tokenizer has no <|endoftext|>.
    """
    if isinstance(answers, Tokenizer):
        positions = model.architecture.max_positions
        answers = Answers(answers, positions, batch_tokens=batch_tokens)
    return _adapter()(model, answers)


@cache
def _adapter() -> Any:
    """The class, made where the harness is installed."""
    require("lm_eval")
    from lm_eval.api.model import TemplateLM

    class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness has no types
        """Answers the harness's requests; log-likelihoods in nats."""

        def __init__(self, model: Model, answers: Answers) -> None:
            super().__init__()
            self.model, self.answers = model, answers
            self._device = model.device

        @property
        def eot_token_id(self) -> int:
            """The end of a text."""
            return self.answers.encoder.end_of_text

        @property
        def max_length(self) -> int:
            """Positions that the model takes."""
            return self.answers.max_positions

        @property
        def tokenizer_name(self) -> str:
            """For the harness's own cache of requests."""
            return self.model.spec.name.replace("/", "__")

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **_: object
        ) -> list[int]:
            """The ids of a text."""
            return self.answers.encoder.ids(string, special=add_special_tokens is not False)

        def loglikelihood(
            self, requests: Sequence[Any], disable_tqdm: bool = True
        ) -> list[tuple[float, bool]]:
            """Of (context, continuation)."""
            asked = [request.args for request in requests]
            return self._told("loglikelihood", asked, self.answers.likelihoods(self.model, asked))

        def loglikelihood_rolling(
            self, requests: Sequence[Any], disable_tqdm: bool = True
        ) -> list[float]:
            """Of whole texts."""
            asked = [request.args for request in requests]
            found = self.answers.rolling(self.model, [text for (text,) in asked])
            return self._told("loglikelihood_rolling", asked, found)

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
            """Greedy continuations of (prompt, options)."""
            asked = [request.args for request in requests]
            return self._told("generate_until", asked, self.answers.texts(self.model, asked))

        def _loglikelihood_tokens(
            self, requests: Sequence[Any], **_: object
        ) -> list[tuple[float, bool]]:
            pairs = [(context, continuation) for _, context, continuation in requests]
            values, greedy = Continuations(pairs, self.max_length).of(self.model)
            return list(zip(values.tolist(), greedy.tolist(), strict=True))

        def _told(self, kind: str, asked: Sequence[Any], found: list[A]) -> list[A]:
            """The answers, told to the harness's own cache too, where there is one."""
            for arguments, answer in zip(asked, found, strict=True):
                self.cache_hook.add_partial(kind, arguments, answer)
            return found

    return HarnessModel
