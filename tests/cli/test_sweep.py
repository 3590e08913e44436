import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import pythia_fast
from pythia_fast.cli.sweep import _by_remark
from pythia_fast.demo.corpus import byte_tokenizer
from pythia_fast.model import Weights
from pythia_fast.testing import make_series


def test_the_table_is_that_of_sweep(run, suite, tokens, tiny_ids, tmp_path):
    result = run(
        *("sweep", suite, "--tokens", tokens, "--out", tmp_path / "run", "--quiet"),
        *("--metrics", "perplexity, memorization", "--steps", "0,4:17"),
    )
    expected = pythia_fast.sweep(
        suite,
        "0,4:17",
        tokens=tiny_ids,
        metrics=("perplexity", "memorization"),
        out=tmp_path / "other",
        progress=False,
    ).table.to_pylist()
    head, *lines = [line.split() for line in result.stdout.splitlines()]
    assert head == ["step", "perplexity", "loss", "memorization"]
    assert [int(line[0]) for line in lines] == [0, 4, 8, 16]
    learned = [row for row in expected if row["metric"] == "perplexity"]
    for line, row in zip(lines, learned, strict=True):
        assert float(line[1]) == pytest.approx(row["value"], rel=1e-4)
        assert float(line[2]) == pytest.approx(row["loss"], rel=1e-4)
        assert float(line[3]) == 0
    assert f"kept in {tmp_path / 'run'}" in result.stderr


def test_json_has_every_row_and_nothing_else_on_standard_output(run, suite, tokens, tmp_path):
    result = run(
        *("sweep", suite, "--tokens", tokens, "--sequences", "2:7", "--json"),
        *("--out", tmp_path / "run", "--batch-tokens", "200", "--dtype", "float32"),
    )
    found = json.loads(result.stdout)
    assert found["path"] == str(tmp_path / "run")
    assert found["failures"] == []
    assert [row["step"] for row in found["rows"]] == [0, 1, 2, 4, 8, 16]
    assert {row["sequences"] for row in found["rows"]} == {5}
    assert [row["step"] for row in found["times"]] == [0, 1, 2, 4, 8, 16]
    assert all(row["compute_s"] > 0 for row in found["times"])
    assert found["remarks"] == {}


def test_a_metric_may_be_named_in_any_case(run, suite, tokens, tmp_path):
    arguments = ["sweep", suite, "--tokens", tokens, "--steps", "LAST", "--sequences", 2]
    arguments += ["--metrics", "Perplexity,MEMORIZATION", "--per-token", "--quiet", "--json"]
    found = json.loads(run(*arguments, "--out", tmp_path / "run").stdout)
    assert [row["metric"] for row in found["rows"]] == ["perplexity", "memorization"]
    figure = ["--metric", "Memorization", "-o", tmp_path / "figure.svg"]
    run("plot", tmp_path / "run", *figure)


def test_a_text_file_is_read_line_by_line(run, suite, tmp_path):
    text = tmp_path / "lines.txt"
    text.write_text("The first line\n\nand the second.\n")
    arguments = ["sweep", suite, "--steps", "last", "--quiet", "--json", "--tokens", text]
    arguments += ["--tokenizer", suite / "tokenizer.json", "--out", tmp_path / "run"]
    (row,) = json.loads(run(*arguments).stdout)["rows"]
    assert row["sequences"] == 2
    assert row["tokens"] == len("The first line") + len("and the second.") - 2


def test_a_npy_file_is_data_like_any_other(run, suite, tokens, tiny_ids, tmp_path):
    np.save(tmp_path / "ids.npy", tiny_ids)
    arguments = ["sweep", suite, "--steps", "0,16", "--quiet", "--json", "--out", tmp_path / "run"]
    found = json.loads(run(*arguments, "--tokens", tmp_path / "ids.npy").stdout)
    assert [row["sequences"] for row in found["rows"]] == [24, 24]
    again = json.loads(run(*arguments, "--tokens", tokens).stdout)  # the same run: the same ids
    assert again["rows"] == found["rows"]
    np.save(tmp_path / "ids.npy", tiny_ids[::-1])
    told = run(*arguments, "--tokens", tmp_path / "ids.npy", exit_code=3).stderr
    assert "tokens" in told
    arguments += ["--tokenizer", suite / "tokenizer.json", "--tokens", tmp_path / "ids.npy"]
    assert "leave out --tokenizer" in run(*arguments, exit_code=3).stderr


