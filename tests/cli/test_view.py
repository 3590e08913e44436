"""Which rows `view` means, and how it shows them."""

import json
import os
import pty
import shutil
import subprocess
import sys
import termios

import numpy as np
import pytest

from pythia_fast.tokens import TokenDataset, write_tokens
from pythia_fast.tokens.readable import BOUNDARY


def test_ids_are_shown_without_a_tokenizer(run, texts):
    lines = run("view", texts, "--rows", "0:2").stdout.splitlines()
    assert lines[0] == "--- row 0, 7 tokens"
    assert bytes(map(int, lines[1].split())) == b"row 0: "
    assert lines[2] == "--- row 1, 8 tokens"


def test_text_is_shown_with_one_and_so_are_ends_of_text(run, texts, suite):
    arguments = ["view", texts, "--tokenizer", suite / "tokenizer.json", "--rows", "4:"]
    assert run(*arguments).stdout == (
        f"--- row 4, 11 tokens\nrow 4: xxxx\n--- row 5, 13 tokens\nrow 5: xxxxx\n{BOUNDARY}\n"
    )
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["rows"][1] == {"row": 5, "tokens": 13, "text": "row 5: xxxxx<|endoftext|>"}
    narrow = run(*arguments, "--width", "10").stdout
    assert "\nrow 4:\n" in narrow.replace(" \n", "\n")
    assert max(map(len, narrow.replace(BOUNDARY, "").splitlines())) <= len("--- row 5, 13 tokens")


def test_ids_without_a_text_are_shown(run, suite, tmp_path):
    write_tokens(tmp_path / "data", [[97, 60_000, 98]])
    arguments = ["view", tmp_path / "data", "--tokenizer", suite / "tokenizer.json"]
    assert run(*arguments).stdout == "--- row 0, 3 tokens\na<id 60000>b\n"
    assert json.loads(run(*arguments, "--json").stdout)["rows"][0]["text"] == "a<id 60000>b"
    hit = run(*arguments, "--find-ids", "97", "--mode", "text").stdout
    assert ">>a<<<id 60000>b" in hit


def test_a_tokenizer_beside_the_data_is_taken(run, texts, suite, tmp_path):
    for path in texts.parent.iterdir():
        shutil.copy(path, tmp_path)
    data = tmp_path / texts.name
    assert "row 0: " not in run("view", data, "--rows", "0").stdout
    shutil.copy(suite / "tokenizer.json", tmp_path)
    assert "row 0: " in run("view", data, "--rows", "0").stdout
    assert "row 0: " not in run("view", data, "--rows", "0", "--mode", "ids").stdout


def test_five_rows_are_shown_by_default(run, texts):
    assert run("view", texts).stdout.count("--- row") == 5


