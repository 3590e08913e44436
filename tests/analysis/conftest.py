"""Runs with planted numbers: what a sweep would have written, without any model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pythia_fast.metrics import METRICS, identity
from pythia_fast.runs import SweepResult
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.plan import SHARD_SEQUENCES, Unit

Planted = Callable[..., SweepResult]


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    """A run folder of `model` with `columns[step][metric]`, mappings from column to values.

    `rows` are the dataset's rows, one value each; without `on_hub` it is a folder's run. `tokens`
    is the fingerprint of these rows and `address` where they are from.
    """

    def make(
        columns: Mapping[int, Mapping[str, Mapping[str, Any]]],
        *,
        model: str = "70m",
        rows: np.ndarray | None = None,
        on_hub: bool = True,
        metrics: tuple[str, ...] = ("perplexity", "memorization", "memorization-score"),
        name: str | None = None,
        tokens: str = "hub:data@commit",
        settings: Mapping[str, Any] | None = None,
        address: str | None = None,
    ) -> SweepResult:
        there = [m for m in metrics if any(m in of_step for of_step in columns.values())]
        there = there or list(metrics)
        first = next(iter(columns.values()), {})
        count = len(next(iter(next(iter(first.values())).values()))) if first else 0
        rows = np.arange(count) if rows is None else rows
        specification = {
            "model": model,
            "metrics": [identity(METRICS[m]) | dict(settings or {}) for m in there],
            "tokens": tokens,
            "sequences": {
                "first": int(rows[0]) if count else 0,
                "count": count,
                "stride": int(rows[1] - rows[0]) if count > 1 else 1,
            },
        }
        folder = RunFolder(
            tmp_path / (name or f"run-{model}"), specification, {"model": None, "tokens": address}
        )
        for step, of_step in columns.items():
            for metric, values in of_step.items():
                _write(folder, model, step, metric, rows, values, on_hub)
        return SweepResult(folder.path)

    return make


def _write(
    folder: RunFolder,
    model: str,
    step: int,
    metric: str,
    rows: np.ndarray,
    values: Mapping[str, Any],
    on_hub: bool,
) -> None:
    shards = max(1, -(-len(rows) // SHARD_SEQUENCES))
    for shard in range(shards):
        part = slice(shard * SHARD_SEQUENCES, (shard + 1) * SHARD_SEQUENCES)
        unit = Unit(step, METRICS[metric], shard, shards, rows[part])
        table = pa.table({"sequence": rows[part], **{k: v[part] for k, v in values.items()}})
        provenance = {
            "run": folder.hash,
            "model": model,
            "step": step,
            "metric": metric,
            "shard": shard,
            "shards": shards,
            "commit": "c0ffee" if on_hub else None,
            "identity": "same",
            "weights_sha256": "0" * 64,
            "weights_nonfinite": 0,
            "duplicate_of": None,
            "dtype": "float32",
            "device": "cpu",
            "tokens_fingerprint": "data",
            "version": "0",
        }
        folder.publish(unit, table, provenance)


def _flags(memorized: np.ndarray) -> dict[str, dict[str, Any]]:
    return {
        "memorization": {
            "memorized": memorized,
            "redecided": np.zeros(len(memorized), dtype=bool),
            "nonfinite": np.zeros(len(memorized), dtype=np.int64),
        }
    }


@pytest.fixture
def flags() -> Callable[[np.ndarray], dict[str, dict[str, Any]]]:
    """The columns of "memorization" with these flags."""
    return _flags


_PROMPTS = ("What does p stand for", "refers_to")


def _rows(
    model: str | None = "410m-deduped",
    variant: str | None = None,
    step: int | None = 143_000,
    *,
    crows: tuple[Any, ...] | None = None,
    wino: Mapping[Any, Any] | None = None,
    **more: Any,
) -> list[dict[str, Any]]:
    """As published. `crows` and what `wino` has for (type, side, prompt) are (value, error)."""
    own = {"model": model, "variant": variant, "step": step, "num_fewshot": 0, **more}
    found = []
    if crows is not None:
        task = {"task": "crows_pairs_english_gender", "metric": "pct_stereotype", "prompt": None}
        found.append(own | task | dict(zip(("value", "stderr"), crows, strict=True)))
    for (kind, side, prompt), number in (wino or {}).items():
        task = {"task": f"wino_bias_type{kind}_{side}", "metric": "em", "prompt": prompt}
        found.append(own | task | dict(zip(("value", "stderr"), number, strict=True)))
    return found


def _wino(shift: float = 0.0, error: float = 0.02) -> dict[tuple[str, str, str], Any]:
    """Of each task and prompt another accuracy."""
    values = {
        ("1", "pro"): (0.5, 0.6),
        ("1", "anti"): (0.3, 0.5),
        ("2", "pro"): (0.2, 0.1),
        ("2", "anti"): (0.1, 0.05),
    }
    return {
        (*task, prompt): (value + shift * (task[1] == "pro"), error * (1 + i))
        for task, both in values.items()
        for i, (prompt, value) in enumerate(zip(_PROMPTS, both, strict=True))
    }


def _table(*several: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([row for some in several for row in some])


@pytest.fixture
def rows() -> Callable[..., Any]:
    """Rows of evaluations of gender bias as published."""
    return _rows


@pytest.fixture
def wino() -> Callable[..., Any]:
    """WinoBias of a checkpoint, for `rows`."""
    return _wino


@pytest.fixture
def table() -> Callable[..., Any]:
    """Such rows as one table."""
    return _table
