"""What the report asks of a run."""

from collections.abc import Container, Iterator, Mapping, Sequence
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
    """Some columns of a run's sequences, read shard by shard."""

    @property
    def steps(self) -> Sequence[int]:
        """The steps that have them."""

    def sequences(self) -> Iterator[pa.Table]:
        """The `sequence` of the first step's rows, shard after shard."""

    def shards(self, steps: Sequence[int] | None = None) -> Iterator[Mapping[int, pa.Table]]:
        """`sequence` and the columns, shard after shard, by step."""


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

    def columns(self, names: Sequence[str], steps: Container[int] | None = None) -> Columns:
        """Some columns of what is known of each sequence, the first metric's that has them."""
