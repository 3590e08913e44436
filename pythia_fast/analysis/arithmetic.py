"""Arithmetic questions, as the suite's case study on term frequency asks them, and their metric.

"Q:What is 3 times 4? A:", perhaps after answered ones. The model answers by greedy decoding, and
what counts is the first number in its first line (Razeghi et al. 2022, arXiv:2202.07206;
arXiv:2304.01373, section 4.3). The shots are drawn as the published evaluations drew them: from all
questions with another first number, by Python's own random numbers, begun anew for each first
number.

Legend: B sequences in a batch, T tokens in the longest, R rows of equal length.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import Batch
from pythia_fast.metrics.protocol import Column
from pythia_fast.model import Model, greedy_steps, sequences_at_once
from pythia_fast.quantities import integer
from pythia_fast.tokens import TokenDataset, load_tokenizer

Operation = Literal["times", "plus"]
OPERATIONS: tuple[Operation, ...] = ("times", "plus")
SHOTS = (0, 2, 4, 8, 16)
FIRSTS = range(100)
SECONDS = range(1, 51)
METRIC = "arithmetic"
_SEED = 42
_NEW_TOKENS = 16
_NUMBER = re.compile(r"\d{1,5}")  # of any script, as the published evaluations looked for them


@dataclass(frozen=True, slots=True)
class Question:
    """One question with the shots before it."""

    operation: Operation
    shots: int
    first: int
    second: int
    text: str

    @property
    def answer(self) -> int:
        """The right one."""
        return _answer(self.operation, self.first, self.second)


class Questions(Sequence[Question]):
    """Every operation, number of shots, first and second number: in this order.

    By default all 50,000 of the case study. `Questions(shots=[16])` are a fifth of them.
    ArgumentError for an unknown operation, numbers that are negative or repeated, or more shots
    than there are questions to draw from.
    """

    def __init__(
        self,
        *,
        operations: Sequence[Operation] = OPERATIONS,
        shots: Sequence[int] = SHOTS,
        firsts: Sequence[int] = FIRSTS,
        seconds: Sequence[int] = SECONDS,
    ) -> None:
        for operation in operations:
            if operation not in OPERATIONS:
                raise ArgumentError(f"an operation is {' or '.join(OPERATIONS)}, not {operation!r}")
        self.operations = tuple(operations)
        self.shots, self.firsts, self.seconds = (
            _numbers(values, name)
            for values, name in ((shots, "shots"), (firsts, "firsts"), (seconds, "seconds"))
        )
        others = (len(self.firsts) - 1) * len(self.seconds)
        if max(self.shots) > 0 and max(self.shots) >= others:
            raise ArgumentError(
                f"{max(self.shots)} shots are drawn from the {others} questions with another first "
                "number, which must be more"
            )
        self._questions = tuple(self._all())

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> "Questions":
        """Those that a run was made with, by its `specification`."""
        try:
            parts = {name: settings[name] for name in ("operations", "shots", "firsts", "seconds")}
        except KeyError as error:
            raise ArgumentError(f"the run does not say the {error} of its questions") from error
        return cls(**parts)

    @property
    def settings(self) -> dict[str, Any]:
        """What they are made of, as plain values."""
        return {
            "operations": list(self.operations),
            "shots": list(self.shots),
            "firsts": list(self.firsts),
            "seconds": list(self.seconds),
        }

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: Any) -> Any:
        return self._questions[index]

    def __repr__(self) -> str:
        shots = ", ".join(map(str, self.shots))
        return f"<{len(self)} questions: {' and '.join(self.operations)}, {shots} shots>"

    def dataset(self, tokenizer: object) -> TokenDataset:
        """Row i is question i, for `sweep(tokens=...)`. Errors as of `TokenDataset`."""
        texts = [question.text for question in self._questions]
        return TokenDataset(texts, tokenizer=load_tokenizer(tokenizer))

    def metric(self, tokenizer: object) -> "Arithmetic":
        """What asks them, for `sweep(metrics=...)`."""
        return Arithmetic(self, load_tokenizer(tokenizer))

    def _all(self) -> Iterator[Question]:
        for operation in self.operations:
            for shots in self.shots:
                for first in self.firsts:
                    before = self._shots_before(operation, shots, first)
                    for second in self.seconds:
                        text = before[second] + _ask(operation, first, second)
                        yield Question(operation, shots, first, second, text)

    def _shots_before(self, operation: Operation, shots: int, first: int) -> dict[int, str]:
        """Of each second number the text of the shots."""
        random = Random(_SEED)
        order = list(self.seconds)
        random.shuffle(order)  # the order in which the evaluations went through them
        if shots == 0:
            return dict.fromkeys(order, "")
        pool = [(a, b) for a in self.firsts if a != first for b in self.seconds]
        return {
            second: "".join(
                f"{_ask(operation, a, b)}{_answer(operation, a, b)}\n\n"
                for a, b in random.sample(pool, shots + 1)[:shots]
            )
            for second in order
        }


@dataclass(frozen=True, slots=True, eq=False)
class Arithmetic:
    """Whether the model answers each question of `questions` right, whose dataset it is asked of.

    Columns: `correct`, `answer` (the number that it gave; null for none), `near_tie` (some token of
    the answer led by no more than the arithmetic's error, so that another dtype may answer
    otherwise) and `nonfinite` (tokens chosen among NaN or infinite logits). Of a step: `accuracy`,
    `answered` (the share that got a number), `near_ties`, `nonfinite`.
    """

    questions: Questions
    tokenizer: Tokenizer

    @property
    def name(self) -> str:
        """The metric's name in tables and file names."""
        return METRIC

    @property
    def settings(self) -> dict[str, Any]:
        """The questions, and which tokenizer reads the answers."""
        tokenizer = hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()
        return {**self.questions.settings, "tokenizer_sha256": tokenizer}

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, Column]:
        """Decode the answers of those that are equally long together."""
        lengths_B = batch.lengths_B.numpy(force=True)
        replies = [_Reply() for _ in lengths_B]
        for length in np.unique(lengths_B).tolist():
            rows_R = np.flatnonzero(lengths_B == length)
            each = sequences_at_once(model, length + _NEW_TOKENS)
            for begin in range(0, len(rows_R), each):
                some_R = rows_R[begin : begin + each]
                prompts_RT = batch.ids_BT[torch.from_numpy(some_R), :length]
                self._decode(model, prompts_RT, [replies[row] for row in some_R.tolist()])
        given = [reply.number for reply in replies]
        right = [str(self.questions[row].answer) for row in batch.rows_B.tolist()]
        return {
            "correct": np.array([a == b for a, b in zip(given, right, strict=True)]),
            "answer": pa.array([None if not text else int(text) for text in given], pa.int32()),
            "near_tie": np.array([reply.near_tie for reply in replies]),
            "nonfinite": np.array([reply.nonfinite for reply in replies]),
        }

    def summarize(self, sequences: pa.Table) -> dict[str, float]:
        """The accuracy, and how far it can be trusted."""
        return {
            "accuracy": pc.mean(sequences["correct"].cast(pa.float64())).as_py(),
            "answered": 1 - sequences["answer"].null_count / len(sequences),
            "near_ties": pc.sum(sequences["near_tie"]).as_py(),
            "nonfinite": pc.sum(sequences["nonfinite"]).as_py(),
        }

    def _decode(self, model: Model, prompts_RT: torch.Tensor, replies: Sequence["_Reply"]) -> None:
        """As many tokens as it takes until all replies are known, at most 16."""
        for token_R, margin_R in greedy_steps(model, prompts_RT, _NEW_TOKENS):
            tokens, margins = token_R.tolist(), margin_R.tolist()
            for reply, token, margin in zip(replies, tokens, margins, strict=True):
                if not reply.known:
                    reply.add(token, margin, model.near_tie)
            texts = self.tokenizer.decode_batch(
                [reply.ids for reply in replies], skip_special_tokens=False
            )
            for reply, text in zip(replies, texts, strict=True):
                reply.read(text)
            if all(reply.known for reply in replies):
                return


