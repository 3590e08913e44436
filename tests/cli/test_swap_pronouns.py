import json

import pytest

from pythia_fast.tokens import TokenDataset, write_tokens


@pytest.fixture
def arguments(words, tmp_path):
    words.save(str(tmp_path / "tokenizer.json"))
    rows = [words.encode(text).ids for text in (" he saw", " his mat", "mat")]
    write_tokens(tmp_path / "old", rows)
    where = ("--tokenizer", tmp_path / "tokenizer.json", "--out", tmp_path / "new", "--batch", 1)
    return ("swap-pronouns", tmp_path / "old", *where)


def test_told_and_as_json(run, arguments, words, tmp_path):
    lines = run(*arguments).stdout.splitlines()
    assert lines[0] == (f"{tmp_path}/new: 3 rows, 5 tokens as uint16; 2 pronouns swapped in 2 rows")
    assert lines[1:4] == ["' he': 1", "' him': 0", "' his': 1"]
    found = json.loads(run(*arguments, "--after-step", 1, "--force", "--json").stdout)
    assert (found["swaps"], found["rows_changed"], found["counts"][" he"]) == (1, 1, 0)
    texts = [words.decode(row.tolist()) for row in TokenDataset(tmp_path / "new")]
    assert texts == [" he saw", " her mat", "mat"]
    found = json.loads(run(*arguments, "--rows", "1:3", "--force", "--json").stdout)
    assert (found["rows"], found["swaps"]) == (2, 1)


def test_what_is_wrong_is_told(run, arguments, tmp_path):
    assert "has seen" in run(*arguments, "--after-step", 9, exit_code=3).stderr
    assert "no row is chosen" in run(*arguments, "--rows", "2:1", exit_code=3).stderr
    gone = tmp_path / "gone" / "new"
    assert f"cannot write {gone}.bin" in run(*arguments, "--out", gone, exit_code=3).stderr
    assert not (tmp_path / "new.idx").exists()
    run(*arguments)
    assert "--force" in run(*arguments, exit_code=3).stderr
    assert "no tokenizer" in run(*arguments, "--tokenizer", tmp_path / "none", exit_code=3).stderr
