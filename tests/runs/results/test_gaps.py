"""What a run folder lacks, and why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import pythia_fast
from pythia_fast.errors import FormatError, SweepInterruptedError

Sweep = Callable[..., pythia_fast.SweepResult]


def test_a_complete_run_has_no_gaps(small_sweep: Sweep) -> None:
    result = small_sweep(steps="all", metrics=["perplexity", "memorization"])
    assert result.gaps == pythia_fast.SweepResult(result.path).gaps == ()


def test_gaps_say_what_is_unfinished_not_begun_or_failed(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 10)
    result = small_sweep(steps=[0, 1, 2, 4], metrics=["perplexity", "memorization"])
    parts = result.path / "parts"
    (parts / "step=1/perplexity-00001.parquet").unlink()
    shutil.rmtree(parts / "step=2")
    shutil.rmtree(parts / "step=4")
    (result.path / "failures").mkdir()
    failure = {"error": "HubError", "message": "gone"}
    (result.path / "failures/step=4.json").write_text(json.dumps(failure))
    again = pythia_fast.SweepResult(result.path)
    assert [(gap.step, gap.metric, gap.reason) for gap in again.gaps] == [
        (1, "perplexity", "unfinished: 2 of 3 shards are there"),
        *((2, name, "not begun") for name in ("perplexity", "memorization")),
        *((4, name, "failed: HubError: gone") for name in ("perplexity", "memorization")),
    ]
    assert {gap.step for gap in pythia_fast.SweepResult(result.path, steps=[0, 2]).gaps} == {2}
    assert small_sweep(steps=[0, 1, 2, 4], metrics=["perplexity", "memorization"]).gaps == ()


def test_steps_of_an_interrupted_run_are_gaps(small_sweep: Sweep, tmp_path: Path) -> None:
    class Interrupting:
        name = "interrupting"
        calls = 0
        settings: ClassVar[dict] = {}

        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            if Interrupting.calls:
                raise KeyboardInterrupt
            Interrupting.calls += 1
            return {"one": np.ones(len(batch.rows_B))}

    with pytest.raises(SweepInterruptedError):
        small_sweep(steps=[0, 2, 8], metrics=[Interrupting()])
    result = pythia_fast.SweepResult(tmp_path / "run", metrics=[Interrupting()])
    assert result.table["step"].to_pylist() == [0]
    assert [(gap.step, gap.reason) for gap in result.gaps] == [(2, "not begun"), (8, "not begun")]


def test_a_record_of_steps_that_is_none_is_told(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0])
    (result.path / "asked/x.json").write_text('{"steps": [1.5]}')
    with pytest.raises(FormatError, match="remove it"):
        _ = pythia_fast.SweepResult(result.path).gaps
