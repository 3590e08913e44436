"""The file: one, whole, bounded, and honest about what is not in it."""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, FormatError, WriteError
from pythia_fast.report import write_report
from pythia_fast.report.document import document
from pythia_fast.report.texts import texts_of
from pythia_fast.report.write import SCRIPTS, _quoted
from pythia_fast.tokens import TokenDataset

Make = Callable[..., Any]


class Outline(HTMLParser):
    """Tags with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


def data_of(path: Path) -> Any:
    return json.loads(Outline(path.read_text()).scripts[0])


def test_it_is_one_file_with_a_policy_and_no_address_in_its_markup(page: Path) -> None:
    outline = Outline(page.read_text())
    assert len(outline.scripts) == 3
    for _, attributes in outline.tags:
        assert not {"src", "onload", "onerror", "style"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    policies = [a["content"] for t, a in outline.tags if a.get("http-equiv")]
    assert policies[0].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policies[0]
    assert "unsafe-inline" not in policies[0].split("style-src")[0]


@settings(deadline=None)
@given(st.text())
def test_no_text_in_the_data_can_end_its_element(text: str) -> None:
    quoted = _quoted({"text": text, text: [text]})
    assert not set("<>&") & set(quoted)
    assert quoted.isascii()
    assert json.loads(quoted) == {"text": text, text: [text]}


def test_our_scripts_put_nothing_into_the_page_as_markup() -> None:
    folder = files("pythia_fast.report") / "page"
    for name in SCRIPTS:
        text = (folder / name).read_text()
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ):
            assert forbidden not in text, f"{name}: {forbidden}"


def test_the_data_says_where_all_is_from(page: Path, two_runs: Any) -> None:
    data = data_of(page)
    own = data["runs"][0]
    assert own["label"] == "tiny"
    assert own["specification"] == two_runs[0].record["specification"]
    assert own["hash"] == two_runs[0].record["hash"]
    assert data["table"]["columns"][:4] == ["run", "model", "step", "metric"]
    assert len(data["table"]["rows"]) == 16 + 12
    assert own["times"]["compute_s"] == [2.0 + k for k in range(8)]
    assert {gap["step"] for gap in data["runs"][1]["gaps"]} == {4, 8}


def test_runs_of_one_model_get_names_of_their_own(make_run: Make, texts: TokenDataset) -> None:
    runs = [make_run(), make_run(seed=1), make_run(model="other")]
    runs[1].path = runs[0].path.with_name("again")
    found = texts_of(runs, texts, None)
    labels = [run["label"] for run in document(runs, found, version="0", made="now")["runs"]]
    assert labels == ["tiny (run)", "tiny (again)", "other"]
    runs[1].path = runs[0].path
    labels = [run["label"] for run in document(runs, found, version="0", made="now")["runs"]]
    assert labels == ["tiny (run) #1", "tiny (run) #2", "other"]


def test_a_missing_folder_is_refused_and_a_file_is_replaced_whole(
    make_run: Make, texts: TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(WriteError, match=r"cannot write .*r\.html: there is no folder"):
        write_report([make_run()], folder / "r.html", tokens=texts)
    folder.mkdir()
    path = write_report([make_run()], folder / "r.html", tokens=texts)
    first = path.read_bytes()
    monkeypatch.setattr("pythia_fast.report.write._quoted", lambda data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report([make_run()], path, tokens=texts)
    assert path.read_bytes() == first
    assert [each.name for each in path.parent.iterdir()] == ["r.html"]


def test_bad_arguments_are_told(
    make_run: Make, texts: TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArgumentError, match="no runs"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(WriteError, match="Is a directory"):
        write_report([make_run()], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="is a file, not a folder"):
        write_report([make_run()], tmp_path / "file" / "r.html", tokens=texts)
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ArgumentError, match=r"pip install 'pythia-fast\[analysis\]'"):
        write_report([make_run()], tmp_path / "r.html")


def test_the_policy_names_the_scripts_that_are_there(page: Path) -> None:
    text = page.read_text()
    for script in re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in text


def test_a_metrics_own_numbers_take_no_column_of_the_page(
    make_run: Make, texts: TokenDataset
) -> None:
    run = make_run()
    for name in ("run", "low", "high"):
        run.table = run.table.append_column(name, pa.array([7.0] * len(run.table)))
    data = document([run], texts_of([run], texts, None), version="0", made="now")
    table = data["table"]
    assert len({*table["columns"]}) == len(table["columns"])
    row = dict(zip(table["columns"], table["rows"][0], strict=True))
    assert row["run"] == "tiny"
    assert row["low"] == pytest.approx(row["value"] * 0.95)
    assert row["high"] == pytest.approx(row["value"] * 1.05)
    assert [row[f"own {name}"] for name in ("run", "low", "high")] == [7.0] * 3
    assert "own low" in data["runs"][0]["numbers"]["perplexity"]


def test_of_two_metrics_that_memorize_the_first_is_told_with_its_lengths(
    make_run: Make, texts: TokenDataset
) -> None:
    run = make_run()
    second = {"name": "longer", "settings": {"prompt": 4, "continuation": 16}, "type": "x:M"}
    run.record["specification"]["metrics"].append(second)
    data = document([run], texts_of([run], texts, None), version="0", made="now")
    assert data["runs"][0]["continuation"] == {
        "metric": "memorization",
        "prompt": 8,
        "continuation": 8,
        "others": ["longer"],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": []},
        {"metrics": "perplexity"},
        {"metrics": [{}]},
        {"sequences": {"first": 0}},
        {
            "metrics": [
                {
                    "name": "memorization",
                    "type": "pythia_fast.metrics.memorization:Memorization",
                    "settings": {"prompt": "x", "continuation": None},
                }
            ]
        },
    ],
)
def test_a_run_json_that_no_sweep_writes_is_a_format_error(
    make_run: Make, texts: TokenDataset, tmp_path: Path, change: dict[str, Any]
) -> None:
    run = make_run()
    run.record["specification"] |= change
    with pytest.raises(FormatError, match=r"run\.json"):
        write_report([run], tmp_path / "r.html", tokens=texts)
    assert not (tmp_path / "r.html").exists()


def test_names_that_are_no_unicode_or_turn_around_are_shown_as_they_are(
    make_run: Make, texts: TokenDataset, tmp_path: Path
) -> None:
    runs = [make_run(model="\u202eknil"), make_run(model="\u202eknil")]
    runs[1].path = tmp_path / "a\udcff"
    page = write_report(runs, tmp_path / "r.html", tokens=texts).read_text()
    assert page.count("[U+202E]knil (a\\udcff)") == 2  # in the title and in the heading
    assert "\u202e" not in page.split("<script", 1)[0]


def test_tokens_serve_the_runs_that_looked_at_them(make_run: Make, texts: TokenDataset) -> None:
    other = TokenDataset(np.zeros((3, 64), np.int64))
    runs = [make_run(), make_run(dataset=other)]
    first, second = texts_of(runs, texts, None)
    assert first.dataset is texts
    assert second.dataset is None
    with pytest.raises(ArgumentError, match="fingerprints differ"):
        texts_of(runs, TokenDataset(np.ones((3, 64), np.int64)), None)


@pytest.mark.parametrize("runs", ["runs/70m", [pa.table({"a": [1]})], [None]])
def test_what_is_no_run_is_refused(runs: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="a report is of SweepResults, not of"):
        write_report(runs, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
