"""Gender bias over training, and what the suite's intervention on pronouns did to it.

The case study of arXiv:2304.01373, section 4.1: CrowS-Pairs, English, gender (in which share of
pairs of sentences the model finds the stereotyped one likelier; 0.5 is no bias) and WinoBias (how
much more often the model resolves a pronoun by its stereotype than against it; 0 is no bias).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pythia_fast.analysis.gender_figure import draw_bias
from pythia_fast.analysis.study import Study
from pythia_fast.errors import ArgumentError, UnknownModelError, nearest
from pythia_fast.evaluation import EvaluationResult
from pythia_fast.extras import require
from pythia_fast.metrics.intervals import check_level
from pythia_fast.plots import StepAxis
from pythia_fast.suite import spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CROWS = "crows-pairs"
TYPES = ("1", "2")
_CROWS_TASK, _CROWS_METRIC = "crows_pairs_english_gender", "pct_stereotype"
_WINO_TASK = re.compile(r"wino_bias_type([12])_(pro|anti)(?:_(refers_to|stands_for))?")
_PROMPTS = {"What does p stand for": "stands_for"}
# Folders of one's own; the suite's models are known by their specs.
_INTERVENED = re.compile(r"(?:.*/)?(?:pythia-)?(long-)?intervention-(long-)?(.+)")
_NEEDED = ("model", "step", "task", "metric", "value", "stderr")
_BASES = (None, "baseline")

_KEY = [("model", pa.string()), ("variant", pa.string()), ("step", pa.int64())]
_TABLE = pa.schema(
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
_EFFECTS = pa.schema(
    [
        *_KEY,
        ("measure", pa.string()),
        ("base", pa.float64()),
        ("intervened", pa.float64()),
        ("difference", pa.float64()),
        ("stderr", pa.float64()),
        ("z", pa.float64()),
        ("p", pa.float64()),
    ]
)


def gender_bias(
    results: "EvaluationResult | pa.Table | Iterable[EvaluationResult | pa.Table]",
    *,
    models: Sequence[str] | None = None,
    level: float = 0.95,
    steps_axis: StepAxis = "linear",
) -> Study:
    """CrowS-Pairs and WinoBias of base and intervened models over the steps.

    `results` are evaluations of crows_pairs_english_gender and of the tasks in
    `wino_bias_tasks()`, by `evaluate` or as `published` reads the suite's; one or several. The
    suite's intervened models ("intervention-1.4b-deduped"), folders that are called like them
    ("intervention-mine"), and rows with a `variant` belong to the base model ("1.4b-deduped",
    "mine"). `models` chooses some of the base models.

    `table`, a row for each model, variant, step and measure: "crows-pairs"; "winobias type 1" and
    "winobias type 2", the accuracy on sentences in line with the stereotype, `pro`, minus that on
    sentences against it, `anti`; and "winobias", the mean of the two. `accuracy` is the mean of pro
    and anti. `value` is the bias, `stderr` its standard error, `low` to `high` its interval at
    `level`; where the evaluation gives no error, neither do these. WinoBias is the mean over the
    prompts that all its tasks were asked with, `prompts`. They ask about the same sentences, so
    that the mean is taken to be as uncertain as one of them; pro and anti count as independent.

    `details`: "effects", the intervened models against their base at the same step: `difference`,
    its `stderr` as of independent samples (the sentences are the same, which makes it too large
    rather than too small), and by it `z` and the two-sided `p`. `figure()`: the bias over the
    steps, and the accuracy, on the axis `steps_axis`; if there are intervened models, theirs and
    their base's.

    ArgumentError for other results or models, and for two results for the same thing.
    """
    check_level(level)
    normal = require("scipy.stats").norm
    found = _collected(results)
    if models is not None:
        found = _chosen(found, models)
    wide = float(normal.ppf((1 + level) / 2))
    rows = [row for key in sorted(found, key=_order) for row in _measures(key, found[key], wide)]
    table = pa.Table.from_pylist(rows, schema=_TABLE)
    effects = pa.Table.from_pylist(_effects(rows, normal), schema=_EFFECTS)

    def draw(table: pa.Table) -> "Figure":
        return draw_bias(table, steps_axis)

    return Study("gender bias", table, _summary(table, effects), draw, {"effects": effects})


@dataclass(frozen=True, slots=True)
class _Key:
    model: str
    variant: str | None
    step: int


@dataclass(frozen=True, slots=True)
class _Number:
    value: float
    stderr: float | None


_Numbers = dict[tuple[str, ...], _Number]
"""("crows-pairs",), or (WinoBias' type, "pro" or "anti", the prompt)."""


def _collected(
    results: "EvaluationResult | pa.Table | Iterable[EvaluationResult | pa.Table]",
) -> dict[_Key, _Numbers]:
    several = [results] if isinstance(results, (EvaluationResult, pa.Table)) else results
    if not isinstance(several, Iterable) or isinstance(several, str):
        raise ArgumentError(f"results are EvaluationResults or their tables, got {results!r}")
    found: dict[_Key, _Numbers] = {}
    for each in several:
        table = each.table if isinstance(each, EvaluationResult) else each
        if not isinstance(table, pa.Table):
            raise ArgumentError(f"results are EvaluationResults or their tables, got {each!r}")
        for key, measure, number in _numbers(table):
            of_key = found.setdefault(key, {})
            if measure in of_key:
                variant = f" ({key.variant})" if key.variant else ""
                raise ArgumentError(
                    f"two results have {' '.join(measure)} of {key.model}{variant} at step "
                    f"{key.step}: give one of them"
                )
            of_key[measure] = number
    return found


def _numbers(table: pa.Table) -> list[tuple[_Key, tuple[str, ...], _Number]]:
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise ArgumentError(
            f"a table of evaluations has the columns {', '.join(_NEEDED)}; this one has no "
            f"{missing[0]!r}"
        )
    optional = [n for n in ("variant", "prompt", "status", "filter") if n in table.column_names]
    found = []
    bases: dict[str, tuple[str, str | None]] = {}
    for row in table.select([*_NEEDED, *optional]).to_pylist():
        measure = _measure(row)
        usable = row["value"] is not None and math.isfinite(row["value"])
        if measure is None or not usable or row.get("status") not in (None, "ok"):
            continue
        error = row["stderr"]
        number = _Number(
            row["value"], error if error is not None and math.isfinite(error) else None
        )
        name = row["model"]
        base, variant = bases[name] = bases.get(name) or _base(name)
        found.append((_Key(base, variant or row.get("variant"), row["step"]), measure, number))
    return found


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


def _chosen(found: dict[_Key, _Numbers], models: Sequence[str]) -> dict[_Key, _Numbers]:
    names = [models] if isinstance(models, str) else list(models)
    there = sorted({key.model for key in found})
    for name in names:
        if name not in there:
            raise ArgumentError(f"the results have {nearest('model', name, there)}")
    return {key: numbers for key, numbers in found.items() if key.model in names}


def _order(key: _Key) -> tuple[str, str, int]:
    return key.model, key.variant or "", key.step


def _measures(key: _Key, numbers: _Numbers, wide: float) -> list[dict[str, Any]]:
    """The rows of one checkpoint: one for each measure that it has all of."""
    own = {"model": key.model, "variant": key.variant, "step": key.step}
    rows: list[dict[str, Any]] = []
    if (CROWS,) in numbers:
        rows.append(own | {"measure": CROWS} | _interval(numbers[(CROWS,)], wide))
    tasks = {(kind, side) for kind in TYPES for side in ("pro", "anti")}
    asked = {task: {name[2] for name in numbers if name[:2] == task} for task in tasks}
    means: dict[str, tuple[_Number, _Number]] = {}
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


def _pair(pro: _Number, anti: _Number, wide: float) -> dict[str, Any]:
    error = _independent(pro, anti)
    bias = _Number(pro.value - anti.value, error)
    accuracy = {
        "accuracy": (pro.value + anti.value) / 2,
        "accuracy_stderr": None if error is None else error / 2,
    }
    return _interval(bias, wide) | {"pro": pro.value, "anti": anti.value} | accuracy


def _interval(number: _Number, wide: float) -> dict[str, Any]:
    value, error = number.value, number.stderr
    ends = (None, None) if error is None else (value - wide * error, value + wide * error)
    return {"value": value, "stderr": error, "low": ends[0], "high": ends[1]}


def _same_sentences(numbers: Sequence[_Number]) -> _Number:
    """Their mean, as uncertain as one of them is on the average."""
    errors = [number.stderr for number in numbers if number.stderr is not None]
    error = math.sqrt(math.fsum(e * e for e in errors) / len(errors)) if errors else None
    known = len(errors) == len(numbers)
    value = math.fsum(number.value for number in numbers) / len(numbers)
    return _Number(value, error if known else None)


def _mean(numbers: Sequence[_Number]) -> _Number:
    """The mean of two independent ones."""
    first, second = numbers
    error = _independent(first, second)
    return _Number((first.value + second.value) / 2, None if error is None else error / 2)


def _independent(first: _Number, second: _Number) -> float | None:
    """The error of the sum or the difference."""
    if first.stderr is None or second.stderr is None:
        return None
    return math.hypot(first.stderr, second.stderr)


def _effects(rows: Sequence[Mapping[str, Any]], normal: Any) -> list[dict[str, Any]]:
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
        error = _independent(*(_Number(each["value"], each["stderr"]) for each in (row, base)))
        z = difference / error if error else None
        found.append(
            {name: row[name] for name in ("model", "variant", "step", "measure")}
            | {"base": base["value"], "intervened": row["value"], "difference": difference}
            | {"stderr": error, "z": z}
            | {"p": None if z is None else float(2 * normal.sf(abs(z)))}
        )
    return found


def _summary(table: pa.Table, effects: pa.Table) -> dict[str, float | int | str]:
    if not len(table):
        return {
            "rows": 0,
            "note": f"neither {_CROWS_TASK} ({_CROWS_METRIC}) nor wino_bias_type… (em) is in the "
            "results",
        }
    summary: dict[str, float | int | str] = {
        "models": len(set(table["model"].to_pylist())),
        "steps": len(set(table["step"].to_pylist())),
    }
    last: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for row in effects.to_pylist():
        if row["measure"] in (CROWS, "winobias"):
            last[row["model"], row["variant"], row["measure"]] = row
    for (model, variant, measure), row in last.items():
        error = "" if row["stderr"] is None else f" ± {row['stderr']:.3f}"
        summary[f"{measure}, {model}, {variant} minus base at step {row['step']:,}"] = (
            f"{row['difference']:+.3f}{error}"
        )
    return summary
