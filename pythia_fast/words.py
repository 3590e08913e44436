"""Names in the words of a message: the first of many, and what looks like a wrong one."""

import difflib
from collections.abc import Collection, Iterable

_NAMED = 5  # of what is known


def listed(things: Iterable[object], most: int = _NAMED, *, between: str = ", ") -> str:
    """The first of them in one line, and how many more there are: "a, b, c and 4 more".

    What holds commas itself is parted otherwise, as by "; ": "a, b; c; and 4 more".
    """
    every = [str(thing) for thing in things]
    if len(every) <= most:
        return between.join(every)
    end = " and " if between == ", " else f"{between}and "
    return f"{between.join(every[:most])}{end}{len(every) - most:,} more"


def nearest(what: str, name: object, known: Iterable[str]) -> str:
    """For the message of an error: "no task 'sciqq'; near is sciq", as much as is `known`.

    Where nothing is near, the first of all are named, and how many more there are.
    """
    names = list(dict.fromkeys(known))
    if told := near(name, names):
        return f"no {what} {name!r}{told}"
    there = f"; there {'is' if len(names) == 1 else 'are'} {listed(names)}" if names else ""
    return f"no {what} {name!r}{there}"


def near(name: object, known: Iterable[str]) -> str:
    """What of `known` looks like `name` or has it within: "; near are a, b", or nothing."""
    return near_are(alike(name, known))


def near_are(names: Collection[str]) -> str:
    """These names as `near` tells them."""
    return f"; near {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else ""


def alike(name: object, known: Iterable[str], most: int = _NAMED) -> list[str]:
    """Up to `most` of `known` that look like `name`, or else have it within."""
    names = list(dict.fromkeys(known))
    found = difflib.get_close_matches(str(name), names, n=most)
    if not found and name:
        found = [each for each in names if str(name).lower() in each.lower()][:most]
    return found
