"""Metrics of one sweep that share the scores of a batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pythia_fast
from pythia_fast.metrics import Memorization, Perplexity
from pythia_fast.runs.measure import together
from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series


class Counting:
    """Counts what a model is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, int] = {"nll": 0, "score": 0}
        for name in self.calls:
            monkeypatch.setattr(pythia_fast.Model, name, self._counted(name))

    def _counted(self, name: str):
        real = getattr(pythia_fast.Model, name)

        def call(model, *args, **kwargs):
            self.calls[name] += 1
            return real(model, *args, **kwargs)

        return call


FLAGS = Memorization(prompt=8, continuation=8)


def run(series: Path, ids: np.ndarray, out: Path, *metrics: object) -> pythia_fast.SweepResult:
    return pythia_fast.sweep(
        series, [8, 16], tokens=ids, metrics=metrics, out=out, sequences=len(ids), progress=False
    )


def test_together_gives_what_each_gives_alone(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tiny_ids[:, : FLAGS.max_tokens]
    counting = Counting(monkeypatch)
    both = run(tiny_series, ids, tmp_path / "both", Perplexity(per_token=True), FLAGS).sequences
    assert counting.calls == {"nll": 0, "score": 2}  # a step each
    for metric in (Perplexity(per_token=True), FLAGS):
        alone = run(tiny_series, ids, tmp_path / metric.name, metric).sequences
        shared = (set(alone.column_names) & set(both.column_names)) - {"nonfinite"}  # the first's
        assert len(shared) >= 5
        for column in shared:
            assert both[column].combine_chunks() == alone[column].combine_chunks(), column


def test_a_much_shorter_look_goes_on_its_own(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_ids.shape[1] > 2 * FLAGS.max_tokens
    counting = Counting(monkeypatch)
    run(tiny_series, tiny_ids, tmp_path / "run", Perplexity(), FLAGS)
    assert counting.calls["nll"] == 2


def test_deterministic_values_are_not_shared_where_torch_computes(
    tiny: Architecture, tiny_ids: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch may multiply differently for a loss than for all scores: a metric's values are its own,
    whichever others are asked for."""
    ids = tiny_ids[:2, : FLAGS.max_tokens]
    counting = Counting(monkeypatch)
    for name, width, calls in (("native", 64, 0), ("torch", 60, 2)):
        series = make_series(tmp_path / name, replace(tiny, width=width), (0,))
        pythia_fast.sweep(
            series, tokens=ids, metrics=[Perplexity(), FLAGS], deterministic=True, progress=False
        )
        assert counting.calls["nll"] == calls


def test_a_step_half_done_is_finished_alone(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path
) -> None:
    ids = tiny_ids[:, : FLAGS.max_tokens]
    whole = run(tiny_series, ids, tmp_path / "run", Perplexity(), FLAGS).table
    (part,) = (tmp_path / "run" / "parts" / "step=8").glob("memorization-*.parquet")
    part.unlink()
    again = run(tiny_series, ids, tmp_path / "run", Perplexity(), FLAGS).table
    assert again.select(["step", "metric", "value"]) == whole.select(["step", "metric", "value"])


def test_who_shares() -> None:
    class Own:
        name = "own"

    own, perplexity = Own(), Perplexity()
    same, longer = np.full(4, FLAGS.max_tokens), np.full(4, 10 * FLAGS.max_tokens)
    assert together([perplexity, own, FLAGS], same) == [(perplexity, FLAGS), (own,)]
    assert together([perplexity, own, FLAGS], longer) == [(perplexity,), (own,), (FLAGS,)]
    assert together([own, perplexity], same) == [(own,), (perplexity,)]
