"""JSON as strict as files from strangers need it: one reading, and no other."""

import json
from typing import Any, NoReturn


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that `raw` is. ValueError if it is anything else.

    A key that appears twice, NaN and Infinity, text that is no UTF-8 and nesting beyond any sense
    are errors as well.
    """
    try:
        parsed = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
        )
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(parsed, dict):
        raise ValueError(f"a JSON object is expected, not {type(parsed).__name__}")
    return parsed


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key appears twice")
    return entries


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
