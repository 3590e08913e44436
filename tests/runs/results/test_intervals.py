"""Intervals of a run's values, and the lines that are drawn of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy import stats

import pythia_fast
from pythia_fast.errors import ArgumentError

Sweep = Callable[..., pythia_fast.SweepResult]


class Twos:
    """A metric that is always the same."""

    name = "twos"

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
        return {"twos": np.full(len(batch.rows_B), 2.0)}


def test_plot_gives_a_figure_with_a_band(small_sweep: Sweep, tmp_path: Path) -> None:
    result = small_sweep(metrics=["perplexity", "memorization"])
    figure = result.plot()
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    (axes,) = figure.axes
    assert axes.get_xscale() == "symlog"
    assert len(axes.collections) == 2
    band = axes.collections[0].get_paths()[0].vertices
    intervals = [row for row in result.intervals().to_pylist() if row["metric"] == "perplexity"]
    assert {row["low"] for row in intervals} <= set(band[:, 1])
    assert all(row["low"] < row["value"] < row["high"] for row in intervals)
    (plain,) = result.plot("memorization", steps="linear", level=None).axes
    assert plain.get_xscale() == "linear"
    assert not any(len(each.get_paths()) for each in plain.collections)


def test_intervals_are_those_of_the_sequences(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0, 8], metrics=["perplexity", "memorization", Twos()])
    table = result.intervals(0.9)
    names = ["model", "step", "metric", "value", "low", "high", "level", "sequences"]
    assert table.column_names == names
    rows = {(row["step"], row["metric"]): row for row in table.to_pylist()}
    assert [(row["step"], row["metric"], row["value"]) for row in table.to_pylist()] == [
        (row["step"], row["metric"], row["value"]) for row in result.table.to_pylist()
    ]
    some = result.sequences.filter(pc.equal(result.sequences["step"], 8))
    loss = some["nll"].to_numpy() / some["tokens"].to_numpy()  # of equal lengths: a plain mean
    wanted = np.exp(stats.t.interval(0.9, 23, loss.mean(), stats.sem(loss)))
    found = rows[8, "perplexity"]
    assert (found["low"], found["high"]) == pytest.approx(tuple(wanted), rel=1e-9)
    assert (rows[8, "memorization"]["low"], rows[8, "twos"]["low"]) == (0, 2)
    for level in (0, 1, 95):
        with pytest.raises(ArgumentError, match="between 0 and 1"):
            result.intervals(level)


def test_an_incomplete_run_is_drawn_with_its_gaps(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0, 1, 2, 4, 8])
    for step in (1, 8):
        shutil.rmtree(result.path / f"parts/step={step}")
    again = pythia_fast.SweepResult(result.path)
    (axes,) = again.plot().axes
    (marks,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(marks.get_xdata()) == [1, 8]
    assert np.isnan(axes.lines[0].get_ydata()).tolist() == [False, True, False, False, True]
    assert [text.get_text() for text in axes.texts] == ["\u00d7 2 steps are incomplete"]
    assert again.curve().gaps == [1, 8]


def test_an_empty_run_and_an_unknown_metric_say_so(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0, 1])
    with pytest.raises(
        ArgumentError,
        match=r"the run of .* in .*run has no metric 'perplexty'; near is perplexity",
    ):
        result.plot("perplexty")
    shutil.rmtree(result.path / "parts")
    with pytest.raises(ArgumentError, match="nothing to plot; incomplete: 2 steps of "):
        pythia_fast.SweepResult(result.path).plot()
