"""Some columns of a run, step by step and shard by shard."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest

import pythia_fast
from pythia_fast.errors import ArgumentError, FormatError

Sweep = Callable[..., pythia_fast.SweepResult]
METRICS = ["perplexity", "memorization", "memorization-score"]


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of ten sequences."""
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 10)


@pytest.mark.usefixtures("few_at_a_time")
def test_they_are_those_of_the_sequences(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0, 4, 16], metrics=METRICS)
    columns = result.columns(["margin", "nll", "memorized", "no such"])
    assert columns.names == ("margin", "nll", "memorized")
    assert columns.steps == (0, 4, 16)
    every = result.sequences
    for step in columns.steps:
        own = every.filter(np.asarray(every["step"]) == step)
        found = columns.of_step(step)
        assert found.column_names == ["sequence", "margin", "nll", "memorized"]
        assert found.equals(own.select(found.column_names))
    shards = list(columns.shards([4, 16]))
    assert [len(tables[4]) for tables in shards] == [10, 10, 4]
    assert all(list(tables) == [4, 16] for tables in shards)
    rows = [row for tables in shards for row in tables[16]["nll"].to_pylist()]
    assert rows == columns.of_step(16)["nll"].to_pylist()
    sequences = [row for table in columns.sequences() for row in table["sequence"].to_pylist()]
    assert sequences == list(range(24))


def test_only_complete_steps_with_all_columns(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0, 4, 16], metrics=METRICS)
    for part in (result.path / "parts/step=4").glob("memorization-0*"):
        part.unlink()
    columns = pythia_fast.SweepResult(result.path).columns(["nll", "memorized"])
    assert columns.steps == (0, 4, 16), "memorization-score has the flags too"
    for part in (result.path / "parts/step=4").glob("memorization-*"):
        part.unlink()
    again = pythia_fast.SweepResult(result.path)
    assert again.columns(["nll", "memorized"]).steps == (0, 16)
    assert again.columns(["nll"]).steps == (0, 4, 16)
    assert again.columns(["nll"], steps=[16, 1]).steps == (16,)
    assert again.columns(["no such"]).steps == again.columns(["no such"]).names == ()
    assert list(again.columns(["no such"]).shards()) == []
    everything = again.columns(["sequence"])
    assert everything.steps == (0, 4, 16)
    assert everything.of_step(4)["sequence"].to_pylist() == list(range(24))


def test_a_step_that_is_not_there_is_told(small_sweep: Sweep) -> None:
    columns = small_sweep(steps=[0, 4]).columns(["nll", "tokens"])
    with pytest.raises(
        ArgumentError, match=r"step 1 of .*run is not complete with nll, tokens; there are 0"
    ):
        columns.of_step(1)
    with pytest.raises(ArgumentError, match=r"step 8 of .*run is not complete"):
        list(columns.shards([0, 8]))
    with pytest.raises(ArgumentError, match=r"step 0 of .*run is not complete; there are none"):
        small_sweep(steps=[0, 4]).columns(["no such"]).of_step(0)


class Changing:
    """A column that a metric gives at some steps only, of integers, of floats or of nothing."""

    name = "changing"
    settings: ClassVar[dict] = {}

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
        values = [int(row) if row < 10 else 0.5 if row < 20 else None for row in batch.rows_B]
        if model.step == 1:
            return {"other": values}
        if model.step == 2:
            return {"odd": values, "other": values}
        return {"odd": values} if batch.rows_B[0] < 20 else {"other": values}


@pytest.mark.usefixtures("few_at_a_time")
def test_a_column_may_be_missing_at_some_steps_and_change_its_kind(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[1, 2, 4], metrics=["perplexity", Changing()])
    wanted = [*map(float, range(10)), *[0.5] * 10, *[None] * 4]
    assert result.columns(["odd"]).steps == (2, 4)
    assert result.columns(["other"]).steps == (1, 2)
    assert result.columns(["nll", "odd", "other"]).steps == (2,)
    for step in (2, 4):
        found = result.columns(["odd"]).of_step(step)
        assert found["odd"].to_pylist() == wanted
    assert [len(tables[4]) for tables in result.columns(["odd"]).shards()] == [10, 10, 4]


def test_steps_over_other_sequences_are_no_shards(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("plan", "work"):
        monkeypatch.setattr(
            f"pythia_fast.runs.{module}.chosen_rows",
            lambda sequences, step, spec, rows: range(step),
        )
    columns = small_sweep(sequences="seen", steps=[0, 1, 4]).columns(["nll"])
    assert columns.steps == (1, 4), "of no sequences nothing is known"
    assert len(columns.of_step(4)) == 4
    with pytest.raises(ArgumentError, match=r"the steps of .*run look at different sequences"):
        list(columns.shards())


def test_a_damaged_part_is_told(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[4])
    columns = result.columns(["nll"])
    part = result.path / "parts/step=4/perplexity-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(FormatError, match="computes it again"):
        columns.of_step(4)
