"""What a sweep takes besides loading and computing: plan, run folder, results, progress.

154 checkpoints so small that loading them is nothing, and metrics that compute nothing but fill the
columns of perplexity and memorization. What such a sweep takes more than `stream`, which only loads
the same checkpoints, is its own.
"""

import io
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from comparison import Comparison, Effort, Ours

import pythia_fast
from pythia_fast.suite import STEPS
from pythia_fast.testing import make_series, tiny

SEQUENCES, TOKENS = 512, 64
SWEEP_S = 600.0
ROUND_S = 4.0
TARGET_PERCENT = 1.0

Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Losses:
    """The columns of perplexity, without a look at the model."""

    name: str = "losses"

    def __call__(self, _: pythia_fast.Model, batch: pythia_fast.Batch) -> Mapping[str, Column]:
        """Row i has i nats."""
        ones = np.ones(len(batch.rows_B), np.int64)
        return {"nll": batch.rows_B.astype(float), "tokens": ones, "nonfinite": ones - 1}


@dataclass(frozen=True, slots=True)
class Flags:
    """The columns of memorization, without a look at the model."""

    name: str = "flags"

    def __call__(self, _: pythia_fast.Model, batch: pythia_fast.Batch) -> Mapping[str, Column]:
        """Every other row is memorized."""
        odd = batch.rows_B % 2 == 1
        zeros = np.zeros(len(odd), np.int64)
        margin = zeros.astype(np.float32)
        return {
            "memorized": odd,
            "first_mismatch": zeros.astype(np.int32),
            "margin": margin,
            "redecided": ~odd,
            "nonfinite": zeros,
        }


class Terminal(io.StringIO):
    """Where a progress bar shows itself."""

    def isatty(self) -> bool:
        """As if somebody looked."""
        return True


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many checkpoints as Pythia has, of 116,480 weights each."""
    return make_series(tmp_path_factory.mktemp("tiny") / "tiny", tiny(), STEPS)


def test_what_a_sweep_takes_itself(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    series: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 154 steps 1% of ten minutes is 39 ms a step."""
    ids = np.random.default_rng(0).integers(0, 128, (SEQUENCES, TOKENS))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    runs = count()

    def sweep(out: Path, metrics: tuple[pythia_fast.Metric, ...]) -> pythia_fast.SweepResult:
        return pythia_fast.sweep(series, tokens=ids, metrics=metrics, out=out)

    def whole() -> pythia_fast.SweepResult:
        result = sweep(tmp_path / f"run{next(runs)}", (Losses(), Flags()))
        assert len(result.table) == 2 * len(STEPS)
        return result

    def stream() -> None:
        for _ in pythia_fast.stream(series):
            pass

    finished = whole()
    assert finished.table["step"].to_pylist() == [step for step in STEPS for _ in range(2)]
    assert set(finished.table["value"].to_pylist()) == {(SEQUENCES - 1) / 2, 0.5}
    assert len(finished.sequences) == SEQUENCES * len(STEPS)
    assert f"{len(STEPS)}/{len(STEPS)} checkpoints" in terminal.getvalue()

    case = f"{len(STEPS)} tiny checkpoints, {SEQUENCES} x {TOKENS} tokens, 2 metrics"
    ours = [
        Ours(f"{case}: sweep and its table", whole),
        Ours(f"{case}: the same call again", lambda: sweep(finished.path, (Losses(), Flags()))),
        Ours(f"{case}: open the run, table", lambda: pythia_fast.SweepResult(finished.path).table),
        Ours(
            f"{case}: open the run, sequences",
            lambda: pythia_fast.SweepResult(finished.path).sequences,
        ),
    ]
    nothing = "stream of the same checkpoints"
    rounds = effort.rounds(ROUND_S)
    comparison.run_all(benchmark, ours, {nothing: stream}, cache="page cache warm", rounds=rounds)
    row = next(row for row in comparison.rows if row["case"] == ours[0].case)
    for which in ("median", "max"):
        own_s = row[f"ours_{which}_s"] - row["peer_median_s"]
        comparison.note(
            f"{case}: the sweep's own share, {which}",
            {
                "own_s": own_s,
                "own_ms_per_step": 1e3 * own_s / len(STEPS),
                "percent_of_10_minutes": 100 * own_s / SWEEP_S,
                "target_percent": TARGET_PERCENT,
            },
        )
    comparison.note(
        "flush a new file of 4 kB and its folder to this disk, as each result is",
        {"median_ms": flush_ms(tmp_path), "results": 2 * len(STEPS)},
    )


def flush_ms(folder: Path) -> float:
    """What the disk itself takes to say that it has a small file: the median of 20."""
    elapsed_s = []
    for number in range(20):
        started = time.perf_counter()
        with (folder / f"flushed{number}").open("xb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)
        elapsed_s.append(time.perf_counter() - started)
    return 1e3 * statistics.median(elapsed_s)
