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
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, WriteError
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
    found = [texts_of(run, texts, None) for run in runs]
    labels = [run["label"] for run in document(runs, found, version="0", made="now")["runs"]]
    assert labels == ["tiny (run)", "tiny (again)", "other"]
    runs[1].path = runs[0].path
    labels = [run["label"] for run in document(runs, found, version="0", made="now")["runs"]]
    assert labels == ["tiny (run) #1", "tiny (run) #2", "other"]


def test_folders_are_made_and_a_file_is_replaced_whole(
    make_run: Make, texts: TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report([make_run()], tmp_path / "new" / "folder" / "r.html", tokens=texts)
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
    assert browser.get_log("browser") == []
    text = browser.execute_script("return document.body.innerText")
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


def test_the_policy_names_the_scripts_that_are_there(page: Path) -> None:
    text = page.read_text()
    for script in re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in text
