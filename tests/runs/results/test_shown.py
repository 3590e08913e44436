"""What notebooks show of runs, forecasts, models and their specs."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import pythia_fast
from pythia_fast.runs.results.gaps import Gap
from pythia_fast.runs.results.shown import run_html
from pythia_fast.testing import make_series, tiny, tiny_suite

Sweep = Callable[..., pythia_fast.SweepResult]


def text(page: str) -> str:
    return re.sub(r"<[^>]*>", " ", page)


def test_a_run_shows_each_metric_and_its_table(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0, 1, 16], metrics=["perplexity", "memorization"])
    page = result._repr_html_()
    assert page.count("<svg") == 2
    for metric in ("perplexity", "memorization"):
        values = result.table.filter(pa.compute.equal(result.table["metric"], metric))["value"]
        first, last = values[0].as_py(), values[-1].as_py()
        assert f"{metric}: {first:.4g} at step 0, {last:.4g} at step 16" in text(page)
    assert page.count("<tr>") == 1 + len(result)
    assert "without all results" not in page
    assert "duplicate_of" not in page  # it has nothing in it
    assert "weights_sha256" not in page


def test_what_is_missing_is_told(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0, 1, 2])
    next(result.path.glob("parts/step=1/*.parquet")).unlink()
    again = pythia_fast.SweepResult(result.path)
    assert "1 step without all results: 1. Step 1: not begun" in text(again._repr_html_())


def test_an_empty_run_says_so(small_sweep: Sweep) -> None:
    result = small_sweep(steps=[0])
    next(result.path.glob("parts/step=0/*.parquet")).unlink()
    page = pythia_fast.SweepResult(result.path)._repr_html_()
    assert "no rows" in page
    assert "<svg" not in page


def table(values: list[float | None]) -> pa.Table:
    rows = [{"step": i, "metric": "<m>", "value": value} for i, value in enumerate(values)]
    return pa.Table.from_pylist(
        rows, pa.schema([("step", "int64"), ("metric", "string"), ("value", "float64")])
    )


@pytest.mark.parametrize(
    "values", [[None], [math.nan, 2.0], [math.inf] * 3, [-1.0, 0.0, 1e9], [5.0, None]]
)
def test_odd_values_are_shown_too(values: list[float | None]) -> None:
    gaps = [Gap(step, "<m>", "failed: <b>") for step in range(20)]
    page = run_html(table(values), gaps, title="<t>", leave_out=())
    assert "<m>" not in page
    assert "<b>" not in page
    assert "20 steps without all results: 0, 1, 2, 3, 4, 5, 6, 7 and 12 more" in page
    assert ("nothing at step 0" in page) == (values[0] is None)


def test_values_of_many_orders_are_drawn_by_their_logarithms() -> None:
    def heights(page: str) -> list[str]:
        return re.findall(r"[ML][\d.]+ ([\d.]+)", page)

    by_logarithm = run_html(table([1.0, 10.0, 100.0]), [], title="", leave_out=())
    assert heights(by_logarithm) == ["22.0", "12.0", "2.0"]
    plain = run_html(table([1.0, 2.0, 5.0]), [], title="", leave_out=())
    assert heights(plain) == ["22.0", "17.0", "2.0"]


def test_a_model_says_what_it_is(tmp_path: Path) -> None:
    folder = make_series(tmp_path / "<i>", tiny(), (3,))
    page = pythia_fast.load(folder, 3, dtype="float32")._repr_html_()
    assert "<i>" not in page
    shown = text(page)
    for words in ("step  3", str(folder / "step3").replace("<i>", "&lt;i&gt;"), "float32 on cpu"):
        assert words in shown
    assert f"{tiny().parameters:,}" in shown
    by_hand = pythia_fast.Model(
        pythia_fast.model.Weights(tiny(), dtype=torch.float16),
        pythia_fast.suite.ModelSpec.local("own", tiny(), (0,)),
    )
    assert "weights from" not in by_hand._repr_html_()


def test_a_spec_is_its_card() -> None:
    shown = text(pythia_fast.spec("12b-deduped")._repr_html_())
    assert "EleutherAI/pythia-12b-deduped" in shown
    assert "11,846,072,320" in shown
    local = pythia_fast.suite.ModelSpec.local("<own>", tiny(), (0, 1))
    assert "&lt;own&gt;" in local._repr_html_()


def test_a_forecast_tells_bytes_and_time(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "suite", steps=(0, 1, 2))
    (suite / "step1/model.safetensors").unlink(missing_ok=True)
    (suite / "step1/pytorch_model.bin").unlink(missing_ok=True)
    forecast = pythia_fast.plan(suite, tokens=np.zeros((2, 16), dtype=np.int64))
    shown = text(forecast._repr_html_())
    assert "2 of 3 are there" in shown
    assert re.search(r"missing\s+1\s", shown)
    assert "the bottleneck" in shown
    assert "the stages overlap" in shown