class _Reply:
    """What one question is answered, as far as it is decoded."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.number = ""  # the digits as they stand; "" while there are none
        self.known = False
        self.near_tie = False
        self.nonfinite = 0

    def add(self, token: int, margin: float, tie: float) -> None:
        """One more token, which led by `margin`."""
        self.ids.append(token)
        self.near_tie |= margin <= tie
        self.nonfinite += not np.isfinite(margin)

    def read(self, text: str) -> None:
        """The text so far: known once the line or the number in it has ended."""
        line, newline, _ = text.partition("\n")
        found = _NUMBER.search(line)
        self.number = found[0] if found else ""
        # At the end of the text may stand a part of a character, or of a number.
        ended = found is not None and (found.end() < len(line.rstrip("\ufffd")))
        self.known = bool(newline) or ended or len(self.number) == 5


def _ask(operation: Operation, first: int, second: int) -> str:
    return f"Q:What is {first} {operation} {second}? A:"


def _answer(operation: Operation, first: int, second: int) -> int:
    return first * second if operation == "times" else first + second


def _numbers(values: Sequence[int], name: str) -> tuple[int, ...]:
    numbers = tuple(integer(value, f"one of {name}") for value in values)
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ArgumentError(f"{name} are different numbers from 0, at least one: got {values!r}")
    return numbers
