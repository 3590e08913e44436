"""From what a user types to the one name of a model."""

import difflib
import math
import re
from collections.abc import Collection

from pythia_fast.errors import ArgumentError, UnknownModelError

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

_OLD_VARIANTS = {"", "-deduped", "-v0", "-deduped-v0"}  # no seed run ever had an old name
_PREFIX = re.compile(r"(eleutherai/)?(pythia-)?", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([mb])(.*)", re.ASCII)


def resolve(name: str, known: Collection[str]) -> str:
    """The one of `known` that `name` means.

    Upper and lower case are the same; "EleutherAI/" and "pythia-" may be left out; old sizes are
    understood. ArgumentError if it is no text, UnknownModelError, naming the nearest, if no model.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"a model's name is text, not {name!r}")
    bare = _bare(name)
    if bare in known:
        return bare
    size, variant = _split(bare)
    if variant in _OLD_VARIANTS and (today := OLD_SIZES.get(size, "") + variant) in known:
        return today
    near = nearest(name, known)
    hint = f"the nearest: {', '.join(near)}; " if near else ""
    raise UnknownModelError(
        f"there is no model {name!r}; {hint}`pythia-fast models`, or pythia_fast.models(), lists "
        f"all {len(known)}. Checkpoints of your own are given as the path of their folder"
    )


def nearest(name: str, known: Collection[str], *, most: int = 3) -> tuple[str, ...]:
    """Up to `most` of `known` that look like `name`, or have nearly its size."""
    bare = _bare(name)
    size, variant = _split(bare)
    bare = OLD_SIZES.get(size, size) + variant if size else bare
    found = difflib.get_close_matches(bare, sorted(known), n=most, cutoff=0.6)
    if size and not any(_split(other)[0] == size for other in known):
        of_variant = [other for other in known if _split(other)[1] == variant]
        of_variant.sort(key=lambda other: abs(math.log(_number(other) / _number(bare))))
        found = [*of_variant[:2], *found]
    return tuple(dict.fromkeys(found))[:most]


def _bare(name: str) -> str:
    """In lower case, without the organisation and without "pythia-"."""
    return _PREFIX.sub("", name.strip().lower(), count=1)


def _split(bare: str) -> tuple[str, str]:
    """Size and variant: ("160m", "-seed3"); the size is empty where there is none."""
    match = _SIZE.fullmatch(bare)
    return (match[1] + match[2], match[3]) if match else ("", bare)


def _number(bare: str) -> float:
    """The size in parameters, at least one (so that it has a logarithm)."""
    match = _SIZE.fullmatch(bare)
    assert match is not None  # only called for names that have a size
    return max(float(match[1]) * (1e9 if match[2] == "b" else 1e6), 1.0)