def test_a_line_of_a_text_is_named_as_such(run, suite, tmp_path):
    text = tmp_path / "lines.txt"
    text.write_text("\nA\n\nlonger\n" + "x" * 130)
    arguments = ["sweep", suite, "--tokens", text, "--tokenizer", suite]
    told = run(*arguments, exit_code=3).stderr
    assert f"line 2 of {text} has 1 token, but perplexity needs 2" in told
    told = run(*arguments, "--sequences", "1:3", exit_code=3).stderr
    assert f"line 5 of {text} has 130 tokens, but the model takes 128" in told
    assert f"{text} is no .npy file" in run("sweep", suite, "--tokens", text, exit_code=3).stderr


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe", None])
def test_a_file_without_text_is_bad_input(run, suite, tmp_path, content):
    text = tmp_path / "lines.txt"
    if content is not None:
        text.write_bytes(content)
    arguments = ["sweep", suite, "--tokens", text, "--tokenizer", suite / "tokenizer.json"]
    assert str(text) in run(*arguments, exit_code=3).stderr


def broken(suite, tmp_path):
    copy = tmp_path / "broken"
    shutil.copytree(suite, copy)
    (file,) = (copy / "step4").glob("*model*")
    file.write_bytes(file.read_bytes()[:-100])
    return copy


def test_steps_that_fail_are_left_out_and_it_ends_with_4(run, suite, tokens, tmp_path):
    arguments = ["sweep", broken(suite, tmp_path), "--tokens", tokens, "--on-error", "skip", "-q"]
    result = run(*arguments, "--out", tmp_path / "run", exit_code=4)
    assert [int(line.split()[0]) for line in result.stdout.splitlines()[1:]] == [0, 1, 2, 8, 16]
    assert "step 4 failed: " in result.stderr
    result = run(*arguments, "--out", tmp_path / "run", "--json", exit_code=4)
    (failure,) = json.loads(result.stdout)["failures"]
    assert failure["step"] == 4


@pytest.mark.parametrize("quiet", [False, True])
def test_what_failed_is_told_once(run, suite, tokens, tmp_path, quiet):
    arguments = ["sweep", broken(suite, tmp_path), "--tokens", tokens, "--on-error", "skip"]
    out = ("--out", tmp_path / "run", "--steps", "0,4", *["-q"] * quiet)
    told = run(*arguments, *out, exit_code=4).stderr
    assert told.count("step 4") == 1
    lines = [line for line in told.splitlines() if "step 4" in line]
    assert "model.safetensors" in lines[0] or "pytorch_model.bin" in lines[0]


@pytest.mark.parametrize("later", [False, True])
def test_a_step_that_fails_otherwise_stops_and_ends_with_4(
    run, suite, tokens, tmp_path, monkeypatch, later
):
    if later:  # it is not damaged yet when the steps are surveyed
        monkeypatch.setattr("pythia_fast.series.LocalSeries._look_into", lambda *_: None)
    result = run(
        *("sweep", broken(suite, tmp_path), "--tokens", tokens, "-q", "--out", tmp_path / "run"),
        exit_code=4,
    )
    assert result.stdout == ""
    said = "step 4 failed" if later else "1 of 6 steps cannot be had: step 4: "
    assert result.stderr.startswith(f"pythia-fast: {said}")


def test_numbers_that_json_lacks_become_null(run, suite, tokens, tmp_path):
    series = tmp_path / "nan"
    shutil.copytree(suite, series)
    spoiled = pythia_fast.load(suite, 8).state_dict()
    spoiled["embed_out.weight"][3] = np.nan
    from pythia_fast.series import write_safetensors

    for old in (series / "step8").glob("*model*"):
        old.unlink()
    write_safetensors(series / "step8" / "model.safetensors", spoiled)
    arguments = ["sweep", series, "--tokens", tokens, "-q", "--out", tmp_path / "run"]
    rows = json.loads(run(*arguments, "--json").stdout)["rows"]
    assert [row["value"] is None for row in rows] == [row["step"] == 8 for row in rows]
    line = next(line for line in run(*arguments).stdout.splitlines() if line.split()[0] == "8")
    assert "non-finite" in line


def test_no_resume_wants_a_new_folder(run, suite, tokens, tmp_path):
    arguments = ["sweep", suite, "--tokens", tokens, "-q", "--out", tmp_path / "run"]
    run(*arguments, "--steps", "0")
    run(*arguments, "--steps", "0:3")
    assert "resume is False" in run(*arguments, "--no-resume", exit_code=3).stderr


def test_the_same_weights_twice_are_said(run, suite, tokens, tmp_path):
    series = tmp_path / "twins"
    shutil.copytree(suite, series)
    shutil.rmtree(series / "step1")
    shutil.copytree(series / "step0", series / "step1")
    arguments = ["sweep", series, "--tokens", tokens, "-q", "--out", tmp_path / "run"]
    assert "same weights as 0" in run(*arguments).stdout.splitlines()[2]


def test_the_fixture_has_room_for_ascii(tiny):
    assert byte_tokenizer().encode("~").ids[0] < Weights(tiny).embed_VD.shape[0]


