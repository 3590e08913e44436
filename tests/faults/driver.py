"""A small sweep from a Hub on this machine, as a process that a test may kill, or call itself.

    python tests/faults/driver.py '{"endpoint": …, "cache": …, "out": …, "steps": […]}'

The checkpoints are those of `tiny()` under the name of a model of the suite: the Hub's code, and
nothing else, decides what is read.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np

from pythia_fast.runs import SweepResult, sweeping
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import STEPS, spec
from pythia_fast.testing import tiny

MODEL = spec("14m")
REPO = MODEL.repo
SHAPE = tiny()
IDS = np.random.default_rng(0).integers(0, SHAPE.vocab_rows, (6, 65), dtype=np.uint16)


def sweep(
    *,
    endpoint: str,
    cache: str | Path,
    out: str | Path,
    steps: Sequence[int],
    disk_budget: int | str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    metrics: Sequence[str] = ("perplexity", "memorization"),
    progress: bool = False,
) -> SweepResult:
    """The sweep, with a series of tiny checkpoints in the place of 14m's."""
    described = dataclasses.replace(MODEL, architecture=SHAPE, steps=STEPS)
    series = HubSeries(described, cache, endpoint=endpoint, disk_budget=disk_budget)
    with mock.patch.object(sweeping, "open_series", return_value=series):
        return sweeping.sweep(
            "14m",
            steps,
            tokens=IDS,
            metrics=list(metrics),
            out=out,
            on_error=on_error,
            dtype="float32",
            progress=progress,
        )


def values(result: SweepResult) -> list[dict[str, Any]]:
    """What must be the same however often the sweep was disturbed."""
    keys = "step", "metric", "value", "loss", "commit", "weights_sha256", "status", "duplicate_of"
    return [{key: row.get(key) for key in keys} for row in result.table.to_pylist()]


if __name__ == "__main__":
    print(json.dumps(values(sweep(**json.loads(sys.argv[1])))))
