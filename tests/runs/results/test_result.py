"""What a SweepResult shows of its folder."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pythia_fast
from pythia_fast.errors import ArgumentError, MissingCheckpointError
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


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingCheckpointError, match="not a run folder"):
        pythia_fast.SweepResult(tmp_path)


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


def test_sequences_are_read_once(small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 10)
    path = small_sweep(steps=[0, 1], metrics=["perplexity", "memorization"]).path
    read = []
    whole = pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda self, *names: read.append(self) or whole(self, *names)
    )
    assert len(pythia_fast.SweepResult(path).sequences) == 2 * 24
    assert len(read) == 2 * 2 * 3  # steps, metrics, shards
