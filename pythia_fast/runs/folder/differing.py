"""In what two specifications differ, in words."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pythia_fast.words import listed

_TOLD_AT_MOST = 6
_LETTERS_AT_MOST = 60  # of one value
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The leaves that differ, each with both values as far as they are short and say something."""
    return listed(_leaves(there, asked, ""), _TOLD_AT_MOST, between="; ")


def _leaves(there: Mapping[str, Any], asked: Mapping[str, Any], above: str) -> Iterator[str]:
    others = there.get("sequences") != asked.get("sequences")
    for key in dict.fromkeys((*asked, *there)):
        name = f"{above}{key}"
        if key not in asked:
            yield f"{name}: only there{_said(there[key])}"
        elif key not in there:
            yield f"{name}: not there, but asked for{_said(asked[key])}"
        elif there[key] == asked[key] or (key == "tokens" and others):
            continue  # of other sequences the tokens are others, be the data the same or not
        elif key == "sequences":
            yield f"the sequences are others: {_both(*map(_rows, (there[key], asked[key])))}"
        elif key == "metrics" and _named(there[key]) and _named(asked[key]):
            yield from _of_metrics(_named(there[key]), _named(asked[key]))
        elif isinstance(there[key], Mapping) and isinstance(asked[key], Mapping):
            yield from _leaves(there[key], asked[key], f"{name}.")
        else:
            yield f"{name}: {_both(there[key], asked[key])}"


def _of_metrics(there: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    if there.keys() != asked.keys():
        yield f"metrics: {_both(', '.join(there), ', '.join(asked))}"
    for name in (name for name in asked if name in there):
        then, now = dict(there[name]), dict(asked[name])
        if then.pop("code", None) != now.pop("code", None):
            yield f"the code of the metric {name!r} is another"
        yield from _leaves(then, now, f"metric {name!r}: ")


def _named(metrics: object) -> dict[str, Mapping[str, Any]]:
    """Metrics by their names; nothing if it is something else."""
    if not isinstance(metrics, list) or not all(isinstance(each, Mapping) for each in metrics):
        return {}
    return {str(each.get("name")): each for each in metrics}


def _rows(sequences: Any) -> Any:
    """As --sequences takes them."""
    try:
        first, count, stride = (sequences[name] for name in ("first", "count", "stride"))
        return f"{first}:{first + count * stride}" + (f":{stride}" if stride != 1 else "")
    except (KeyError, TypeError):
        return sequences


def _said(value: object) -> str:
    """A value in its place in a sentence; nothing for one that nobody can read."""
    if isinstance(value, Mapping) or (isinstance(value, str) and _DIGEST.fullmatch(value)):
        return ""
    text = json.dumps(value)
    return f" {text if len(text) <= _LETTERS_AT_MOST else text[:_LETTERS_AT_MOST] + '…'}"


def _both(there: object, asked: object) -> str:
    told = _said(there), _said(asked)
    if not all(told) or told[0] == told[1]:  # what differs is further on than is said
        return "another"
    return f"there{told[0]}, asked for{told[1]}"
