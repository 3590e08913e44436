import hashlib
import json

import pytest


@pytest.fixture
def sums(tokens):
    return {
        f"train{suffix}": hashlib.sha256(tokens.with_suffix(suffix).read_bytes()).hexdigest()
        for suffix in (".bin", ".idx")
    }


def test_a_list_is_made_and_taken(run, tokens, sums, tmp_path):
    text = run("checksum", tokens).stdout
    assert text == "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    assert json.loads(run("checksum", tokens, "--json").stdout) == {"sha256": sums}
    (tmp_path / "list").write_text(text)
    result = run("checksum", tokens.parent, "--against", tmp_path / "list")
    assert result.stdout == "train.bin: OK\ntrain.idx: OK\n"


def test_what_is_wrong_ends_with_4(run, tokens, sums, tmp_path):
    (tmp_path / "list").write_text(f"train.bin {'a' * 64}\ngone.bin {'b' * 64}\n")
    arguments = ("checksum", tokens.parent, "--against", tmp_path / "list")
    lines = run(*arguments, exit_code=4).stdout.splitlines()
    assert lines[0].startswith(f"train.bin: WRONG, it has {sums['train.bin']}")
    assert lines[1:] == ["gone.bin: MISSING", "train.idx: not in the list"]
    found = json.loads(run(*arguments, "--json", "--threads", 1, exit_code=4).stdout)
    assert found == {
        "ok": False,
        "sha256": {"train.bin": sums["train.bin"]},
        "wrong": ["train.bin"],
        "missing": ["gone.bin"],
        "unreadable": {},
        "extra": ["train.idx"],
    }


def test_the_whole(run, tokens, sums, tmp_path):
    run("shard", tokens, "--out", tmp_path / "cut", "--shard-bytes", 999)
    line = f"{sums['train.bin']}  train.bin\n"
    whole = ("checksum", tmp_path / "cut", "--whole")
    assert run(*whole).stdout == run("checksum", tokens, "--whole").stdout == line
    assert run(*whole, "--expect", sums["train.bin"].upper()).stdout == line
    assert "WRONG" in run(*whole, "--expect", "a" * 64, exit_code=4).stderr
    found = json.loads(run(*whole, "--expect", "a" * 64, "--json", exit_code=4).stdout)
    assert found == {
        "name": "train.bin",
        "sha256": sums["train.bin"],
        "expected": "a" * 64,
        "ok": False,
    }
    assert json.loads(run(*whole, "--json").stdout) == {
        "name": "train.bin",
        "sha256": sums["train.bin"],
    }


@pytest.mark.parametrize(
    "arguments",
    [("--whole", "--against", "list"), ("--expect", "a" * 64), ("--whole", "--expect", "a")],
)
def test_wrong_usage(run, tokens, arguments):
    run("checksum", tokens, *arguments, exit_code=2)


def test_bad_input(run, tokens, tmp_path):
    assert "no list" in run("checksum", tokens, "--against", tmp_path / "no", exit_code=3).stderr
    (tmp_path / "list").write_text("nonsense")
    result = run("checksum", tokens.parent, "--against", tmp_path / "list", exit_code=3)
    assert "line 1" in result.stderr
    assert "holds neither" in run("checksum", tmp_path / "nothing", exit_code=3).stderr
