"""`view --mode stats --function`, also killed and resumed."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pythia_fast.tokens import write_tokens

MODULE = """
import os, time
from pathlib import Path

def count(ids):
    return {"sum": ids.sum(), "first": ids[0, :3]}

def picky(ids):
    if ids[0, 0] == FOURTH:
        raise ValueError("not this one")
    return {"sum": ids.sum()}

def leaves(ids):
    raise SystemExit(0)

def waits(ids):
    while ids[0, 0] == FOURTH and not Path("go").exists():
        time.sleep(0.01)
    return {"sum": ids.sum()}
"""

numbers = itertools.count()


@pytest.fixture
def mine(tmp_path, monkeypatch, tiny_ids):
    """A module of the user's in the current folder; FOURTH is the first id of the fourth step."""
    name = f"my_functions_{next(numbers)}"
    firsts = tiny_ids[::4, 0].tolist()
    assert firsts.count(firsts[3]) == 1
    (tmp_path / f"{name}.py").write_text(MODULE.replace("FOURTH", str(firsts[3])))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return name


@pytest.fixture
def arguments(tokens):
    return ["view", tokens, "--batch", 4, "--mode", "stats", "--function"]


def expected(name, ids, steps):
    return [
        {"step": step, "rows": [4 * step - 4, 4 * step], "function": name,
         "sum": int(ids[4 * step - 4 : 4 * step].sum())}
        for step in steps
    ]  # fmt: skip


def lines(text):
    found = [json.loads(line) for line in text.splitlines()]
    for each in found:
        assert each.pop("source").endswith("train.bin, 24 rows")
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_line_a_step(run, arguments, mine, tiny_ids, workers):
    done = run(*arguments, f"{mine}:count", "--workers", workers)
    found = lines(done.stdout)
    assert [each.pop("first") for each in found] == tiny_ids[::4, :3].tolist()
    assert found == expected(f"{mine}:count", tiny_ids, range(1, 7))
    assert done.stderr.startswith("rows 0 to 23: training steps 1 to 6")
    some = lines(run(*arguments, f"{mine}:count", "--steps", "2:4").stdout)
    assert [each["step"] for each in some] == [3, 4]


def test_a_file_is_gone_on_with(run, arguments, mine, tiny_ids, tmp_path):
    out = tmp_path / "sums.jsonl"
    arguments += [f"{mine}:waits", "--workers", 1, "--out", out]
    (tmp_path / "go").touch()
    assert run(*arguments, "--steps", "1:3").stdout == (
        f"{out}: 2 of 2 steps, 0 of which were there already\n"
    )
    found = json.loads(run(*arguments, "--json").stdout)
    assert (found["written"], found["kept"], found["failed"]) == (4, 2, [])
    assert lines(out.read_text()) == expected(f"{mine}:waits", tiny_ids, range(1, 7))
    refused = run(*arguments, "--function", f"{mine}:count", exit_code=3).stderr
    assert "write to another file" in refused
    write_tokens(tmp_path / "other", tiny_ids)
    arguments[1] = tmp_path / "other"
    refused = run(*arguments, exit_code=3).stderr
    assert "other.bin, 24 rows" in refused
    assert "write to another file" in refused


@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_that_fails_is_named_and_the_others_are_kept(
    run, arguments, mine, tiny_ids, tmp_path, workers
):
    out = tmp_path / "sums.jsonl"
    name = f"{mine}:picky"
    arguments += [name, "--workers", workers]
    done = run(*arguments, exit_code=4)
    assert lines(done.stdout) == expected(name, tiny_ids, (1, 2, 3, 5, 6))
    assert "step 4 failed: ValueError: not this one" in done.stderr
    done = run(*arguments, "--out", out, exit_code=4)
    assert "5 of 6 steps" in done.stdout
    done = run(*arguments, "--out", out, "--json", exit_code=4)
    found = json.loads(done.stdout)
    assert (found["written"], found["kept"]) == (0, 5)
    assert [each["step"] for each in found["failed"]] == [4]
    module = tmp_path / f"{mine}.py"
    module.write_text(module.read_text().replace("raise", "return {'sum': ids.sum()} #"))
    sys.modules.pop(mine)
    run(*arguments, "--out", out)
    assert lines(out.read_text()) == expected(name, tiny_ids, range(1, 7))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_it_goes_on_where_it_was_stopped(run, arguments, mine, tiny_ids, tmp_path, how, workers):
    out = tmp_path / "sums.jsonl"
    name = f"{mine}:waits"
    arguments += [name, "--workers", workers, "--out", out]
    with subprocess.Popen(
        [sys.executable, "-m", "pythia_fast", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        give_up = time.monotonic() + 60
        while not (out.exists() and out.read_text().count("\n") == 3):
            assert time.monotonic() < give_up
            time.sleep(0.002)
        os.killpg(process.pid, how)  # as a terminal's Ctrl-C, or its end, reaches all of them
        _, stderr = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        *_, resumable, interrupted = stderr.splitlines()
        assert "the same command goes on from there" in resumable
        assert interrupted == "pythia-fast: interrupted"
    assert lines(out.read_text()) == expected(name, tiny_ids, (1, 2, 3))
    with out.open("a") as file:
        file.write('{"step": 4, "ro')  # what a kill in the midst of a line leaves
    (tmp_path / "go").touch()
    found = json.loads(run(*arguments, "--json").stdout)
    assert (found["written"], found["kept"]) == (3, 3)
    assert lines(out.read_text()) == expected(name, tiny_ids, range(1, 7))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("no_such_module:count", "no module 'no_such_module'"),
        ("MINE:nothing", "has no 'nothing'"),
        ("MINE:Path.home.no", "has no"),
        ("MINE", "give module:function"),
        ("MINE:os", "is of type module, not a function"),
    ],
)
def test_what_is_no_function_is_bad_input(run, arguments, mine, tmp_path, function, words):
    out = tmp_path / "sums.jsonl"
    done = run(*arguments, function.replace("MINE", mine), "--out", out, exit_code=3)
    assert words in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_that_exits(run, arguments, mine, workers):
    done = run(*arguments, f"{mine}:leaves", "--workers", workers, exit_code=4)
    assert done.stderr.count("failed: SystemExit: 0") == 6


def test_a_function_that_returns_no_dict(run, arguments, mine):
    done = run(*arguments, "builtins:len", "--steps", "1", "--workers", 1, exit_code=4)
    assert done.stdout == ""
    assert "step 1 failed: TypeError: it returned a value of type int, not a dict" in done.stderr
