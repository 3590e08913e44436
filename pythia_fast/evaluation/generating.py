"""Texts that go on until a stop string, decoded greedily.

B prompts of equal length, T tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.encoding import Encoder
from pythia_fast.model import Model
from pythia_fast.model.generate import greedy_steps, sequences_at_once

DEFAULT_TOKENS = 256
"""What the harness's `hf` model generates at most if a task does not say."""

_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_WITHOUT_EFFECT = {"temperature", "do_sample", "top_k", "top_p", "min_p", "typical_p", "seed"}
"""Of sampling, and therefore nothing to greedy decoding."""

_LOOK_BACK_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request wants generated: at most so many tokens, up to the first of these strings."""

    max_new_tokens: int
    stops: tuple[str, ...]


def wish_of(options: Mapping[str, Any], max_positions: int) -> Wish:
    """A task's `generation_kwargs`. ArgumentError for what is not greedy, or makes no sense."""
    given = dict(options)
    until = given.pop("until", None)
    stops = [until] if isinstance(until, str) else list(until or ())
    limits = [given.pop(name) for name in _LIMITS if given.get(name) is not None]
    limit = limits[0] if limits else DEFAULT_TOKENS
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise ArgumentError(f"max_gen_toks is a whole number, not {limit!r}")
    temperature = given.get("temperature")
    if given.get("do_sample", bool(temperature)) and temperature != 0:
        raise ArgumentError(
            f"generation_kwargs {dict(options)} ask for sampling, whose texts nobody could compute "
            "again; set do_sample: false, or temperature: 0"
        )
    neutral = {"num_beams": 1, "repetition_penalty": 1.0, "num_return_sequences": 1}
    others = [
        name
        for name, value in given.items()
        if name not in _WITHOUT_EFFECT and value is not None and neutral.get(name) != value
    ]
    if others:
        raise ArgumentError(
            f"generation_kwargs {', '.join(others)} are not known here: known are until, "
            f"{', '.join(_LIMITS)}, and do_sample, temperature for greedy decoding"
        )
    if not all(isinstance(stop, str) for stop in stops):
        raise ArgumentError(f"until is a string or a list of strings, not {until!r}")
    if not 0 < limit < max_positions:
        raise ArgumentError(
            f"max_gen_toks is 1 to {max_positions - 1}, less than the model's positions, not "
            f"{limit}"
        )
    return Wish(limit, tuple(stop for stop in stops if stop))


def prepared(
    encoder: Encoder, requests: Sequence[tuple[str, Mapping[str, Any]]], max_positions: int
) -> list[tuple[Sequence[int], Wish]]:
    """Prompts as ids, with what is wanted. ArgumentError for a prompt without tokens."""
    wishes = [wish_of(options, max_positions) for _, options in requests]
    prompts = encoder.prompts([text for text, _ in requests])
    if not all(map(len, prompts)):
        raise ArgumentError("a prompt has no tokens: a task's text must not be empty")
    return list(zip(prompts, wishes, strict=True))


def generate_texts(
    model: Model,
    encoder: Encoder,
    prompts: Sequence[tuple[Sequence[int], Wish]],
    *,
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """What each prompt goes on with, without the stop string and what is behind it.

    A prompt that leaves no room for its new tokens loses tokens on its left. Prompts of equal
    length and wish go through the model together. Prompts have a token at least.
    """
    groups: dict[tuple[int, Wish], list[int]] = {}
    cut = [
        ids[-(model.architecture.max_positions - wish.max_new_tokens) :] for ids, wish in prompts
    ]
    for number, ((_, wish), ids) in enumerate(zip(prompts, cut, strict=True)):
        groups.setdefault((len(ids), wish), []).append(number)
    texts = [""] * len(prompts)
    for (length, wish), numbers in groups.items():
        at_once = sequences_at_once(model, length + wish.max_new_tokens)
        for first in range(0, len(numbers), at_once):
            some = numbers[first : first + at_once]
            written = _written(model, encoder, [cut[number] for number in some], wish)
            for number, text in zip(some, written, strict=True):
                texts[number] = text
            if advance is not None:
                advance(length * len(some))
    return texts


def _written(
    model: Model, encoder: Encoder, prompts: Sequence[Sequence[int]], wish: Wish
) -> list[str]:
    ids_BT = torch.tensor(prompts, dtype=torch.int64, device=model.device)
    new: list[list[int]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    # A character takes four tokens of bytes at most.
    look_back = _LOOK_BACK_TOKENS + 4 * max(map(len, wish.stops), default=0)
    for token_B, _ in greedy_steps(model, ids_BT, wish.max_new_tokens):
        for row, token in enumerate(token_B.tolist()):
            if row not in going:
                continue
            if token == encoder.end_of_text:
                going.discard(row)
                continue
            new[row].append(token)
            tail = encoder.text(new[row][-look_back:]) if wish.stops else ""
            if any(stop in tail for stop in wish.stops):
                going.discard(row)
        if not going:
            break
    return [_until(encoder.text(ids), wish.stops) for ids in new]


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0]
    return text
