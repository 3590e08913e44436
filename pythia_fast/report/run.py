"""What the report asks of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa


class Lost(Protocol):
    """A step that failed, with its error."""

    @property
    def step(self) -> int:
        """The step."""

    @property
    def error(self) -> str:
        """The error's type."""

    @property
    def message(self) -> str:
        """Its words."""


class Missing(Protocol):
    """A step and metric that are not complete."""

    @property
    def step(self) -> int:
        """The step."""

    @property
    def metric(self) -> str:
        """The metric."""

    @property
    def reason(self) -> str:
        """Why it is not there."""


class Columns(Protocol):
    """Some of what is known of each sequence, step by step."""

    @property
    def names(self) -> Sequence[str]:
        """Those that exist at any step."""

    @property
    def steps(self) -> Sequence[int]:
        """The steps that have all of them."""

    def of_step(self, step: int) -> pa.Table:
        """`sequence` and the columns at one of `steps`."""


class Run(Protocol):
    """The results of one sweep, as `SweepResult` has them."""

    @property
    def path(self) -> Path:
        """The run folder."""

    @property
    def record(self) -> Mapping[str, Any]:
        """The `run.json`: specification, hash, versions, machine, command, sources."""

    @property
    def table(self) -> pa.Table:
        """One row for each step and metric."""

    @property
    def times(self) -> pa.Table:
        """Seconds by step and stage."""

    @property
    def remarks(self) -> Mapping[int, Sequence[str]]:
        """What is known to be odd with a step's files."""

    @property
    def failures(self) -> Sequence[Lost]:
        """The steps that failed."""

    @property
    def gaps(self) -> Sequence[Missing]:
        """The steps and metrics that are not complete."""

    def intervals(self, level: float) -> pa.Table:
        """`low` and `high` of each `step` and `metric`, null where there is no interval."""

    def columns(self, names: Sequence[str]) -> Columns:
        """What is known of each sequence, for each step that has all of `names` that exist."""
