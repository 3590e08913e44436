"""What an evaluation found, read from its folder."""

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, FormatError, MissingCheckpointError
from pythia_fast.evaluation.records import (
    read_result,
    read_samples,
    result_name,
)
from pythia_fast.evaluation.tidy import TIDY
from pythia_fast.extras import require
from pythia_fast.markup import html_arrow
from pythia_fast.metrics.intervals import check_level
from pythia_fast.plots import Line, StepAxis, curves
from pythia_fast.quantities import counted
from pythia_fast.runs.folder.parts import (
    EVALUATION,
    Failure,
    evaluated_steps,
    read_failures,
    read_run,
)
from pythia_fast.runs.results.gaps import Gap, find_gaps, known_steps
from pythia_fast.runs.results.shown import missing_words
from pythia_fast.tabular import Tabular
from pythia_fast.words import nearest

if TYPE_CHECKING:
    import matplotlib.figure

SCHEMA = pa.schema(
    [
        *TIDY,
        ("filter", pa.string()),
        ("n", pa.int64()),
        ("higher_is_better", pa.bool_()),
        ("task_version", pa.string()),
        ("status", pa.string()),
        ("duplicate_of", pa.int64()),
        ("commit", pa.string()),
        ("weights_sha256", pa.string()),
        ("dtype", pa.string()),
        ("device", pa.string()),
        ("harness_version", pa.string()),
        ("version", pa.string()),
    ]
)
_SHOWN = (*TIDY.names, "n", "status")  # in a notebook
_NO_FILTER = "none"