@pytest.mark.parametrize(
    ("option", "value", "rows"),
    [
        ("--rows", "2", [2]),
        ("--rows", ":2", [0, 1]),
        ("--rows", "4:6", [4, 5]),
        ("--rows", "4:", [4, 5]),
        ("--rows", ":", [0, 1, 2, 3, 4, 5]),
        ("--steps", "1", [0, 1]),
        ("--steps", "0:1", [0, 1]),
        ("--steps", "1:3", [2, 3, 4, 5]),
        ("--steps", "2:", [4, 5]),
        ("--steps", ":2", [0, 1, 2, 3]),
        ("--steps", ":", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_rows_and_steps_choose(run, texts, option, value, rows):
    done = run("view", texts, option, value, "--batch", 2, "--json")
    found = json.loads(done.stdout)
    assert [row["row"] for row in found["rows"]] == rows
    steps = [row.get("step") for row in found["rows"]]
    selection = {"rows": [rows[0], rows[-1] + 1]}
    if option == "--steps":
        assert steps == [row // 2 + 1 for row in rows]
        selection |= {"steps": [steps[0], steps[-1] + 1], "batch": 2}
        assert done.stderr.startswith(f"rows {rows[0]} to {rows[-1]}: training step")
    else:
        assert steps == [None] * len(rows)
        assert done.stderr == ""
    assert found["selection"] == selection
    assert found["source"].endswith(".bin")


def test_the_rows_of_steps_are_said(run, texts):
    words = run("view", texts, "--steps", "0:3", "--batch", 2).stderr
    assert words == (
        "rows 0 to 5: training steps 1 to 3, seen between checkpoints step0 and step3\n"
    )
    assert run("view", texts, "--steps", "3", "--batch", 2).stderr == (
        "rows 4 to 5: training step 3\n"
    )


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("last", range(3))
def test_inclusive_is_the_published_viewers_way(run, texts, first, last):
    if last < first:
        return
    published = [row for i in range(first, last + 1) for row in range(2 * i, 2 * (i + 1))]
    done = run("view", texts, "--steps", f"{first}:{last}", "--inclusive", "--batch", 2, "--json")
    assert [row["row"] for row in json.loads(done.stdout)["rows"]] == published
    rows = run("view", texts, "--rows", f"{first}:{last}", "--inclusive", "--json")
    assert [row["row"] for row in json.loads(rows.stdout)["rows"]] == [*range(first, last + 1)]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--rows", "6:9", "6 rows"),
        ("--rows", "4:99", "--rows means rows 4 to 98, but the data has 6 rows"),
        ("--rows", "6", "none of them is in row 6"),
        ("--rows", "3:3", "none of them"),
        ("--steps", "4", "3 whole steps of 2 rows"),
        ("--steps", "0:4", "--steps means rows 0 to 7, but the data has 6"),
        ("--steps", "3:", "3 whole steps of 2 rows"),
        ("--steps", "0", "--steps 1 is the first training step"),
        ("--steps", "2:2", "--steps 2:2 holds nothing"),
        ("--steps", "2:1", "up to checkpoint B"),
    ],
)
def test_rows_that_are_not_there_are_bad_input(run, texts, option, value, words):
    result = run("view", texts, option, value, "--batch", 2, exit_code=3)
    assert words in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--out", "a.npy"],
        ["--mode", "save"],
        ["--mode", "text", "--tokenizer", "t.json", "--out", "a"],
        ["--mode", "stats", "--out", "a"],
        ["--mode", "ids", "--width", "20"],
        ["--width", "20"],
        ["--per-step"],
        ["--dtype", "int32"],
        ["--function", "a:b"],
        ["--mode", "stats", "--workers", "2"],
        ["--mode", "stats", "--function", "a:b", "--rows", "0:4"],
        ["--mode", "save", "--out", "a", "--per-step", "--rows", "0:4"],
        ["--context", "3"],
        ["--max-hits", "3"],
        ["--find", "a"],
        ["--find-ids", "1", "--find", "a", "--tokenizer", "t.json"],
        ["--find-ids", "1,x"],
        ["--find-ids", ""],
        ["--find-ids", "1", "--mode", "stats"],
        ["--find-ids", "1", "--mode", "save", "--out", "a"],
        ["--inclusive"],
        ["--inclusive", "--steps", "3"],
        ["--steps", "3:4:5"],
        ["--steps", "-1"],
        ["--batch", "0"],
        ["--batch", "99999999999999999999"],
        ["--find-ids", "1", "--context", "99999999999999999999"],
        ["--steps", "0:99999999999999999999"],
        ["--rows", "9" * 5000],
        ["--mode", "save", "--out", ""],
        ["--mode", "save", "--per-step", "--out", ""],
    ],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_options_that_do_not_go_together(run, texts, arguments):
    result = run("view", texts, *arguments, exit_code=2)
    assert "Usage: pythia-fast" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("batch", [1, 1_000_000])
@pytest.mark.parametrize("option", ["--steps", "--rows"])
@pytest.mark.parametrize("value", ["999999999999", "0:999999999999", "999999999999:"])
@pytest.mark.parametrize("mode", ["ids", "stats"])
def test_numbers_that_are_only_just_allowed(run, texts, batch, option, value, mode):
    arguments = ["--batch", batch, "--mode", mode, option, value]
    assert "6" in run("view", texts, *arguments, exit_code=3).stderr


def test_numbers_are_those_of_the_rows(run, tmp_path):
    random = np.random.default_rng(3)
    rows = [random.integers(5, 60_000, size=length) for length in (4, 1, 9, 0, 7, 2, 3)]
    write_tokens(tmp_path / "data", rows)
    found = json.loads(run("view", tmp_path / "data", "--mode", "stats", "--json").stdout)
    assert found.pop("selection") == {"rows": [0, 7]}
    assert found["sequences"] == 7
    assert found["tokens"] == 26
    assert found["fingerprint"] == TokenDataset(tmp_path / "data").fingerprint()
    some = json.loads(
        run("view", tmp_path / "data", "--mode", "stats", "--rows", "1:4", "--json").stdout
    )
    assert (some["sequences"], some["tokens"], some["shortest"]) == (3, 10, 0)
    lines = run("view", tmp_path / "data", "--mode", "stats").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(found)


def test_numbers_of_rows_without_tokens(run, tmp_path):
    write_tokens(tmp_path / "empty", [np.array([], dtype=int)])
    found = json.loads(run("view", tmp_path / "empty", "--mode", "stats", "--json").stdout)
    assert (found["tokens"], found["lowest_id"], found["highest_id"]) == (0, None, None)


@pytest.mark.parametrize(
    ("arguments", "last_line", "bar"),
    [
        (["--mode", "save", "--per-step", "--out", "OUT"], "OUT: 6 files, ", b"0.00/6.00"),
        (["--mode", "save", "--out", "OUT/a.npy"], "OUT/a.npy: uint16 [24, 80]", b"0.00/24.0"),
        (["--find-ids", "1"], " hits", b"0.00/24.0"),
        (["--rows", ":"], "", b"0.00/24.0"),
        (["--rows", ":", "--json"], "}", b"0.00/24.0"),
    ],
)
def test_on_a_terminal_there_is_a_bar(run, tokens, tmp_path, arguments, last_line, bar):
    """On standard error, so that standard output is what it is without."""
    arguments = [
        "view",
        tokens,
        "--batch",
        4,
        *(a.replace("OUT", str(tmp_path)) for a in arguments),
    ]
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    with subprocess.Popen(
        [sys.executable, "-m", "pythia_fast", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                shown += os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
        stdout, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0
    assert bar in shown
    assert last_line.replace("OUT", str(tmp_path)) in stdout.splitlines()[-1]
    if "save" not in arguments:
        assert stdout == run(*arguments).stdout


def test_both_passes_of_the_statistics_are_told(run, tokens, monkeypatch):
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("pythia_fast.tokens.dataset.BLOCK_TOKENS", 800)
    said = run("view", tokens, "--mode", "stats", "--json")
    json.loads(said.stdout)
    assert "look at ids: 24/24 rows" in said.stderr
    assert "fingerprint: 24/24 rows" in said.stderr