def test_only_the_end_of_a_line_ends_a_sequence(run, suite, tmp_path):
    """A form feed or another separator inside a line belongs to its text."""
    (tmp_path / "texts").write_bytes(b"\xef\xbb\xbfone\x0ctwo\x1cthree\r\n\nfour\n")
    options = ("--tokens", tmp_path / "texts", "--tokenizer", suite / "tokenizer.json", "--json")
    rows = json.loads(run("sweep", suite, "--steps", 0, "-q", *options).stdout)["rows"]
    assert rows[0]["sequences"] == 2
    assert rows[0]["tokens"] == len("one two three") - 1 + len("four") - 1


def test_a_disk_budget_is_a_size(run, suite, tokens, tmp_path):
    arguments = ["sweep", suite, "--tokens", tokens, "--steps", "0", "-q", "--disk-budget"]
    assert "no size" in run(*arguments, "much", exit_code=2).stderr
    run(*arguments, "1.5GB")


def test_what_is_known_to_be_odd_is_said_once():
    remarks = {step: ("odd", "very odd") if step == 3 else ("odd",) for step in range(10)}
    assert _by_remark(remarks) == {"odd": "0, 1, 2, 3, 4, 5, 6, 7 and 2 more", "very odd": "3"}


@pytest.fixture
def pair(suite, tiny, tmp_path):
    """Two models, the second of which has other weights."""
    other = make_series(tmp_path / "suites" / "a longer name", tiny, (0, 1, 2, 4, 8, 16), seed=8)
    return suite, other


def test_several_models_are_one_table(run, pair, tokens, tmp_path):
    arguments = ["sweep", *pair, "--tokens", tokens, "--quiet", "--steps", "0,4"]
    result = run(*arguments, "--metrics", "perplexity,memorization", "--out", tmp_path / "runs")
    rows = pythia_fast.SweepResults(tmp_path / "runs").table.to_pylist()
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["model", "step", "perplexity", "loss", "memorization"]
    learned = [row for row in rows if row["metric"] == "perplexity"]
    assert sorted(line[:13].strip() for line in lines) == sorted(row["model"] for row in learned)
    for line in lines:
        (row,) = [
            row
            for row in learned
            if line.startswith(row["model"]) and int(line[13:].split()[0]) == row["step"]
        ]
        assert float(line[13:].split()[1]) == pytest.approx(row["value"], rel=1e-4)
    assert result.stderr == f"kept in {tmp_path / 'runs'}\n"


def test_json_of_several_models_has_each_under_its_name(run, pair, tokens, tmp_path):
    arguments = ["sweep", *pair, "--tokens", tokens, "--quiet", "--steps", "0", "--json"]
    found = json.loads(run(*arguments, "--out", tmp_path / "runs").stdout)
    assert found["path"] == str(tmp_path / "runs")
    assert list(found["models"]) == ["tiny", "a longer name"]
    one = json.loads(
        run("sweep", pair[0], *arguments[3:], "--out", tmp_path / "runs" / "tiny").stdout
    )
    assert found["models"]["tiny"] == one
    default = run(*arguments, "--cache-dir", tmp_path / "cache")
    found = json.loads(default.stdout)
    assert found["path"] is None
    runs = tmp_path / "cache" / "runs"
    assert {Path(each["path"]).parent for each in found["models"].values()} == {runs}


def test_each_default_folder_is_told(run, pair, tokens, tmp_path):
    arguments = ["sweep", *pair, "--tokens", tokens, "-q", "--steps", "0"]
    lines = run(*arguments, "--cache-dir", tmp_path).stderr.splitlines()
    assert [line[: len(f"kept in {tmp_path / 'runs'}")] for line in lines] == [
        f"kept in {tmp_path / 'runs'}"
    ] * 2


def test_of_several_models_failures_are_told_by_name(run, pair, suite, tokens, tmp_path):
    bad = broken(suite, tmp_path)
    arguments = ["sweep", pair[1], bad, "--tokens", tokens, "--on-error", "skip", "-q"]
    result = run(*arguments, "--out", tmp_path / "runs", exit_code=4)
    assert "broken: step 4 failed: " in result.stderr
    assert len(result.stdout.splitlines()) == 1 + 6 + 5
    found = json.loads(run(*arguments, "--out", tmp_path / "runs", "--json", exit_code=4).stdout)
    assert [row["step"] for row in found["models"]["broken"]["failures"]] == [4]
    assert found["models"]["a longer name"]["failures"] == []
    stopped = run(*arguments[:3], *arguments[3:5], "-q", "--out", tmp_path / "more", exit_code=4)
    assert stopped.stderr.startswith("pythia-fast: broken: 1 of 6 steps cannot be had: step 4:")


def test_what_is_wrong_with_several_models_is_told_in_a_line(run, suite, tokens):
    for models, words in (
        ((suite, "71m"), "no model '71m'"),
        (("70m", "pythia-70m", "--steps", "log"), "the model 70m is named twice"),
        (("all", suite, "--steps", 3), "3"),
    ):
        told = run("sweep", *models, "--tokens", tokens, "-q", exit_code=3).stderr
        assert words in told
        assert told.count("\n") == 1
    assert "Missing argument 'MODEL...'" in run("sweep", exit_code=2).stderr
