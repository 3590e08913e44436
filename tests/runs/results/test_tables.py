"""Metrics' columns and numbers put together, whatever kinds they are of."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

import pythia_fast
from pythia_fast.errors import ArgumentError, SweepError

Sweep = Callable[..., pythia_fast.SweepResult]


class OfEach:
    """A metric whose values are given."""

    name = "of-each"

    def __init__(self, value: float | None) -> None:
        self.value = value

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
        return {"of_each": pa.array([self.value] * len(batch.rows_B), pa.float64())}


@pytest.mark.parametrize(
    ("value", "status"),
    [(1.5, "ok"), (None, "ok"), (float("nan"), "non-finite"), (float("inf"), "non-finite")],
)
def test_the_status_tells_of_any_metric_that_is_not_finite(
    small_sweep: Sweep, value: float | None, status: str
) -> None:
    (row,) = small_sweep(metrics=[OfEach(value)], steps=[0]).table.to_pylist()
    assert row["status"] == status
    assert row["value"] == pytest.approx(value, nan_ok=True)


class Changing:
    """Integers in one step, floats or nothing in others, as lists from a user's own metric are."""

    name = "changing"

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
        value = {0: 1, 1: 1.5}.get(model.step or 0)
        return {"changing": [value] * len(batch.rows_B)}


def test_a_column_may_be_of_integers_in_one_step_and_of_floats_in_another(
    small_sweep: Sweep,
) -> None:
    result = small_sweep(metrics=[Changing()], steps=[0, 1, 2])
    assert result.table["value"].to_pylist() == [1.0, 1.5, None]
    assert set(result.sequences["changing"].to_pylist()) == {1.0, 1.5, None}


class Odd:
    """Gives what it is told to, and sums it up as it is told to."""

    name = "odd"

    def __init__(self, columns: object, numbers: dict | None = None) -> None:
        self.columns, self.numbers = columns, numbers
        self.settings: dict = {}

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> object:
        return self.columns

    def summarize(self, sequences: pa.Table) -> dict:
        return self.numbers or {}


@pytest.mark.parametrize(
    "columns", [None, 1.0, {"a": 1.0}, {"a": np.zeros((24, 2))}, {1: np.zeros(24)}], ids=str
)
def test_what_is_not_one_value_a_sequence_is_told_with_the_metrics_name(
    small_sweep: Sweep, columns: object
) -> None:
    with pytest.raises(SweepError, match="the metric 'odd' gave"):
        small_sweep(metrics=[Odd(columns)])


@pytest.mark.parametrize("numbers", [{"step": 7.0}, {"a": 1.0, "value": 7.0}, {"a": "x"}], ids=str)
def test_a_summary_may_not_stand_in_for_the_tables_own_columns(
    small_sweep: Sweep, numbers: dict
) -> None:
    result = small_sweep(metrics=[Odd({"a": np.zeros(24)}, numbers)], steps=[0])
    with pytest.raises(ArgumentError, match="the metric 'odd'"):
        _ = result.table
