"""What a SweepResult shows of its folder."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

import pythia_fast
from pythia_fast.errors import (
    ArgumentError,
    FormatError,
    MissingCheckpointError,
    SweepError,
    SweepInterruptedError,
)
from pythia_fast.kernels.cpu import has_amx
from pythia_fast.tokens import write_tokens

Sweep = Callable[..., pythia_fast.SweepResult]


def test_a_row_says_where_it_is_from(small_sweep: Sweep) -> None:
    row = small_sweep(steps=[4]).table.to_pylist()[0]
    assert row["model"] == "tiny"
    assert row["step"] == 4
    assert row["metric"] == "perplexity"
    assert row["value"] == row["perplexity"]
    assert row["sequences"] == 24
    assert row["commit"] is None
    assert len(row["weights_sha256"]) == len(row["tokens_fingerprint"]) == 64
    assert row["dtype"] == ("split-bf16" if has_amx() else "float32")
    assert row["device"] == "cpu"
    assert row["version"] == pythia_fast.__version__


def test_the_table_as_frames(small_sweep: Sweep) -> None:
    result = small_sweep(metrics=["perplexity", "memorization"])
    pandas, polars = result.to_pandas(), result.to_polars()
    assert isinstance(pandas, pd.DataFrame)
    assert list(pandas["step"]) == polars["step"].to_list() == result.table["step"].to_pylist()
    assert pa.table(result).equals(result.table)
    assert pl.DataFrame(result).equals(polars)


def test_sequences_are_in_the_datasets_order(small_sweep: Sweep) -> None:
    result = small_sweep(sequences=slice(20, 3, -4), steps=[0, 8])
    assert result.sequences["sequence"].to_pylist() == [20, 16, 12, 8, 4] * 2
    assert result.sequences["step"].to_pylist() == [0] * 5 + [8] * 5


def test_opened_again_it_is_the_same(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0, 1], metrics=["perplexity", "memorization"])
    again = pythia_fast.SweepResult(result.path)
    assert again.table.equals(result.table)
    assert again.sequences.equals(result.sequences)
    assert repr(again) == repr(result)
    assert "2 steps, 0 to 1" in repr(result)
    assert len(result) == 4


def test_only_the_steps_asked_for(small_sweep: Sweep) -> None:
    small_sweep(steps="all")
    assert small_sweep(steps=[2]).table["step"].to_pylist() == [2]


def test_a_step_that_has_seen_nothing_has_no_numbers(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("plan", "work"):
        monkeypatch.setattr(
            f"pythia_fast.runs.{module}.chosen_rows",
            lambda sequences, step, spec, rows: range(step),
        )
    result = small_sweep(sequences="seen", steps=[0, 4], metrics=["perplexity", "memorization"])
    rows = [row for row in result.table.to_pylist() if row["step"] == 0]
    assert {(row["sequences"], row["value"], row["status"]) for row in rows} == {(0, None, "ok")}
    assert result.sequences["step"].to_pylist() == [4] * 4
    alone = small_sweep(sequences="seen", steps=[0], metrics=["perplexity", "memorization"])
    assert pa.types.is_floating(alone.table["value"].type)
    assert alone.to_pandas()["value"].isna().all()


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


def test_a_step_of_which_a_shard_is_missing_is_left_out(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 10)
    result = small_sweep(steps=[0, 1])
    assert len(result.sequences) == 48
    (result.path / "parts/step=1/perplexity-00001.parquet").unlink()
    assert pythia_fast.SweepResult(result.path).table["step"].to_pylist() == [0]
    assert small_sweep(steps=[0, 1]).sequences.equals(result.sequences)


def test_shards_do_not_change_the_numbers(
    small_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small_sweep()
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 7)
    sharded = small_sweep(out=tmp_path / "sharded")
    np.testing.assert_allclose(sharded.table["loss"], whole.table["loss"], rtol=1e-6)


def test_html_is_escaped(tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path) -> None:
    result = pythia_fast.sweep(
        tiny_series, [0], tokens=tiny_ids, out=tmp_path / "<script>", progress=False
    )
    assert "<script>" not in result._repr_html_()
    assert "&lt;script&gt;" in result._repr_html_()
    assert "perplexity" in result._repr_html_()


def test_a_missing_extra_is_named(small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    result = small_sweep(steps=[0])
    for package, extra in (("pandas", "pandas"), ("polars", "polars"), ("matplotlib", "analysis")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ArgumentError, match=rf"pip install 'pythia-fast\[{extra}\]'"):
            {"pandas": result.to_pandas, "polars": result.to_polars}.get(package, result.plot)()


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
    result = small_sweep(steps=[0, 8], metrics=["perplexity", "memorization", OfEach(2.0)])
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
    assert (rows[8, "memorization"]["low"], rows[8, "of-each"]["low"]) == (0, 2)
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
    with pytest.raises(ArgumentError, match="no metric 'perplexty'; it has perplexity"):
        result.plot("perplexty")
    shutil.rmtree(result.path / "parts")
    with pytest.raises(ArgumentError, match="nothing to plot: 2 steps are incomplete"):
        pythia_fast.SweepResult(result.path).plot()


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingCheckpointError, match="not a run folder"):
        pythia_fast.SweepResult(tmp_path)


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


@pytest.mark.parametrize(
    "place", ["parts", "parts/step=1", "parts/step=1/perplexity-00000.parquet"]
)
def test_symbolic_links_in_the_folder_are_not_followed(
    small_sweep: Sweep, tmp_path: Path, place: str
) -> None:
    run = small_sweep(steps=[0, 1]).path
    (run / place).rename(tmp_path / "elsewhere")
    (run / place).symlink_to(tmp_path / "elsewhere")
    expected = [] if place == "parts" else [0]
    assert pythia_fast.SweepResult(run).table["step"].to_pylist() == expected


def test_a_step_that_was_finished_after_all_has_not_failed(small_sweep: Sweep) -> None:
    """Of two processes one may keep its failure after the other has finished the step."""
    metrics = ["perplexity", "memorization"]
    run = small_sweep(steps=[0, 1], metrics=metrics).path
    for step in (0, 1, 2):
        path = run / f"failures/step={step}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"error": "HubError", "message": "cut"}')
    (run / "parts/step=1/memorization-00000.parquet").unlink()
    assert [each.step for each in pythia_fast.SweepResult(run).failures] == [1, 2]
    assert [each.step for each in pythia_fast.SweepResult(run, steps=[0, 2]).failures] == [2]


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
    class Interrupting(OfEach):
        calls = 0
        settings: ClassVar[dict] = {}

        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            if Interrupting.calls:
                raise KeyboardInterrupt
            Interrupting.calls += 1
            return super().__call__(model, batch)

    with pytest.raises(SweepInterruptedError):
        small_sweep(steps=[0, 2, 8], metrics=[Interrupting(1.0)])
    result = pythia_fast.SweepResult(tmp_path / "run", metrics=[Interrupting(1.0)])
    assert result.table["step"].to_pylist() == [0]
    assert [(gap.step, gap.reason) for gap in result.gaps] == [(2, "not begun"), (8, "not begun")]


def test_a_record_of_steps_that_is_none_is_told(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0])
    (result.path / "asked/x.json").write_text('{"steps": [1.5]}')
    with pytest.raises(FormatError, match="remove it"):
        _ = pythia_fast.SweepResult(result.path).gaps


def test_the_rows_of_a_step_are_those_of_all_steps(small_sweep: Sweep) -> None:
    result = small_sweep(metrics=["perplexity", "memorization"], steps=[0, 8])
    everything = result.sequences
    for step in (0, 8):
        wanted = everything.filter(np.array(everything["step"]) == step).drop_columns(["step"])
        assert result.sequences_of(step).equals(wanted)
        some = result.sequences_of(step, ["memorized", "nll", "no such column"])
        assert some.equals(wanted.select(["sequence", "nll", "memorized"]))
    assert len(result.sequences_of(4)) == 0


def test_the_run_says_where_model_and_tokens_were(
    small_sweep: Sweep, tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path
) -> None:
    result = small_sweep(steps=[0])
    assert result.record["sources"] == {"model": str(tiny_series), "tokens": None}
    write_tokens(tmp_path / "train", tiny_ids)
    pair = small_sweep(steps=[0], tokens=tmp_path / "train", out=tmp_path / "pair")
    assert pair.record["sources"]["tokens"] == str(tmp_path / "train.bin")
    assert pair.record["hash"] == result.record["hash"], "sources are no part of what is asked"


def test_a_report_is_written(small_sweep: Sweep, tiny_ids: np.ndarray, tmp_path: Path) -> None:
    result = small_sweep(steps=[0, 4])
    path = result.report(tmp_path / "r.html", tokens=tiny_ids)
    assert path == tmp_path / "r.html"
    assert "Content-Security-Policy" in path.read_text()[:400]
    with pytest.raises(ArgumentError, match="fingerprints differ"):
        result.report(path, tokens=tiny_ids[:, :40])