class EvaluationResult(Tabular):
    """The results in the folder of an evaluation: all of them, or those of some steps.

    MissingCheckpointError if `path` is no such folder, FormatError if it is one of another kind.

    Attributes:
        path: the folder.
        specification: what was evaluated, as plain JSON.
        failures: the steps that failed, each with its error, and have not been finished since.
    """

    def __init__(self, path: str | Path, *, steps: Iterable[int] | None = None) -> None:
        self.path = expanded(path).absolute()
        run = read_run(self.path)
        if run is None:
            raise MissingCheckpointError(f"{self.path} holds no run.json: it is no evaluation")
        self._hash = run["hash"]
        self.specification: dict[str, Any] = run["specification"]
        if self.specification.get("kind") != EVALUATION:
            raise FormatError(
                self.path / "run.json", "it is of a sweep, not of an evaluation: use SweepResult"
            )
        if not isinstance(self.specification.get("tasks"), dict):
            raise FormatError(self.path / "run.json", "it does not say what its tasks are")
        self._steps = None if steps is None else frozenset(steps)
        self.failures: tuple[Failure, ...] = tuple(
            failure
            for failure in read_failures(self.path)
            if self._asked(failure.step) and not (self.path / result_name(failure.step)).is_file()
        )

    @cached_property
    def results(self) -> Mapping[int, dict[str, Any]]:
        """Each step's results in the harness's own format, as in the folder.

        Under "pythia_fast" is where they are from. FormatError if a file is damaged, or of another
        run.
        """
        found = {}
        for step in filter(self._asked, evaluated_steps(self.path)):
            record = read_result(self.path, step, self._hash)
            if record is not None:
                found[step] = record
        return found

    @cached_property
    def table(self) -> pa.Table:
        """One row for each step, task and metric, by step.

        The columns of `TIDY`; `metric` is the harness's name ("acc"), with its filter behind it
        where that is not "none" ("exact_match,strict-match"). Then `filter`, `n` (documents),
        `higher_is_better`, `task_version`, `status` ("ok", or "non-finite" if a weight or the value
        is NaN or infinite), `duplicate_of` (the step with the same weights, of which the values
        are), and where the row is from: `commit`, `weights_sha256`, `dtype`, `device`,
        `harness_version`, `version`. Groups such as "mmlu" are tasks too.
        """
        rows = [row for record in self.results.values() for row in _rows(record)]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def samples(self, step: int, task: str) -> list[dict[str, Any]]:
        """Every document of a task with its requests and answers, as the harness logs them.

        ArgumentError if they were not kept: `log_samples` keeps them; FormatError if the file is
        damaged. Of steps with the same weights all give those of the first.
        """
        record = self.results.get(step)
        name = None if record is None else record["pythia_fast"].get("samples", {}).get(task)
        if name is None:
            raise ArgumentError(
                f"{self.path} has no samples of {task!r} at step {step}: evaluate with "
                "log_samples=True keeps them"
            )
        return read_samples(self.path / name)

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """Steps that were asked for, or begun, and have no results, each with the reason.

        All tasks of a step come together: a gap's `metric` is "evaluation".
        """
        known = known_steps(self.path, self.failures) if self._steps is None else self._steps
        done = {(step, EVALUATION) for step in self.results}
        return find_gaps(known, [EVALUATION], dict.fromkeys(done, (1, 1)), self.failures, {})

    def curve(
        self, task: str | None = None, metric: str | None = None, *, level: float | None = 0.95
    ) -> Line:
        """A task's metric over the steps, as a line to be drawn; the first of each by default.

        Its band is the interval of `level` by the harness's standard errors (normal), none with
        None; `gaps` break it. ArgumentError for a task or metric that is not there; the nearest are
        named. Without any results only the gaps are on it, whatever was asked for.
        """
        if level is not None:
            check_level(level)
        if self.gaps and not self.results:
            model = str(self.specification.get("model", ""))
            return Line(model, [], [], gaps=[gap.step for gap in self.gaps])
        task, metric = self.chosen(task, metric)
        every = self.table.select(["model", "step", "task", "metric", "value", "stderr"])
        rows = [
            row
            for row in every.to_pylist()
            if row["task"] == task and row["metric"] == metric and row["value"] is not None
        ]
        reach = 0.0 if level is None else float(require("scipy.stats").norm.ppf((1 + level) / 2))
        errors = [None if level is None else row["stderr"] for row in rows]
        ends = [math.nan if error is None else reach * error for error in errors]
        values = [row["value"] for row in rows]
        return Line(
            label=str(rows[0]["model"]),
            steps=[row["step"] for row in rows],
            values=values,
            low=[value - end for value, end in zip(values, ends, strict=True)],
            high=[value + end for value, end in zip(values, ends, strict=True)],
            gaps=[gap.step for gap in self.gaps],
        )

    def plot(
        self,
        task: str | None = None,
        metric: str | None = None,
        *,
        steps: StepAxis = "log",
        level: float | None = 0.95,
    ) -> "matplotlib.figure.Figure":
        """A task's metric over the steps (extra: `analysis`); the first of each by default.

        With a band by the harness's standard errors, unless `level` is None. `steps` is "log" (with
        room for step 0) or "linear". ArgumentError for a task or metric that is not there; the
        nearest are named.
        """
        require("matplotlib")
        line = self.curve(task, metric, level=level)
        if not line.steps:
            return curves([line], task or next(iter(self.specification["tasks"])), steps=steps)
        return curves([line], ": ".join(self.chosen(task, metric)), steps=steps)

    def chosen(self, task: str | None, metric: str | None) -> tuple[str, str]:
        """The task and the metric asked for, or the first. ArgumentError."""
        rows = self.table.select(["task", "metric"]).to_pylist()
        if not rows:
            raise ArgumentError(f"{self.path} has no results yet, so there is nothing to plot")
        chosen = self._one_of("task", task, [row["task"] for row in rows])
        of_task = [row["metric"] for row in rows if row["task"] == chosen]
        return chosen, self._one_of("metric", metric, of_task)

    def _one_of(self, what: str, name: str | None, names: Iterable[str]) -> str:
        known = list(dict.fromkeys(names))
        if name is None:
            return known[0]
        if name not in known:
            raise ArgumentError(f"in the results of {self.path} is {nearest(what, name, known)}")
        return name

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        steps = list(self.results)
        span = f"{counted(len(steps), 'step')}, {steps[0]} to {steps[-1]}" if steps else "no steps"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        tasks = ", ".join(self.specification["tasks"])
        return f"<EvaluationResult {tasks}: {span}{failed}, in {self.path}>"

    def _repr_html_(self) -> str:
        title = f"{self!r}; {missing_words(self.gaps)}" if self.gaps else repr(self)
        return html_arrow(self.table, title=title, names=_SHOWN)

    def _asked(self, step: int) -> bool:
        return self._steps is None or step in self._steps


def _rows(record: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The rows of one step's results, in the harness's order."""
    origin = record["pythia_fast"]
    for task, numbers in record["results"].items():
        for key, value in numbers.items():
            name, comma, filtered = key.partition(",")
            if not comma or name.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            stderr = numbers.get(f"{name}_stderr,{filtered}")
            finite = math.isfinite(value) and not origin["weights_nonfinite"]
            counted = (
                record.get("n-samples", {})
                .get(task, {})
                .get("effective", numbers.get("sample_len"))
            )
            yield {
                "model": origin["model"],
                "step": origin["step"],
                "task": task,
                "metric": name if filtered == _NO_FILTER else key,
                "num_fewshot": record.get("n-shot", {}).get(task),
                "value": float(value),
                "stderr": float(stderr) if isinstance(stderr, (int, float)) else None,
                "filter": filtered,
                "n": counted,
                "higher_is_better": record.get("higher_is_better", {}).get(task, {}).get(name),
                "task_version": _text(record.get("versions", {}).get(task)),
                "status": "ok" if finite else "non-finite",
                "harness_version": record.get("lm_eval_version"),
            } | {
                key: origin[key]
                for key in (
                    *("duplicate_of", "commit", "weights_sha256", "dtype", "device", "version"),
                )
            }


def _text(version: object) -> str | None:
    return None if version is None else str(version)
