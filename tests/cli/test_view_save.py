"""`view --mode save`, also killed and resumed."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pythia_fast.tokens import write_tokens


def test_one_file(run, tokens, tiny_ids, tmp_path):
    out = tmp_path / "seen.npy"
    arguments = ["view", tokens, "--batch", 4, "--mode", "save", "--out", out]
    assert run(*arguments, "--steps", "1:3").stdout == f"{out}: uint16 [8, 80]\n"
    got = np.load(out)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, tiny_ids[4:12])
    found = json.loads(run(*arguments, "--rows", "20:", "--dtype", "int64", "--json").stdout)
    assert found["path"] == str(out)
    assert (found["dtype"], found["shape"]) == ("int64", [4, 80])
    assert found["selection"] == {"rows": [20, 24]}
    np.testing.assert_array_equal(np.load(out), tiny_ids[20:])
    run(*arguments)
    np.testing.assert_array_equal(np.load(out), tiny_ids)
    assert [path.name for path in tmp_path.iterdir()] == ["seen.npy"]


def test_a_file_for_each_step(run, tokens, tiny_ids, tmp_path):
    arguments = ["view", tokens, "--batch", 5, "--mode", "save", "--per-step", "--out", tmp_path]
    assert run(*arguments, "--steps", "1:3").stdout == (
        f"{tmp_path}: 2 files, 0 of which were there already\n"
    )
    found = json.loads(run(*arguments, "--json").stdout)  # all whole steps
    assert (found["written"], found["kept"]) == (2, 2)
    assert found["selection"] == {"rows": [0, 20], "steps": [1, 5], "batch": 5}
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [f"step=00000{step}.npy" for step in (1, 2, 3, 4)]
    np.testing.assert_array_equal(np.concatenate([*map(np.load, files)]), tiny_ids[:20])


@pytest.mark.parametrize(
    ("out", "words"), [("missing/a.npy", "No such file"), ("folder.npy", "Is a directory")]
)
def test_where_nothing_can_be_written(run, tokens, tmp_path, out, words):
    (tmp_path / "folder.npy").mkdir()
    arguments = ["view", tokens, "--rows", "0:2", "--mode", "save", "--out", tmp_path / out]
    assert words in run(*arguments, exit_code=3).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npy"]


@pytest.mark.parametrize("ending", ["idx", "bin"])
def test_the_data_itself_is_spared(run, tmp_path, ending):
    write_tokens(tmp_path / "data", np.ones((8, 4), np.uint16))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "hard.npy").hardlink_to(tmp_path / f"data.{ending}")
    (tmp_path / "soft.npy").symlink_to(tmp_path / f"data.{ending}")
    arguments = ["view", tmp_path / "data", "--batch", 4]
    for out in (f"data.{ending}", "hard.npy", "soft.npy"):
        for mode in (["save", "--per-step"], ["save"], ["stats", "--function", "builtins:len"]):
            if mode == ["save"] and not out.endswith(".npy"):
                continue  # a wrong name, whatever lies there
            done = run(*arguments, "--mode", *mode, "--out", tmp_path / out, exit_code=3)
            assert "is a file of the data itself: write elsewhere" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("out", ["s.txt", "s", "s.NPY"])
def test_a_name_that_says_something_else_is_refused(run, tokens, tmp_path, out):
    arguments = ["view", tokens, "--rows", "0:2", "--mode", "save", "--out", tmp_path / out]
    told = run(*arguments, exit_code=2).stderr
    assert f"writes a .npy file: give --out a name that ends so, not {tmp_path / out}" in told
    assert not list(tmp_path.iterdir())


def test_what_was_saved_is_data_again(run, tokens, tiny_ids, tmp_path):
    saved = tmp_path / "saved.npy"
    run("view", tokens, "--rows", "2:9", "--mode", "save", "--out", saved)
    again = tmp_path / "again.npy"
    run("view", saved, "--rows", "1:4", "--mode", "save", "--out", again)
    np.testing.assert_array_equal(np.load(again), tiny_ids[3:6])
    assert json.loads(run("stats", saved, "--json").stdout)["tokens"] == 7 * 80
    before = saved.read_bytes()
    told = run("view", saved, "--mode", "save", "--out", saved, exit_code=3).stderr
    assert "is a file of the data itself" in told
    assert saved.read_bytes() == before


SLOW = """
import time
from pythia_fast.cli import main
from pythia_fast.tokens import TokenDataset

real = TokenDataset.gather

def gather(*arguments, **options):
    time.sleep(0.02)
    return real(*arguments, **options)

TokenDataset.gather = gather
main(prog_name="pythia-fast")
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_each_step_goes_on_where_it_was_stopped(run, tmp_path, how):
    ids = np.random.default_rng(0).integers(0, 60_000, (400, 16)).astype(np.uint16)
    write_tokens(tmp_path / "data", ids)
    out = tmp_path / "steps"
    arguments = ["view", tmp_path / "data", "--batch", 1, "--mode", "save", "--per-step"]
    arguments += ["--out", out]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        give_up = time.monotonic() + 60
        while len(list(out.glob("step=*.npy"))) < 5 and time.monotonic() < give_up:
            time.sleep(0.002)
        process.send_signal(how)
        _, stderr = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        *_, resumable, interrupted = stderr.splitlines()
        assert "the same command goes on from there" in resumable
        assert interrupted == "pythia-fast: interrupted"
        assert not list(out.glob(".*"))
    kept = {path: path.stat().st_mtime_ns for path in out.glob("step=*.npy")}
    assert 5 <= len(kept) < 400
    for path in kept:
        np.load(path)
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["kept"] == len(kept)
    assert found["written"] == 400 - len(kept)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    files = sorted(out.glob("step=*.npy"))
    np.testing.assert_array_equal(np.concatenate([*map(np.load, files)]), ids)
