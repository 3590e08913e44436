"""`pythia-fast report`, and the losses by token that it shows."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pythia_fast
from pythia_fast.metrics import Perplexity


def data_of(path: Path) -> Any:
    text = path.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture
def swept(run, suite, tokens, tmp_path) -> Path:
    """A run with losses by token of steps 0 and 4."""
    run(
        *("sweep", suite, "--tokens", tokens, "--per-token", "--steps", "0,4", "--quiet"),
        *("--metrics", "perplexity,memorization", "--out", tmp_path / "run", "--dtype", "float32"),
    )
    return tmp_path / "run"


def test_a_sweep_and_its_report_find_tokens_and_tokenizer_by_themselves(
    run, swept, tiny_ids, tmp_path
):
    result = run("report", swept, "-o", tmp_path / "r.html")
    path = tmp_path / "r.html"
    assert result.stdout == f"{path}\n"
    (own,) = data_of(path)["runs"]
    sequences = own["sequences"]
    assert not [note for note in sequences["notes"] if "missing" in note or "numbers" in note]
    first = sequences["rows"].index(0)
    assert sequences["ids"][first] == tiny_ids[0].tolist()
    text = bytes(tiny_ids[0].tolist()).decode(errors="replace")
    assert "".join(sequences["pieces"][first])[:8] == text[:8]
    codes = np.frombuffer(base64.b64decode(sequences["losses"]["data"]), "<u2")
    kept = pythia_fast.SweepResult(swept).columns(["token_nll"]).of_step(4)["token_nll"][0].as_py()
    np.testing.assert_allclose(codes[79:158] / 1000, kept, rtol=0, atol=6e-4)


def test_several_runs_as_json_with_what_is_missing(run, swept, suite, tokens, tmp_path):
    run(
        *("sweep", suite, "--tokens", tokens, "--steps", "0:17", "--quiet"),
        *("--out", tmp_path / "all", "--dtype", "float32"),
    )
    (tmp_path / "all/parts/step=8/perplexity-00000.parquet").unlink()
    path = tmp_path / "r.html"
    result = run("report", swept, tmp_path / "all", "-o", path, "--json")
    told = json.loads(result.stdout)
    assert told == {
        "path": str(path),
        "bytes": path.stat().st_size,
        "missing_steps": {str(swept): 0, str(tmp_path / "all"): 1},
    }
    assert "1 step" in run("report", swept, tmp_path / "all", "-o", path).stderr
    gaps = data_of(path)["runs"][1]["gaps"]
    assert [gap["step"] for gap in gaps] == [8]


def test_a_text_file_is_given_again_with_its_tokenizer(run, suite, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("the first of the lines\nand another one\n")
    tokenizer = suite / "tokenizer.json"
    run(
        *("sweep", suite, "--tokens", lines, "--tokenizer", tokenizer, "--steps", "0", "-q"),
        *("--out", tmp_path / "run"),
    )
    path = tmp_path / "r.html"
    run("report", tmp_path / "run", "-o", path)
    assert data_of(path)["runs"][0]["sequences"]["pieces"] is None
    run("report", tmp_path / "run", "-o", path, "--tokens", lines, "--tokenizer", tokenizer)
    pieces = data_of(path)["runs"][0]["sequences"]["pieces"]
    assert ["".join(each) for each in pieces] == lines.read_text().splitlines()


def test_bad_input_is_told_and_ends_with_3(run, swept, texts, tmp_path):
    path = tmp_path / "r.html"
    assert "there is no folder" in run("report", tmp_path / "none", "-o", path, exit_code=3).stderr
    other = run("report", swept, "--tokens", texts, "-o", path, exit_code=3).stderr
    assert "fingerprints differ" in other
    missing = tmp_path / "nowhere" / "r.html"
    told = run("report", swept, "-o", missing, exit_code=3).stderr
    assert f"cannot write {missing}: there is no folder {missing.parent}" in told
    assert "Is a directory" in run("report", swept, "-o", tmp_path, exit_code=3).stderr
    assert not path.exists()
    assert not path.exists()
    lines = tmp_path / "poems.txt"
    lines.write_text("one\n")
    hint = run("report", swept, "--tokens", lines, "-o", path, exit_code=3).stderr
    assert "add --tokenizer" in hint
    run("report", exit_code=2)


def test_per_token_is_of_perplexity_and_a_run_of_its_own(run, swept, suite, tokens, tmp_path):
    names = ("--metrics", "memorization", "--out", tmp_path / "other")
    wrong = run("sweep", suite, "--tokens", tokens, "--per-token", *names, exit_code=2)
    assert "--per-token is for perplexity" in wrong.stderr
    own = pythia_fast.SweepResult(swept)
    assert own.specification["metrics"][0]["settings"] == {"per_token": True}
    same = pythia_fast.sweep(
        suite,
        [0, 4],
        tokens=tokens,
        metrics=[Perplexity(per_token=True), "memorization"],
        out=swept,
        dtype="float32",
        progress=False,
    )
    assert same.table.equals(own.table)
    out = ("--metrics", "perplexity,memorization", "--out", swept, "--dtype", "float32", "-q")
    refused = run("sweep", suite, "--tokens", tokens, "--steps", "0,4", *out, exit_code=3)
    assert "another specification" in refused.stderr


def test_the_folder_of_several_models_runs_is_one_report(run, suite, tokens, tiny, tmp_path):
    from pythia_fast.testing import make_series

    other = make_series(tmp_path / "small", replace(tiny, layers=1), (0, 16))
    runs = tmp_path / "runs"
    pythia_fast.sweep([suite, other], [0, 16], tokens=tokens, out=runs, progress=False)
    result = run("report", runs, "-o", tmp_path / "r.html", "--json")
    missing = json.loads(result.stdout)["missing_steps"]
    assert missing == {str(runs / "small"): 0, str(runs / "tiny"): 0}
    assert [each["label"] for each in data_of(tmp_path / "r.html")["runs"]] == ["small", "tiny"]


def test_evaluations_in_a_folder_of_runs_are_left_out_and_those_named_refused(run, swept, tmp_path):
    runs, evaluation = tmp_path / "runs", tmp_path / "runs/evaluation"
    evaluation.mkdir(parents=True)
    swept.rename(runs / swept.name)
    record = {"format": 1, "hash": "0", "specification": {"kind": "evaluation", "tasks": {}}}
    (evaluation / "run.json").write_text(json.dumps(record))
    result = run("report", runs, "-o", tmp_path / "r.html")
    assert f"{evaluation} is of an evaluation, and left out" in result.stderr
    assert [each["label"] for each in data_of(tmp_path / "r.html")["runs"]] == ["tiny"]
    refused = run("report", runs / swept.name, evaluation, "-o", tmp_path / "s.html", exit_code=3)
    assert "use EvaluationResult" in refused.stderr
