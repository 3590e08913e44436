import hashlib
import importlib
import json

import numpy as np
import pytest

from pythia_fast.tokens import TokenDataset, write_tokens


def test_ids_are_shown_without_a_tokenizer(run, texts):
    lines = run("view", texts, "--rows", "0:2").stdout.splitlines()
    assert lines[0] == "--- row 0, 7 tokens"
    assert bytes(map(int, lines[1].split())) == b"row 0: "
    assert lines[2] == "--- row 1, 8 tokens"


def test_text_is_shown_with_one_and_so_are_special_tokens(run, texts, suite):
    text = run("view", texts, "--tokenizer", suite / "tokenizer.json", "--rows", "4:").stdout
    assert text == (
        "--- row 4, 11 tokens\nrow 4: xxxx\n--- row 5, 13 tokens\nrow 5: xxxxx<|endoftext|>\n"
    )


def test_five_rows_are_shown_by_default(run, texts):
    assert run("view", texts).stdout.count("--- row") == 5


@pytest.mark.parametrize(
    ("option", "value", "rows"),
    [
        ("--rows", "2", [2]),
        ("--rows", ":2", [0, 1]),
        ("--rows", "4:99", [4, 5]),
        ("--rows", ":", [0, 1, 2, 3, 4, 5]),
        ("--steps", "1", [0, 1]),
        ("--steps", "2:4", [2, 3, 4, 5]),
        ("--steps", "3:", [4, 5]),
        ("--steps", ":2", [0, 1]),
    ],
)
def test_rows_and_steps_choose(run, texts, option, value, rows):
    found = json.loads(run("view", texts, option, value, "--batch", 2, "--json").stdout)
    assert [row["row"] for row in found["rows"]] == rows
    steps = [row.get("step") for row in found["rows"]]
    assert steps == ([row // 2 + 1 for row in rows] if option == "--steps" else [None] * len(rows))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--rows", "6:9", "6 rows"),
        ("--rows", "3:3", "none of them"),
        ("--steps", "4", "6 rows"),
        ("--steps", "0:2", "counted from 1"),
    ],
)
def test_rows_that_are_not_there_are_bad_input(run, texts, option, value, words):
    result = run("view", texts, option, value, "--batch", 2, exit_code=3)
    assert words in result.stderr


def test_statistics_are_those_of_the_rows(run, tmp_path, monkeypatch):
    module = importlib.import_module("pythia_fast.cli.view")  # the name is the command's too
    monkeypatch.setattr(module, "BLOCK_ROWS", 3)
    random = np.random.default_rng(3)
    rows = [random.integers(5, 60_000, size=length) for length in (4, 1, 9, 0, 7, 2, 3)]
    write_tokens(tmp_path / "data", rows)
    found = json.loads(run("view", tmp_path / "data", "--mode", "stats", "--json").stdout)
    every = np.concatenate(rows)
    assert found["sequences"] == 7
    assert found["tokens"] == len(every)
    assert (found["shortest"], found["longest"]) == (0, 9)
    assert (found["lowest_id"], found["highest_id"]) == (every.min(), every.max())
    assert found["dtype"] == "uint16"
    assert found["mean_length"] == pytest.approx(len(every) / 7, abs=0.01)
    assert found["fingerprint"] == TokenDataset(tmp_path / "data").fingerprint()
    assert len(found["fingerprint"]) == len(hashlib.sha256().hexdigest())
    some = json.loads(
        run("view", tmp_path / "data", "--mode", "stats", "--rows", "1:4", "--json").stdout
    )
    assert (some["sequences"], some["tokens"], some["shortest"]) == (3, 10, 0)
    assert some["fingerprint"] == TokenDataset(tmp_path / "data").fingerprint(slice(1, 4))
    lines = run("view", tmp_path / "data", "--mode", "stats").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(found)


def test_statistics_of_rows_without_tokens(run, tmp_path):
    write_tokens(tmp_path / "empty", [np.array([], dtype=int)])
    found = json.loads(run("view", tmp_path / "empty", "--mode", "stats", "--json").stdout)
    assert (found["tokens"], found["lowest_id"], found["highest_id"]) == (0, None, None)
