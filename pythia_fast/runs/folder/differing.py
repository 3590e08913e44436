"""In what two specifications differ, in words."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_TOLD_AT_MOST = 6
_LETTERS_AT_MOST = 60  # of one value
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The leaves that differ, each with both values as far as they are short and say something."""
    told = list(_leaves(there, asked, ""))
    more = len(told) - _TOLD_AT_MOST
    return "; ".join(told[:_TOLD_AT_MOST]) + (f"; and {more} more" if more > 0 else "")


def _leaves(there: Mapping[str, Any], asked: Mapping[str, Any], above: str) -> Iterator[str]:
    for key in dict.fromkeys((*asked, *there)):
        name = f"{above}{key}"
        if key not in asked:
            yield f"{name}: only there{_said(there[key])}"
        elif key not in there:
            yield f"{name}: not there, but asked for{_said(asked[key])}"
        elif isinstance(there[key], Mapping) and isinstance(asked[key], Mapping):
            yield from _leaves(there[key], asked[key], f"{name}.")
        elif there[key] != asked[key]:
            yield f"{name}: {_both(there[key], asked[key])}"


def _said(value: object) -> str:
    """A value in its place in a sentence; nothing for one that nobody can read."""
    if isinstance(value, Mapping) or (isinstance(value, str) and _DIGEST.fullmatch(value)):
        return ""
    text = json.dumps(value)
    return f" {text if len(text) <= _LETTERS_AT_MOST else text[:_LETTERS_AT_MOST] + '…'}"


def _both(there: object, asked: object) -> str:
    told = _said(there), _said(asked)
    return f"there{told[0]}, asked for{told[1]}" if all(told) else "another"
