"""What a sweep of several models found, each read from a run folder of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from tokenizers import Tokenizer

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, MissingCheckpointError
from pythia_fast.extras import require
from pythia_fast.metrics import Metric
from pythia_fast.plots import Line, StepAxis, curves
from pythia_fast.quantities import counted
from pythia_fast.runs.folder.parts import Failure, runs_in
from pythia_fast.runs.results.gaps import Gap
from pythia_fast.runs.results.result import SweepResult
from pythia_fast.runs.results.shown import runs_html
from pythia_fast.runs.results.tables import ORIGIN, result_table, stacked
from pythia_fast.tabular import Tabular
from pythia_fast.tokens import TokenDataset, TokenSource

if TYPE_CHECKING:
    import matplotlib.figure


class SweepResults(Mapping[str, SweepResult], Tabular):
    """The results of several models, by the model's name: `results["70m"]` is a `SweepResult`.

    Made of results, or of the folder that holds their run folders, as `sweep` makes it for several
    models with `out`, or of one that holds such folders; then the smallest model comes first.
    `metrics` are the objects of metrics that are not built in, for a folder's results.
    ArgumentError if there are none, or two are of models of the same name; MissingCheckpointError
    if the folder holds no runs.

    Attributes:
        path: the folder that holds the run folders, None where they have none of their own.
    """

    def __init__(
        self,
        runs: str | Path | Sequence[SweepResult],
        *,
        path: str | Path | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        if isinstance(runs, str | Path):
            path, runs = runs, _read(expanded(runs), metrics)
        self.path = None if path is None else expanded(path).absolute()
        if not runs:
            raise ArgumentError("no runs, so there are no results: give at least one")
        self._results: dict[str, SweepResult] = {}
        for run in runs:
            if run.model in self._results:
                raise ArgumentError(
                    f"{self._results[run.model].path} and {run.path} are both of {run.model}: "
                    "results of several models are known by the model's name"
                )
            self._results[run.model] = run

    def __getitem__(self, model: str) -> SweepResult:
        return self._results[model]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    @cached_property
    def table(self) -> pa.Table:
        """One row for each model, step and metric, in that order; see `SweepResult.table`."""
        return result_table([row for run in self.values() for row in run.table.to_pylist()])

    @cached_property
    def sequences(self) -> pa.Table:
        """One row for each model, step and sequence: `model`, and see `SweepResult.sequences`."""
        return self._stacked(lambda run: run.sequences)

    @cached_property
    def times(self) -> pa.Table:
        """Where the time went: one row for each model and step, see `SweepResult.times`."""
        return self._stacked(lambda run: run.times)

    @property
    def failures(self) -> dict[str, tuple[Failure, ...]]:
        """The steps that failed, of the models that have any."""
        return {name: run.failures for name, run in self.items() if run.failures}

    @property
    def gaps(self) -> dict[str, tuple[Gap, ...]]:
        """What was asked for but has no row in `table`, of the models that lack anything."""
        return {name: run.gaps for name, run in self.items() if run.gaps}

    @property
    def remarks(self) -> dict[str, dict[int, tuple[str, ...]]]:
        """What was known to be odd with steps' files, of the models of which anything was."""
        return {name: run.remarks for name, run in self.items() if run.remarks}

    def intervals(self, level: float = 0.95) -> pa.Table:
        """Confidence intervals of the values in `table`, see `SweepResult.intervals`."""
        return stacked([run.intervals(level) for run in self.values()])

    def curves(self, metric: str | None = None, *, level: float | None = 0.95) -> list[Line]:
        """The value of `metric` over the steps, a line for each model; see `SweepResult.curve`."""
        name = self.chosen_metric(metric)
        return [run.curve(name, level=level) for run in self.values()]

    def plot(
        self, metric: str | None = None, *, steps: StepAxis = "log", level: float | None = 0.95
    ) -> "matplotlib.figure.Figure":
        """All models' learning curves in one figure, see `SweepResult.plot` (extra: `analysis`)."""
        require("matplotlib")
        name = self.chosen_metric(metric)
        return curves(self.curves(name, level=level), name, steps=steps)

    def report(
        self,
        path: str | Path,
        *,
        tokens: TokenDataset | TokenSource | None = None,
        tokenizer: str | Path | Tokenizer | None = None,
        cache_dir: str | Path | None = None,
    ) -> Path:
        """Write all that is known of all models as one page (extra: `analysis`).

        See `pythia_fast.write_report` for the arguments and errors.
        """
        from pythia_fast.report import write_report

        runs = list(self.values())
        return write_report(runs, path, tokens=tokens, tokenizer=tokenizer, cache_dir=cache_dir)

    def chosen_metric(self, metric: str | None) -> str:
        """The name of a metric that all runs have, by default the first run's first.

        ArgumentError if a run lacks it.
        """
        first, *others = self.values()
        name = first.chosen_metric(metric)
        for run in others:
            run.chosen_metric(name)
        return name

    def __repr__(self) -> str:
        kept = "" if self.path is None else f", in {self.path}"
        failed = sum(map(len, self.failures.values()))
        return (
            f"<SweepResults {', '.join(self)}: {counted(len(self.table), 'row')}"
            f"{f', {failed} failed' if failed else ''}{kept}>"
        )

    def _repr_html_(self) -> str:
        found = [(name, run.table, run.gaps) for name, run in self.items()]
        return runs_html(self.table, found, title=repr(self), leave_out=ORIGIN)

    def _stacked(self, table_of: Callable[[SweepResult], pa.Table]) -> pa.Table:
        """The models' tables one after the other, with the model's name before all."""
        tables = []
        for name, run in self.items():
            table = table_of(run)
            names = pa.array([name] * len(table), pa.string())
            tables.append(table.add_column(0, "model", names))
        return stacked(tables, f"a metric of {' or '.join(self)}")


def _read(path: Path, metrics: Sequence[Metric]) -> list[SweepResult]:
    """The results of the runs in a folder, the smallest model first."""
    folders = runs_in(path)
    if not folders:
        missing = "" if path.exists() else ": it does not exist"
        raise MissingCheckpointError(f"{path} holds no run folders{missing}")
    return [SweepResult(each, metrics=metrics) for each in folders]
