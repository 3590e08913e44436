"""The numbers of evaluations that the study of gender bias is made of: which, and whose."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pythia_fast.errors import ArgumentError, UnknownModelError
from pythia_fast.evaluation import EvaluationResult
from pythia_fast.suite import spec

CROWS = "crows-pairs"
TYPES = ("1", "2")
NEEDED = (
    "crows_pairs_english_gender (pct_stereotype) or wino_bias_type1_pro, …1_anti, …2_pro and "
    "…2_anti (em), which wino_bias_tasks() defines"
)
"""The tasks and metrics, in words."""
_CROWS_TASK, _CROWS_METRIC = "crows_pairs_english_gender", "pct_stereotype"
_WINO_TASK = re.compile(r"wino_bias_type([12])_(pro|anti)(?:_(refers_to|stands_for))?")
_PROMPTS = {"What does p stand for": "stands_for"}
# Folders of one's own; the suite's models are known by their specs.
_INTERVENED = re.compile(r"(?:.*/)?(?:pythia-)?(long-)?intervention-(long-)?(.+)")
_COLUMNS = {
    "model": pa.string(),
    "step": pa.int64(),
    "task": pa.string(),
    "metric": pa.string(),
    "value": pa.float64(),
    "stderr": pa.float64(),
}
_OPTIONAL = {"variant": pa.string(), "prompt": pa.string(), "status": pa.string()}


@dataclass(frozen=True, slots=True)
class Key:
    """A checkpoint: the base model, what was done to it, and the step."""

    model: str
    variant: str | None
    step: int


@dataclass(frozen=True, slots=True)
class Number:
    """A value and its standard error, where that is known."""

    value: float
    stderr: float | None


Numbers = dict[tuple[str, ...], Number]
"""("crows-pairs",), or (WinoBias' type, "pro" or "anti", the prompt)."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The numbers of all checkpoints, and how many rows of their tasks are left out, by reason."""

    numbers: dict[Key, Numbers]
    left_out: "Counter[str]"


def collected(
    results: "EvaluationResult | pa.Table | Iterable[EvaluationResult | pa.Table]",
) -> Collected:
    """What the results have of the tasks. ArgumentError as `gender_bias` promises."""
    several = [results] if isinstance(results, (EvaluationResult, pa.Table)) else results
    if not isinstance(several, Iterable) or isinstance(several, str):
        raise ArgumentError(f"results are EvaluationResults or their tables, got {results!r}")
    found = Collected({}, Counter())
    for each in several:
        table = each.table if isinstance(each, EvaluationResult) else each
        if not isinstance(table, pa.Table):
            raise ArgumentError(f"results are EvaluationResults or their tables, got {each!r}")
        _add(table, found)
    return found


def _add(table: pa.Table, found: Collected) -> None:
    for row in _rows(table):
        measure = _measure(row)
        if measure is None:
            continue
        if (reason := _unusable(row)) is not None:
            found.left_out[reason] += 1
            continue
        base, variant = _base(row["model"])
        key = Key(base, variant or row.get("variant"), row["step"])
        of_key = found.numbers.setdefault(key, {})
        if measure in of_key:
            named = f" ({key.variant})" if key.variant else ""
            raise ArgumentError(
                f"two results have {' '.join(measure)} of {key.model}{named} at step "
                f"{key.step}: give one of them"
            )
        error = row["stderr"]
        known = error is not None and math.isfinite(error)
        of_key[measure] = Number(row["value"], error if known else None)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """The columns that count, in their types. ArgumentError where one is missing or another."""
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise ArgumentError(
            f"a table of evaluations has the columns {', '.join(_COLUMNS)}; this one has no "
            f"{missing[0]!r}"
        )
    columns = {}
    for name, kind in (_COLUMNS | _OPTIONAL).items():
        if name in table.column_names:
            try:
                columns[name] = table[name].cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ArgumentError(
                    f"column {name!r} of a table of evaluations is {kind}, not "
                    f"{table[name].type}: {error}"
                ) from error
    rows: list[dict[str, Any]] = pa.table(columns).to_pylist()
    return rows


def _unusable(row: Mapping[str, Any]) -> str | None:
    """Why a row does not count; None if it does."""
    status = row.get("status")
    if status not in (None, "ok"):
        return str(status)
    if row["value"] is None or not math.isfinite(row["value"]):
        return "non-finite"
    return None if row["model"] is not None and row["step"] is not None else "of no checkpoint"


def _base(model: str) -> tuple[str, str | None]:
    """The base of an intervened model, and which intervention it was; else the model itself."""
    try:
        known = spec(model)
    except UnknownModelError:
        named = _INTERVENED.fullmatch(model)
        if named is None:
            return model, None
        return named[3], "long-intervention" if named[1] or named[2] else "intervention"
    return known.base or model, known.variant


def _measure(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    task, metric = row["task"] or "", row["metric"]
    if task == _CROWS_TASK and metric == _CROWS_METRIC:
        return (CROWS,)
    match = _WINO_TASK.fullmatch(task)
    if match is None or metric != "em":
        return None
    prompt = row.get("prompt") or ""
    return match[1], match[2], match[3] or _PROMPTS.get(prompt, prompt)
