"""Steps with the same weights: the results of one are also those of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pythia_fast.errors import FormatError
from pythia_fast.runs.folder.run_folder import Parts, RunFolder
from pythia_fast.runs.job import DamagedTwinError, SweepJob
from pythia_fast.runs.origin import origin_of_twin
from pythia_fast.runs.plan import Plan, Unit
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps.todo import Todo
from pythia_fast.series import CheckpointSeries


def result_of_twin(folder: Parts, unit: Unit, first: int) -> tuple[Mapping[str, Any], pa.Table]:
    """Where the same unit of the step `first` is from, and its rows. DamagedTwinError."""
    there = replace(unit, step=first)
    try:
        return folder.origin(there), folder.table(there)
    except FormatError as error:
        raise DamagedTwinError(error) from error


def check_twin(folder: Parts, units: Sequence[Unit], first: int) -> None:
    """DamagedTwinError unless the results of all these units can be taken from `first`."""
    for unit in units:
        result_of_twin(folder, unit, first)


class Twins:
    """Gives a step the results of another with the same weights."""

    def __init__(
        self,
        series: CheckpointSeries,
        plan: Plan,
        folder: RunFolder,
        job: SweepJob,
        todo: Todo,
        progress: Progress,
    ) -> None:
        self._series, self._plan, self._folder = series, plan, folder
        self._job, self._todo, self._progress = job, todo, progress

    def publish(self, step: int, first: int) -> None:
        """Give `step` the results of `first`. DamagedTwinError if they cannot be read."""
        revision, sha256 = self._todo.revision(step), self._todo.weights_sha256(step, first)
        for unit in self._plan.units(step):
            if self._job.has(unit, sha256):
                continue
            there, table = result_of_twin(self._folder, unit, first)
            origin = origin_of_twin(
                there,
                step=step,
                commit=revision.commit,
                identity=revision.identity or self._series.identity(step),
                duplicate_of=first,
                remarks=self._todo.remarks(step),
            )
            self._folder.publish(unit, table, origin)
            self._progress.skip(self._plan.tokens_of(unit), unit.step)
        self._folder.forget_failure(step)
