"""From what a user types to the one name of a model."""

import math
import re
from collections.abc import Collection

from pythia_fast.errors import ArgumentError, UnknownModelError
from pythia_fast.words import alike, near_are

OLD_SIZES = {
    "19m": "70m",
    "125m": "160m",
    "350m": "410m",
    "400m": "410m",
    "800m": "1b",
    "1.3b": "1.4b",
    "2.7b": "2.8b",
    "6.7b": "6.9b",
    "13b": "12b",
}
"""Sizes before January 2023, which counted no embeddings, and today's. The first README had both
350m and 400m for 410m."""

_NAMED = 3  # in an error
_OLD_VARIANTS = {"", "-deduped", "-v0", "-deduped-v0"}  # no seed run ever had an old name
_PREFIX = re.compile(r"(eleutherai/)?(pythia-)?", re.ASCII)
_SIZE = re.compile(r"((?:[a-z]+-)*)(\d+(?:\.\d+)?)([mb])(.*)", re.ASCII)
_INTERVENED = re.compile(
    r"(long-)?intervention-(?:pythia-)?(?:v1\.1-)?(long-)?(.+?)(-long)?", re.ASCII
)


def resolve(name: str, known: Collection[str]) -> str:
    """The one of `known` that `name` means.

    Upper and lower case are the same; "EleutherAI/" and "pythia-" may be left out; old sizes are
    understood, and the names that the published evaluations have for intervened models.
    ArgumentError if it is no text, UnknownModelError, naming the nearest, if no model.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"a model's name is text, not {name!r}")
    bare = _bare(name)
    if bare in known:
        return bare
    before, size, after = _split(bare)
    old = not before and after in _OLD_VARIANTS
    if old and (today := OLD_SIZES.get(size, "") + after) in known:
        return today
    raise UnknownModelError(
        f"there is no model {name!r}{near_are(_near(bare, known))}; `pythia-fast models`, or "
        f"pythia_fast.models(), lists all {len(known)}. Checkpoints of your own are given as the "
        "path of their folder"
    )


def _near(bare: str, known: Collection[str]) -> list[str]:
    """A few of `known` that look like a bare name, or have nearly its size."""
    before, size, after = _split(bare)
    bare = before + OLD_SIZES.get(size, size) + after
    found = alike(bare, sorted(known), _NAMED)
    if size and not any(_split(other)[1] == size for other in known):
        of_variant = [other for other in known if _split(other)[::2] == (before, after)]
        of_variant.sort(key=lambda other: abs(math.log(_number(other) / _number(bare))))
        found = [*of_variant[:2], *found]
    return list(dict.fromkeys(found))[:_NAMED]


def _bare(name: str) -> str:
    """In lower case, without the organisation and without "pythia-".

    Of an intervened model in today's order of words: "intervention-long-1.4b-deduped".
    """
    bare = _PREFIX.sub("", name.strip().lower(), count=1)
    match = _INTERVENED.fullmatch(bare)
    if match is None:
        return bare
    long = "long-" if match[1] or match[2] or match[4] else ""
    return f"intervention-{long}{match[3]}"


def _split(bare: str) -> tuple[str, str, str]:
    """What is before the size, the size, and what follows: ("", "160m", "-seed3").

    Where there is no size all of it follows.
    """
    match = _SIZE.fullmatch(bare)
    return (match[1], match[2] + match[3], match[4]) if match else ("", "", bare)


def _number(bare: str) -> float:
    """The size in parameters, at least one (so that it has a logarithm)."""
    match = _SIZE.fullmatch(bare)
    assert match is not None  # only called for names that have a size
    return max(float(match[2]) * (1e9 if match[3] == "b" else 1e6), 1.0)
