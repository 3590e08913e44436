"""Pages of runs that are odd."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pythia_fast.report import write_report
from pythia_fast.tokens import TokenDataset

Make = Callable[..., Any]


@pytest.mark.parametrize("kind", ["nothing", "no memorization", "not finite", "no texts"])
def test_odd_runs_open_without_an_error(
    make_run: Make,
    texts: TokenDataset,
    tmp_path: Path,
    opened: Callable[[Path], Any],
    kind: str,
) -> None:
    steps = (0, 1, 2, 4, 8, 16, 32, 64)
    run = make_run(missing=steps if kind == "nothing" else ())
    if kind == "nothing":
        run.failures = (SimpleNamespace(step=4, error="ReadError", message="it broke"),)
    if kind == "no memorization":
        (run.path / "asked").mkdir(parents=True)
        (run.path / "asked" / "0123.json").touch()
        run.record["specification"]["metrics"].pop()
        keep = [row["metric"] == "perplexity" for row in run.table.to_pylist()]
        run.table = run.table.filter(keep)
        run.rows = {
            step: table.drop_columns(["memorized", "first_mismatch", "token_nll"])
            for step, table in run.rows.items()
        }
    if kind == "not finite":
        values = [
            float("nan") if k == 2 else float("inf") if k == 4 else v.as_py()
            for k, v in enumerate(run.table["value"])
        ]
        at = run.table.column_names.index("value")
        run.table = run.table.set_column(at, "value", [values])
        status = ["non-finite" if k in (2, 4) else "ok" for k in range(len(values))]
        run.table = run.table.set_column(run.table.column_names.index("status"), "status", [status])
    tokens = None if kind == "no texts" else texts
    browser = opened(write_report([run], tmp_path / "r.html", tokens=tokens))
    assert browser.driver.get_log("browser") == []
    text = browser.driver.execute_script("return document.body.innerText")
    expected = {
        "nothing": ("There are no results yet", "No sequence was looked at", "ReadError: it broke"),
        "no memorization": ("Nothing: every step", "loss"),
        "not finite": ("not finite", "2 values are not finite"),
        "no texts": ("The texts are missing", "does not say where its tokens are"),
    }[kind]
    for words in expected:
        assert words in text
    if kind == "no memorization":
        assert "memorized" not in text
