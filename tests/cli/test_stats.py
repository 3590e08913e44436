import json

import numpy as np
import pytest


def test_numbers_for_people(run, texts, suite):
    result = run("stats", texts, "--tokenizer", suite / "tokenizer.json", "--top", 3)
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[-4:]] == ["lengths", "id", "id", "id"]
    told = dict(line.split(maxsplit=1) for line in lines[:-4])
    assert told["rows"] == "6"
    assert told["tokens"] == "58"
    assert (told["end_id"], told["ends"]) == ("256", "1")
    assert lines[-4].split(":")[-1].strip() == "13"
    assert "'x'" in lines[-3]


def test_numbers_for_programs(run, texts, tmp_path):
    arguments = ("stats", texts, "--rows", "1:3", "--vocab-rows", 115, "--end-id", 58)
    found = json.loads(
        run(*arguments, "--counts", tmp_path / "counts.npy", "--top", 1, "--json").stdout
    )
    ids = b"row 1: x" + b"row 2: xx"
    assert (found["rows"], found["tokens"], found["ends"]) == (2, len(ids), 2)
    assert found["outside"] == sum(byte >= 115 for byte in ids)
    assert found["top"] == [{"id": 32, "count": 4}]
    counts = np.load(tmp_path / "counts.npy")
    assert counts.tolist() == np.bincount([b for b in ids if b < 115], minlength=115).tolist()


def test_one_row(run, texts):
    assert json.loads(run("stats", texts, "--rows", 3, "--json").stdout)["tokens"] == 10


def test_no_rows(run, texts):
    found = json.loads(run("stats", texts, "--rows", "9:", "--json").stdout)
    assert (found["rows"], found["shortest"], found["lowest_id"]) == (0, None, None)
    assert run("stats", texts, "--rows", "9:").exit_code == 0


@pytest.mark.parametrize("rows", ["three", "-1:2", "a:b", "1:2:3"])
def test_wrong_usage(run, texts, rows):
    run("stats", texts, "--rows", rows, exit_code=2)


def test_bad_input(run, texts, tmp_path):
    assert "no token data" in run("stats", tmp_path / "nothing", exit_code=3).stderr
    assert "end_id" in run("stats", texts, "--end-id", 70_000, exit_code=3).stderr
