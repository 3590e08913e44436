"""Gender bias over training, and what the suite's intervention on pronouns did to it.

The case study of arXiv:2304.01373, section 4.1: CrowS-Pairs, English, gender (in which share of
pairs of sentences the model finds the stereotyped one likelier; 0.5 is no bias) and WinoBias (how
much more often the model resolves a pronoun by its stereotype than against it; 0 is no bias).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa

from pythia_fast.analysis.gender_figure import draw_bias
from pythia_fast.analysis.gender_measures import EFFECTS, TABLE, effects, measures
from pythia_fast.analysis.gender_numbers import (
    CROWS,
    NEEDED,
    Collected,
    Key,
    Numbers,
    collected,
)
from pythia_fast.analysis.study import Study
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation import EvaluationResult
from pythia_fast.extras import require
from pythia_fast.metrics.intervals import check_level
from pythia_fast.plots import StepAxis
from pythia_fast.words import nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    rather than too small), by it `z` and the two-sided `p`, and `p_holm`, corrected for the number
    of effects (Holm). `figure()`: the bias over the steps, and the accuracy, on the axis
    `steps_axis`, in a column for each of the first four models, intervened ones before others.

    Rows whose status is another than "ok" and values that are not finite are left out, and counted
    in the summary. ArgumentError for other results, models, level or axis, for two results for the
    same thing, and if nothing is left.
    """
    check_level(level)
    if steps_axis not in get_args(StepAxis):
        raise ArgumentError(f"the axis of the steps is 'log' or 'linear', not {steps_axis!r}")
    normal = require("scipy.stats").norm
    found = collected(results)
    numbers = found.numbers if models is None else _chosen(found.numbers, models)
    wide = float(normal.ppf((1 + level) / 2))
    rows = [row for key in sorted(numbers, key=_order) for row in measures(key, numbers[key], wide)]
    if not rows:
        raise ArgumentError(_nothing(found))
    table = pa.Table.from_pylist(rows, schema=TABLE)
    beside = pa.Table.from_pylist(effects(rows, normal), schema=EFFECTS)

    def draw(table: pa.Table) -> "Figure":
        return draw_bias(table, steps_axis)

    summary = _summary(table, beside, found)
    return Study("gender bias", table, summary, draw, {"effects": beside})


def _chosen(found: dict[Key, Numbers], models: Sequence[str]) -> dict[Key, Numbers]:
    names = [models] if isinstance(models, str) else models
    if not isinstance(names, Iterable):
        raise ArgumentError(f"models are names of base models, got {models!r}")
    names = list(names)
    there = sorted({key.model for key in found})
    for name in names:
        if name not in there:
            raise ArgumentError(f"the results have {nearest('model', str(name), there)}")
    return {key: numbers for key, numbers in found.items() if key.model in names}


def _order(key: Key) -> tuple[str, str, int]:
    return key.model, key.variant or "", key.step


def _nothing(found: Collected) -> str:
    """Why there is no row."""
    some = "there are only some of WinoBias' four tasks" if found.numbers else "there is no row"
    left_out = f" ({_left_out(found)} left out)" if found.left_out else ""
    return f"{some} that can be used{left_out}: evaluate {NEEDED}"


def _left_out(found: Collected) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in found.left_out.most_common())


def _summary(table: pa.Table, beside: pa.Table, found: Collected) -> dict[str, float | int | str]:
    summary: dict[str, float | int | str] = {
        "models": len(set(table["model"].to_pylist())),
        "steps": len(set(table["step"].to_pylist())),
    }
    if found.left_out:
        summary["rows left out"] = _left_out(found)
    last: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for row in beside.to_pylist():
        if row["measure"] in (CROWS, "winobias"):
            last[row["model"], row["variant"], row["measure"]] = row
    for (model, variant, measure), row in last.items():
        error = "" if row["stderr"] is None else f", standard error {row['stderr']:.3f}"
        summary[f"{measure}, {model}, {variant} minus base at step {row['step']:,}"] = (
            f"{row['difference']:+.3f}{error}"
        )
    return summary
