import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pythia_fast.tokens import write_tokens


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


@pytest.mark.parametrize("rows", ["9:", "5:2", "6", "3:3", "7:9"])
def test_no_rows(run, texts, rows):
    told = run("stats", texts, "--rows", rows, exit_code=3)
    assert "the data has 6 rows, and none of them is in row" in told.stderr
    assert told.stdout == ""


def test_rows_beyond_the_data_are_an_error_and_an_open_end_is_not(run, texts):
    told = run("stats", texts, "--rows", "4:9", exit_code=3)
    assert "the data has 6 rows: give 4: to stop at the last" in told.stderr
    found = json.loads(run("stats", texts, "--rows", "4:", "--json").stdout)
    assert found["rows"] == 2


def test_data_without_rows(run, tmp_path):
    write_tokens(tmp_path / "none", [])
    found = json.loads(run("stats", tmp_path / "none", "--json").stdout)
    assert (found["rows"], found["shortest"], found["lowest_id"]) == (0, None, None)
    assert run("stats", tmp_path / "none").exit_code == 0


def test_counts_do_not_replace_the_data(run, tmp_path):
    write_tokens(tmp_path / "data", [[1, 2]])
    (tmp_path / "link").symlink_to("data.idx")
    before = (tmp_path / "data.bin").read_bytes()
    for name in ("data.bin", "data.idx", "link"):
        told = run("stats", tmp_path / "data", "--counts", tmp_path / name, exit_code=3)
        assert "a file of the data itself" in told.stderr
    assert (tmp_path / "data.bin").read_bytes() == before
    np.save(tmp_path / "ids.npy", np.ones((2, 3), np.int64))
    ids = tmp_path / "ids.npy"
    assert "a file of the data itself" in run("stats", ids, "--counts", ids, exit_code=3).stderr
    assert np.load(ids).shape == (2, 3)


@pytest.mark.parametrize("rows", ["three", "-1:2", "a:b", "1:2:3"])
def test_wrong_usage(run, texts, rows):
    run("stats", texts, "--rows", rows, exit_code=2)


def test_bad_input(run, texts, tmp_path):
    assert "no token data" in run("stats", tmp_path / "nothing", exit_code=3).stderr
    assert "end_id" in run("stats", texts, "--end-id", 70_000, exit_code=3).stderr


SLOW = """
import sys, time
from pathlib import Path
from pythia_fast.cli import main
from pythia_fast.tokens import TokenDataset

real = TokenDataset.gather

def gather(*arguments, **options):
    with Path(sys.argv[1]).open("a") as begun:
        begun.write(".")
    time.sleep(0.3)
    return real(*arguments, **options)

TokenDataset.gather = gather
main(["stats", sys.argv[2], "--threads", "3"], prog_name="pythia-fast")
"""


def test_an_interrupt_ends_it_at_once(tmp_path):
    write_tokens(tmp_path / "data", np.zeros((400, 20_000), np.uint16))  # tens of pieces
    begun = tmp_path / "begun"
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, begun, tmp_path / "data"], stderr=subprocess.PIPE, text=True
    ) as process:
        give_up = time.monotonic() + 60
        while not begun.exists():
            assert time.monotonic() < give_up
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        sent, before = time.monotonic(), begun.stat().st_size
        process.wait(timeout=30)
        assert time.monotonic() - sent < 3
        most = before + 2 * 3  # each thread ends what it has begun, and one more
        assert begun.stat().st_size <= most
        assert process.stderr.read() == "pythia-fast: interrupted\n"
    assert process.returncode == 130
