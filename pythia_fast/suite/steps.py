"""Which steps have a checkpoint, and how a caller names some of them."""

import itertools
import operator
import re
from bisect import bisect
from collections.abc import Iterable, Sequence

from pythia_fast.errors import ArgumentError, UnknownStepError

STEPS = (0, *(2**i for i in range(10)), *range(1_000, 143_001, 1_000))
"""The 154 checkpoints of every model since April 2023 (arXiv:2304.01373, section 2)."""

STEPS_V0 = tuple(range(1_000, 143_001, 1_000))
"""The 143 checkpoints of the first release: no start and no log-spaced ones."""

SEQUENCES_PER_STEP = 1024
SEQUENCE_TOKENS = 2048
TOKENS_PER_STEP = SEQUENCES_PER_STEP * SEQUENCE_TOKENS
"""Tokens between one step and the next, as the labels count: 2,097,152, in both releases."""

Steps = int | str | Iterable[int]
"""What `parse_steps` takes."""

_SLICE = re.compile(r"(\d*):(\d*)(?::(\d*))?", re.ASCII)
_NUMBER = re.compile(r"\d+", re.ASCII)
_NAMED_AT_MOST = 5  # unknown steps named in one error: beyond that the list helps nobody
_HOW = (
    "steps are numbers, all, log, last, start:stop:stride as in 1000:143001:1000 (without stop "
    "itself), or several of these with commas, as in 0,512,1000"
)


def parse_steps(steps: Steps, available: Iterable[int], *, series: str = "") -> tuple[int, ...]:
    """The chosen steps out of `available`, ascending and each once.

    - an int, or several (a range, a list, an array of ints): exactly these;
    - "all", and "last", the highest;
    - "log": the first steps and then about one per doubling, see `log_spaced`;
    - "start:stop:stride": what `range(start, stop, stride)` gives, and each must exist; a stop
      beyond the last step is cut, as in a slice. Without a stride: every available step from start
      up to, and without, stop. Left out, start is the first step and stop lies behind the last;
    - a list of these with commas: "0,512,1000:5000:1000,last".

    UnknownStepError names those that do not exist, and the steps nearest to the first; `series` is
    the model's name for it, where it may be one of several. ArgumentError if nothing
    is chosen, if a step is a bool, a float or negative, or if the text is none of the above.
    """
    existing = sorted(set(available))
    if not existing:
        raise ArgumentError("the series has no checkpoints, so there are no steps to choose from")
    if isinstance(steps, str):
        parts = [_part(part, steps, existing) for part in steps.split(",")]
        wanted: Iterable[int] = itertools.chain.from_iterable(parts)
    else:
        wanted = _integers(steps)
    chosen = _existing(wanted, existing, series)
    if not chosen:
        whose = f" of {series}" if series else ""
        raise ArgumentError(f"{steps!r} chooses none of the {_span(existing)}{whose}")
    return tuple(sorted(chosen))


def check_steps(steps: str) -> None:
    """ArgumentError if a text is no choice of steps, whatever the series has."""
    for part in steps.split(","):
        _part(part, steps, (0,))


def log_spaced(available: Sequence[int]) -> tuple[int, ...]:
    """About one step per doubling, and the last: 0, 1, 2, 4, …, 512, 1000, 2000, …, 128000, 143000.

    From one step to the next goes the available one nearest to its double, of those with at least
    1.9 times its value: a little under two, so that 512 is followed by 1000. `available` ascends.
    """
    chosen = [available[0]]
    while True:
        least, aim = 1.9 * chosen[-1], 2 * chosen[-1]
        further = [step for step in available if step > chosen[-1] and step >= least]
        if not further:
            break
        chosen.append(min(further, key=lambda step: abs(step - aim)))
    return tuple(sorted({*chosen, available[-1]}))


def nearest_steps(step: int, available: Iterable[int]) -> tuple[int, ...]:
    """The steps of `available` on either side of `step`: one or two of them."""
    existing = sorted(set(available))
    place = bisect(existing, step)
    return tuple(existing[max(place - 1, 0) : place + 1])


def unknown_step(step: int, available: Sequence[int], *, series: str = "") -> UnknownStepError:
    """The error for a step without a checkpoint, ready to be raised; `series` names the model."""
    nearest = " and ".join(str(near) for near in nearest_steps(step, available))
    owner = f"{series} has" if series else "there is"
    return UnknownStepError(
        f"{owner} no checkpoint of step {step}; the nearest: {nearest} ({_span(available)})"
    )


def _part(part: str, whole: str, existing: Sequence[int]) -> Iterable[int]:
    """The steps that one part of a comma list means."""
    part = part.strip().lower()
    if part == "all":
        return existing
    if part == "last":
        return existing[-1:]
    if part == "log":
        return log_spaced(existing)
    if _NUMBER.fullmatch(part):
        return [int(part)]
    if match := _SLICE.fullmatch(part):
        start = int(match[1]) if match[1] else existing[0]
        stop = min(int(match[2]), existing[-1] + 1) if match[2] else existing[-1] + 1
        if not match[3]:
            return [step for step in existing if start <= step < stop]
        if int(match[3]) < 1:
            raise ArgumentError(f"the stride of {whole!r} is at least 1")
        return range(start, stop, int(match[3]))
    raise ArgumentError(f"{whole!r} is no choice of steps: {_HOW}")


def _integers(steps: int | Iterable[int]) -> Iterable[int]:
    """Steps given as numbers, checked one by one and no further than they are asked for."""
    if not isinstance(steps, Iterable):
        steps = (steps,)
    for step in steps:
        try:
            number = operator.index(step)
        except TypeError:
            raise ArgumentError(f"a step is an int, not {step!r}: {_HOW}") from None
        if isinstance(step, bool):
            raise ArgumentError(f"a step is an int, not the bool {step}: {_HOW}")
        if number < 0:
            raise ArgumentError(f"a step is not negative, got {number}")
        yield number


def _existing(wanted: Iterable[int], existing: Sequence[int], series: str) -> set[int]:
    """`wanted` as a set, or UnknownStepError; stops early, so a wrong range may be endless."""
    known, chosen, unknown = set(existing), set[int](), dict[int, None]()
    for step in wanted:
        if step in known:
            chosen.add(step)
        else:
            unknown[step] = None
            if len(unknown) == _NAMED_AT_MOST:
                break
    if not unknown:
        return chosen
    first, *others = unknown
    error = unknown_step(first, existing, series=series)
    if not others:
        raise error
    more = ", and perhaps more" if len(unknown) == _NAMED_AT_MOST else ""
    raise UnknownStepError(f"{error}; nor of {', '.join(map(str, others))}{more}")


def _span(existing: Sequence[int]) -> str:
    """Say "154 checkpoints from 0 to 143000"."""
    if len(existing) == 1:
        return f"1 checkpoint, of step {existing[0]}"
    return f"{len(existing)} checkpoints from {existing[0]} to {existing[-1]}"
