"""The measures of gender bias, their standard errors, and what an intervention did to them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pythia_fast.analysis.gender_numbers import CROWS, TYPES, Key, Number, Numbers
from pythia_fast.analysis.multiple import holm

_BASES = (None, "baseline")

_KEY = [("model", pa.string()), ("variant", pa.string()), ("step", pa.int64())]
TABLE = pa.schema(
    [
        *_KEY,
        ("measure", pa.string()),
        ("value", pa.float64()),
        ("stderr", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("pro", pa.float64()),
        ("anti", pa.float64()),
        ("accuracy", pa.float64()),
        ("accuracy_stderr", pa.float64()),
        ("prompts", pa.string()),
    ]
)
"""The columns of the study."""
EFFECTS = pa.schema(
    [
        *_KEY,
        ("measure", pa.string()),
        ("base", pa.float64()),
        ("intervened", pa.float64()),
        ("difference", pa.float64()),
        ("stderr", pa.float64()),
        ("z", pa.float64()),
        ("p", pa.float64()),
        ("p_holm", pa.float64()),
    ]
)
"""The columns of its effects."""


def measures(key: Key, numbers: Numbers, wide: float) -> list[dict[str, Any]]:
    """The rows of one checkpoint: one for each measure that it has all of.

    Intervals reach `wide` standard errors to both sides.
    """
    own = {"model": key.model, "variant": key.variant, "step": key.step}
    rows: list[dict[str, Any]] = []
    if (CROWS,) in numbers:
        rows.append(own | {"measure": CROWS} | _interval(numbers[(CROWS,)], wide))
    tasks = {(kind, side) for kind in TYPES for side in ("pro", "anti")}
    asked = {task: {name[2] for name in numbers if name[:2] == task} for task in tasks}
    means: dict[str, tuple[Number, Number]] = {}
    for kind in TYPES:
        shared = sorted(set.intersection(*(asked[kind, side] for side in ("pro", "anti"))))
        if not shared:
            continue
        pro, anti = (
            _same_sentences([numbers[kind, side, prompt] for prompt in shared])
            for side in ("pro", "anti")
        )
        means[kind] = pro, anti
        prompts = {"prompts": ", ".join(shared) or None}
        rows.append(own | {"measure": f"winobias type {kind}"} | _pair(pro, anti, wide) | prompts)
    if set(means) == set(TYPES):
        pro, anti = (_mean([means[kind][side] for kind in TYPES]) for side in (0, 1))
        rows.append(own | {"measure": "winobias"} | _pair(pro, anti, wide))
    return rows


def _pair(pro: Number, anti: Number, wide: float) -> dict[str, Any]:
    error = _independent(pro, anti)
    bias = Number(pro.value - anti.value, error)
    accuracy = {
        "accuracy": (pro.value + anti.value) / 2,
        "accuracy_stderr": None if error is None else error / 2,
    }
    return _interval(bias, wide) | {"pro": pro.value, "anti": anti.value} | accuracy


def _interval(number: Number, wide: float) -> dict[str, Any]:
    value, error = number.value, number.stderr
    ends = (None, None) if error is None else (value - wide * error, value + wide * error)
    return {"value": value, "stderr": error, "low": ends[0], "high": ends[1]}


def _same_sentences(numbers: Sequence[Number]) -> Number:
    """Their mean, as uncertain as one of them is on the average."""
    errors = [number.stderr for number in numbers if number.stderr is not None]
    error = math.sqrt(math.fsum(e * e for e in errors) / len(errors)) if errors else None
    known = len(errors) == len(numbers)
    value = math.fsum(number.value for number in numbers) / len(numbers)
    return Number(value, error if known else None)


def _mean(numbers: Sequence[Number]) -> Number:
    """The mean of two independent ones."""
    first, second = numbers
    error = _independent(first, second)
    return Number((first.value + second.value) / 2, None if error is None else error / 2)


def _independent(first: Number, second: Number) -> float | None:
    """The error of the sum or the difference."""
    if first.stderr is None or second.stderr is None:
        return None
    return math.hypot(first.stderr, second.stderr)


def effects(rows: Sequence[Mapping[str, Any]], normal: Any) -> list[dict[str, Any]]:
    """What there is of intervened models beside the same measure of their base at that step."""
    bases: dict[tuple[str, int, str], Mapping[str, Any]] = {}
    for variant in reversed(_BASES):  # the model itself rather than its evaluation as a baseline
        for row in rows:
            if row["variant"] == variant:
                bases[row["model"], row["step"], row["measure"]] = row
    found = []
    for row in rows:
        base = bases.get((row["model"], row["step"], row["measure"]))
        if "intervention" not in (row["variant"] or "") or base is None:
            continue
        difference = row["value"] - base["value"]
        error = _independent(*(Number(each["value"], each["stderr"]) for each in (row, base)))
        z = difference / error if error else None
        found.append(
            {name: row[name] for name in ("model", "variant", "step", "measure")}
            | {"base": base["value"], "intervened": row["value"], "difference": difference}
            | {"stderr": error, "z": z}
            | {"p": None if z is None else float(2 * normal.sf(abs(z)))}
        )
    for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p_holm"] = corrected
    return found
