"""What a sweep found, read from its run folder."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cached_property, reduce
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, FormatError, MissingCheckpointError
from pythia_fast.extras import require
from pythia_fast.metrics import METRICS, Metric, summarize
from pythia_fast.metrics.code import name_of
from pythia_fast.plots import Line, StepAxis, curves
from pythia_fast.quantities import counted
from pythia_fast.runs.folder.parts import (
    EVALUATION,
    Failure,
    no_run_words,
    read_failures,
    read_provenance,
    read_run,
)
from pythia_fast.runs.results.columns import Columns
from pythia_fast.runs.results.contents import Contents
from pythia_fast.runs.results.gaps import Gap, find_gaps, known_steps
from pythia_fast.runs.results.intervals import interval_table, line_of
from pythia_fast.runs.results.shown import run_html
from pythia_fast.runs.results.tables import (
    ORIGIN,
    checked_numbers,
    metric_words,
    result_table,
    side_by_side,
    stacked,
)
from pythia_fast.streaming.times import LoadTimes, times_table
from pythia_fast.tabular import Tabular
from pythia_fast.tokens import TokenDataset, TokenSource
from pythia_fast.words import nearest

if TYPE_CHECKING:
    import matplotlib.figure


class SweepResult(Tabular):
    """The results in a run folder: all of them, or those of some steps.

    `metrics` are the objects of metrics that are not built in; they sum up their steps by their
    own rule, without them a step is summed up by the mean of each column.

    The bytes of what is read are checked. A part that is damaged is named in a warning, once, and
    its step is one of `gaps`; all else is there. The same sweep puts it aside and computes it anew.

    Attributes:
        path: the run folder.
        record: its `run.json`: specification and hash; sources, versions, machine and command of
            whoever began it.
        specification: all that determines the values, as `run.json` has it.
        failures: the steps that failed, each with its error, and have not been finished since.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        steps: Iterable[int] | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        self.path = expanded(path).absolute()
        run = read_run(self.path)
        if run is None:
            raise MissingCheckpointError(no_run_words(self.path))
        if run["specification"].get("kind") == EVALUATION:
            raise FormatError(
                self.path / "run.json",
                "it is of an evaluation, not of a sweep: use EvaluationResult",
            )
        try:
            self._names = [str(metric["name"]) for metric in run["specification"]["metrics"]]
        except (KeyError, TypeError) as error:
            raise FormatError(self.path / "run.json", "its metrics have no names") from error
        self.record: Mapping[str, Any] = run
        self.specification: Mapping[str, Any] = run["specification"]
        self._hash = run["hash"]
        self._metrics = dict(METRICS) | {metric.name: metric for metric in metrics}
        self._steps = None if steps is None else frozenset(steps)
        records = run["specification"]["metrics"]
        own = {str(record["name"]): self._metric_of(record) for record in records}
        self._contents = Contents(self.path, self._hash, own, self._asked)
        self.failures: tuple[Failure, ...] = tuple(
            failure for failure in read_failures(self.path) if self._is_failed(failure.step)
        )

    def _metric_of(self, record: Mapping[str, Any]) -> Metric | None:
        """The metric of that name, unless the run's was of another class."""
        metric = self._metrics.get(record["name"])
        return metric if metric is not None and name_of(metric) == record.get("type") else None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the run's metrics."""
        return tuple(self._names)

    @property
    def model(self) -> str:
        """The model's name, or that of its folder."""
        return str(self.specification.get("model", ""))

    @cached_property
    def table(self) -> pa.Table:
        """One row for each step and metric, in that order.

        `model`, `step`, `metric`, `value` (the metric's headline number: perplexity, share
        memorized, mean score), the metric's other numbers (null for other metrics), `status`
        ("ok", or "non-finite" if a weight, a loss or the value is NaN or infinite), `sequences`,
        `duplicate_of` (the step with the same weights, from which the values are), and where the
        row is from: `commit`, `weights_sha256`, `dtype`, `device`, `tokens_fingerprint`,
        `version`. Steps of which a shard is missing are left out.
        """
        rows = []
        for step, name, origin, sequences in self._contents.each(self._names):
            whose = metric_words(name, self.path)
            numbers = checked_numbers(whose, summarize(self._metrics.get(name), sequences))
            value = next(iter(numbers.values()), None)  # None: no sequences, or only nulls
            finite = not origin["weights_nonfinite"] and not numbers.get("nonfinite")
            finite = finite and (value is None or math.isfinite(value))
            rows.append(
                {"model": origin["model"], "step": step, "metric": name}
                | {"value": None if value is None else float(value)}
                | numbers
                | {"status": "ok" if finite else "non-finite", "sequences": len(sequences)}
                | {"duplicate_of": origin["duplicate_of"]}
                | {key: origin[key] for key in ORIGIN}
            )
        return result_table(rows)

    @cached_property
    def sequences(self) -> pa.Table:
        """One row for each step and sequence: `step`, `sequence`, and the metrics' columns.

        Of built-in metrics: `nll` (nats, summed over the sequence), `tokens` (losses summed),
        `memorized`, `score`, `first_mismatch`, `margin`, `redecided`. A column that two metrics
        have is the first one's.
        """
        tables = []
        every = self._contents.each(self._names)
        for step, of_step in groupby(every, key=lambda each: each[0]):
            own = (sequences.replace_schema_metadata(None) for *_, sequences in of_step)
            table = reduce(side_by_side, own)
            tables.append(table.add_column(0, "step", pa.array(np.full(len(table), step))))
        return stacked(tables, f"a metric in {self.path}") if tables else pa.table({})

    def report(
        self,
        path: str | Path,
        *,
        tokens: TokenDataset | TokenSource | None = None,
        tokenizer: str | Path | Tokenizer | None = None,
        cache_dir: str | Path | None = None,
    ) -> Path:
        """Write all that is known as one page that opens from the disk (extra: `analysis`).

        See `pythia_fast.write_report`, which takes several runs, for the arguments and errors.
        """
        from pythia_fast.report import write_report

        return write_report([self], path, tokens=tokens, tokenizer=tokenizer, cache_dir=cache_dir)

    def columns(self, names: Sequence[str], steps: Container[int] | None = None) -> "Columns":
        """Some columns of `sequences`, step by step or shard by shard, for very many sequences.

        Its steps are those that have all of the `names` that there are at any step: not each metric
        is complete at each step, or gives the same columns there.
        """
        complete = self._contents.complete()
        if steps is not None:
            complete = [each for each in complete if each[0] in steps]
        return Columns(self.path, complete, names)

    @cached_property
    def times(self) -> pa.Table:
        """Where the time went: one row for each step, in seconds.

        `download_s` (side by side with other steps), `room_s` (before it, waiting for room in the
        disk budget), `verify_s`, `open_s` (until the files were there, for the reader), `read_s`
        (into memory), `copy_s` (to a GPU), `compute_s` (all metrics), `wait_s` (computing had
        nothing to do), and `received_bytes`. Stages overlap, also of different steps. Of a step
        that several processes worked on it is the sum; one that took another's results took none.
        """
        compute_s: dict[int, float] = {}
        loads: dict[int, set[LoadTimes]] = {}
        for step, _, _, parts in self._contents.complete():
            for part in parts:
                origin = read_provenance(part)
                compute_s[step] = compute_s.get(step, 0.0) + origin.get("compute_s", 0.0)
                loads.setdefault(step, set()).add(LoadTimes.from_provenance(origin))
        return times_table(compute_s, loads)

    @cached_property
    def remarks(self) -> dict[int, tuple[str, ...]]:
        """What was known to be odd with a step's files when it was computed, with the address.

        Steps of which nothing is known are left out.
        """
        return {
            step: tuple(map(str, origin["remarks"]))
            for step, _, origin, _ in self._contents.complete()
            if origin.get("remarks")
        }

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """Steps × metrics that were asked for but have no row in `table`, each with the reason.

        With `steps` given these are looked at, else all that the folder knows of. A run that a
        version before this was made with, from local files, does not know of steps not begun.
        """
        steps = known_steps(self.path, self.failures) if self._steps is None else self._steps
        shards, damaged = self._contents.shards(), self._contents.damaged()
        return find_gaps(steps, self._names, shards, self.failures, damaged)

    def intervals(self, level: float = 0.95) -> pa.Table:
        """Confidence intervals of the values in `table`, over the sequences (extra: `analysis`).

        `model`, `step`, `metric`, `value`, `low`, `high` (null where there is none, see
        `metrics.intervals`), `level` and `sequences`. They say how far a value might lie from that
        of all sequences of which these are a sample. ArgumentError unless 0 < level < 1.
        """
        return interval_table(self._contents.each(self._names), self._metrics, level)

    def curve(self, metric: str | None = None, *, level: float | None = 0.95) -> Line:
        """The value of `metric` (None: the first) over the steps, as a line to be drawn.

        Its band are `intervals`, none with `level` None; its gaps are the steps that are not
        complete. ArgumentError if the run has no such metric.
        """
        name = self.chosen_metric(metric)
        table = interval_table(self._contents.each([name]), self._metrics, level)
        gaps = [gap.step for gap in self.gaps if gap.metric == name]
        return line_of(table, gaps, self.model)

    def plot(
        self, metric: str | None = None, *, steps: StepAxis = "log", level: float | None = 0.95
    ) -> "matplotlib.figure.Figure":
        """The value of `metric` (the first by default) over the steps (extra: `analysis`).

        With a band, the confidence interval over the sequences, unless `level` is None. `steps` is
        "log" (with room for step 0) or "linear". Steps that are not complete are marked, and no
        line leads across them. ArgumentError for a metric that the run does not have, which names
        the nearest, and if no step is complete.
        """
        require("matplotlib")
        return curves([self.curve(metric, level=level)], self.chosen_metric(metric), steps=steps)

    def chosen_metric(self, metric: str | None) -> str:
        """The name of one of the run's metrics, the first for None, in whatever case it is given.

        ArgumentError if it is none.
        """
        if metric is None:
            return self._names[0]
        if metric in self._names:
            return metric
        alike = [name for name in self._names if name.lower() == str(metric).strip().lower()]
        if len(alike) != 1:
            known = nearest("metric", metric, self._names)
            raise ArgumentError(f"the run of {self.model} in {self.path} has {known}")
        return alike[0]

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        try:
            steps = sorted({step for step, *_ in self._contents.complete()})
        except MissingCheckpointError as error:
            return f"<SweepResult {', '.join(self._names)}: {error}>"
        span = f"{counted(len(steps), 'step')}, {steps[0]} to {steps[-1]}" if steps else "no steps"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<SweepResult {', '.join(self._names)}: {span}{failed}, in {self.path}>"

    def _repr_html_(self) -> str:
        return run_html(self.table, self.gaps, title=repr(self), leave_out=ORIGIN)

    def _asked(self, step: int) -> bool:
        return self._steps is None or step in self._steps

    def _is_failed(self, step: int) -> bool:
        """Whether a step with a failure is incomplete: another process may have finished it."""
        return self._asked(step) and len(self._contents.complete(step)) < len(self._names)
