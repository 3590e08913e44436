"""Some columns of a run, step by step and shard by shard."""

from collections.abc import Callable

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


def test_steps_over_other_sequences_are_no_shards(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("plan", "work"):
        monkeypatch.setattr(
            f"pythia_fast.runs.{module}.chosen_rows",
            lambda sequences, step, spec, rows: range(step),
        )
    columns = small_sweep(sequences="seen", steps=[1, 4]).columns(["nll"])
    assert len(columns.of_step(4)) == 4
    with pytest.raises(ArgumentError, match="different sequences"):
        list(columns.shards())


def test_a_damaged_part_is_told(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[4])
    columns = result.columns(["nll"])
    part = result.path / "parts/step=4/perplexity-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(FormatError, match="remove it"):
        columns.of_step(4)
