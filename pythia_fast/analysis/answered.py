"""How many arithmetic questions were answered right: from runs, and from published evaluations."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.analysis.arithmetic import METRIC, SECONDS, Questions
from pythia_fast.errors import ArgumentError
from pythia_fast.runs import SweepResult, SweepResults

_TASK = re.compile(r"num_reasoning_arithmetic_(multiplication|addition)_(\d{1,5})", re.ASCII)
_OPERATIONS = {"multiplication": "times", "addition": "plus"}
_NEEDED = ("model", "step", "task", "metric", "num_fewshot", "value")


class Answered(NamedTuple):
    """The questions with one first number: at a checkpoint, for an operation, after some shots."""

    model: str
    step: int
    operation: str
    shots: int
    first: int
    questions: int
    correct: int


class Answers(NamedTuple):
    """What results say: the questions, and how many rows of tables could not be used."""

    rows: list[Answered]
    left_out: int


def answered(
    results: "SweepResult | SweepResults | pa.Table | Iterable[SweepResult | pa.Table]",
) -> Answers:
    """All that there are. ArgumentError for results that hold no arithmetic, or are none."""
    several = [results] if isinstance(results, (SweepResult, pa.Table)) else results
    if isinstance(several, SweepResults):
        several = several.values()
    if not isinstance(several, Iterable):
        raise ArgumentError(f"results are SweepResults or tables of evaluations, got {results!r}")
    found: list[Answered] = []
    left_out = 0
    for each in several:
        if isinstance(each, SweepResult):
            found += _of_run(each)
        elif isinstance(each, pa.Table):
            usable, others = _usable(each)
            found += _of_table(usable)
            left_out += others
        else:
            raise ArgumentError(f"results are SweepResults or tables of evaluations, got {each!r}")
    return Answers(found, left_out)


def _of_run(result: SweepResult) -> Iterator[Answered]:
    metrics: list[Mapping[str, Any]] = result.specification.get("metrics", [])
    own = [metric for metric in metrics if metric["name"] == METRIC]
    if not own:
        names = ", ".join(str(metric["name"]) for metric in metrics)
        raise ArgumentError(
            f"{result.path} has no metric {METRIC!r}, but {names}: sweep the questions of "
            "`Questions`, as pythia-fast study arithmetic does"
        )
    questions = Questions.of_settings(own[0]["settings"])
    model = str(result.specification.get("model", result.path.name))
    columns = result.columns(("correct",))
    for step in columns.steps:
        table = columns.of_step(step)
        sums: dict[tuple[str, int, int], list[int]] = {}
        for row, correct in zip(
            table["sequence"].to_pylist(), table["correct"].to_pylist(), strict=True
        ):
            question = questions[row]
            key = (question.operation, question.shots, question.first)
            asked = sums.setdefault(key, [0, 0])
            asked[0] += 1
            asked[1] += correct
        for (operation, shots, first), (asked_count, right) in sums.items():
            yield Answered(model, step, operation, shots, first, asked_count, right)


def _usable(table: pa.Table) -> tuple[pa.Table, int]:
    """The rows of arithmetic that have a sound value, and how many have not."""
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise ArgumentError(
            f"a table of evaluations has the columns {', '.join(_NEEDED)}; this one has no "
            f"{missing[0]!r}"
        )
    arithmetic = pc.and_(
        pc.equal(table["metric"], "acc"),
        pc.starts_with(table["task"].cast(pa.string()), "num_reasoning_arithmetic_"),
    )
    table = table.filter(arithmetic)
    sound = pc.is_finite(table["value"])
    if "status" in table.column_names:
        sound = pc.and_(sound, pc.equal(table["status"], "ok"))
    kept = table.filter(sound)
    return kept, len(table) - len(kept)


def _of_table(table: pa.Table) -> Iterator[Answered]:
    """Published rows: the accuracy of 50 questions each."""
    found = 0
    for row in table.select(list(_NEEDED)).to_pylist():
        match = _TASK.fullmatch(row["task"] or "")
        if match is None:
            continue
        correct = row["value"] * len(SECONDS)
        if not np.isclose(correct, round(correct), atol=1e-6):
            raise ArgumentError(
                f"an accuracy of {row['value']} of {row['model']} in {row['task']} is not that of "
                f"{len(SECONDS)} questions"
            )
        found += 1
        yield Answered(
            *(row["model"], row["step"], _OPERATIONS[match[1]], row["num_fewshot"]),
            *(int(match[2]), len(SECONDS), round(correct)),
        )
    if not found:
        raise ArgumentError(
            "the table has no task num_reasoning_arithmetic_multiplication_… or …_addition_… with "
            "the metric acc"
        )
