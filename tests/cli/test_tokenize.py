import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pythia_fast.tokens import TokenDataset


@pytest.fixture
def arguments(suite, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": ""}\n{"text": "three"}\n')
    where = ("--tokenizer", suite / "tokenizer.json", "--out", tmp_path / "out")
    return ("tokenize", tmp_path / "a.jsonl", *where)


def test_json_lines(run, arguments, tmp_path):
    result = run(*arguments)
    assert result.stdout == f"{tmp_path}/out: 2 rows, 8 tokens of 2 documents, as uint16\n"
    assert "1 empty document left out" in result.stderr
    assert [bytes(row.tolist()) for row in TokenDataset(tmp_path / "out")] == [b"one", b"three"]


def test_rows_and_json(run, arguments, tmp_path):
    found = json.loads(run(*arguments, "--row-tokens", 4, "--json", "--keep-empty").stdout)
    assert found == {
        "out": str(tmp_path / "out"),
        "dtype": "uint16",
        "rows": 3,
        "tokens": 12,
        "documents": 3,
        "empty": 0,
        "mistakes": 0,
        "first_mistakes": [],
        "tokens_left": 1,
    }
    assert [row.tolist() for row in TokenDataset(tmp_path / "out")] == [
        [*b"one", 256],
        [256, 256, *b"th"],
        [*b"hree"],
    ]
    assert "too few for a row" in run(*arguments, "--row-tokens", 5, "--force").stderr
    run(*arguments, "--append-eod", "--quiet", "--force")
    assert [row.tolist()[-1] for row in TokenDataset(tmp_path / "out")] == [256, 256]


def test_what_is_skipped_ends_with_4(run, arguments, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' + "{\n" * 12)
    assert "line 2" in run(*arguments, exit_code=3).stderr
    result = run(*arguments, "--on-error", "skip", exit_code=4)
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"skipped: {tmp_path}/a.jsonl: line 2")
    assert lines[-1] == "skipped: 12 in all"
    assert TokenDataset(tmp_path / "out")[0].tolist() == [*b"one"]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("", (), "a.jsonl: no document with a token, so there is no row to write"),
        ('{"text": ""}\n', (), "no document with a token (1 empty document)"),
        ('{"text": "one"}\n', ("--row-tokens", 9), "4 tokens, which fill no row of 9"),
        ("{\n", ("--on-error", "skip"), "(1 skipped, the first: "),
    ],
)
def test_what_makes_no_row_makes_no_pair(run, arguments, tmp_path, content, options, words):
    (tmp_path / "a.jsonl").write_text(content)
    assert words in run(*arguments, *options, exit_code=3).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_several_texts_by_lines(run, arguments, tmp_path):
    (tmp_path / "b.txt").write_text("four\n")
    (tmp_path / "c.txt").write_text("five\nsix\n")
    command, _, *where = arguments
    run(command, tmp_path / "b.txt", tmp_path / "c.txt", "--split", "line", *where)
    assert [bytes(row.tolist()) for row in TokenDataset(tmp_path / "out")] == [
        *(b"four", b"five", b"six")
    ]


def test_bad_input(run, arguments, tmp_path):
    command, _, *where = arguments
    assert "no text at" in run(command, tmp_path / "no", *where, exit_code=3).stderr
    run(command, *where, exit_code=2)


def test_a_pair_that_is_there_is_kept_without_force(run, arguments, tmp_path):
    run(*arguments)
    before = (tmp_path / "out.bin").read_bytes()
    (tmp_path / "a.jsonl").write_text('{"text": "other"}\n')
    assert "--force" in run(*arguments, exit_code=3).stderr
    assert (tmp_path / "out.bin").read_bytes() == before
    run(*arguments, "--force")
    assert (tmp_path / "out.bin").read_bytes() != before


def test_shards_keep_their_index(run, arguments, tmp_path):
    run(*arguments)
    run("shard", tmp_path / "out", "--out", tmp_path / "cut", "--shard-bytes", 4)
    before = (tmp_path / "cut" / "out.idx").read_bytes()
    for force in ((), ("--force",)):
        run(*arguments[:-1], tmp_path / "cut" / "out", *force, exit_code=3)
    (tmp_path / "cut" / "out.idx").rename(tmp_path / "cut" / "out.away")
    told = run(*arguments[:-1], tmp_path / "cut" / "out", exit_code=3).stderr
    assert "is a shard of the data whose index" in told
    assert (tmp_path / "cut" / "out.away").read_bytes() == before


def test_where_the_pair_cannot_go(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(*arguments[:-1], "", exit_code=2)
    (tmp_path / "d2").mkdir()
    for out in ("d2", "d2/", "new/", f"{tmp_path}/d2"):
        assert "is a folder: give the prefix" in run(*arguments[:-1], out, exit_code=3).stderr
    assert "cannot write" in run(*arguments[:-1], "x" * 300, exit_code=3).stderr
    assert (
        "cannot write new/out.bin: No such file"
        in run(*arguments[:-1], "new/out", exit_code=3).stderr
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "d2"]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("how", ["-", "fifo"])
def test_an_interrupt_ends_the_wait_for_a_quiet_pipe(arguments, tmp_path, how, begun):
    os.mkfifo(tmp_path / "fifo")
    source = "-" if how == "-" else tmp_path / "fifo"
    command, _, *where = map(str, arguments)
    words = [sys.executable, "-m", "pythia_fast", command, str(source), "--split", "line", *where]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        fifo = os.open(tmp_path / "fifo", os.O_RDWR)
        writer = fifo if how == "fifo" else process.stdin.fileno()
        if begun:
            os.write(writer, b"one\n" * 9)
        give_up = time.monotonic() + 60
        while not list(tmp_path.glob(".out.idx.*.partial")):
            assert time.monotonic() < give_up
            time.sleep(0.002)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        process.wait(timeout=30)
        assert time.monotonic() - sent < 5
        assert process.stderr.read() == "pythia-fast: interrupted\n"
    assert process.returncode == 130
    os.close(fifo)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "fifo"]


@pytest.mark.parametrize("how", ["-", "fifo"])
def test_a_slow_pipe_is_read_to_its_end(arguments, tmp_path, how):
    os.mkfifo(tmp_path / "fifo")
    source = "-" if how == "-" else tmp_path / "fifo"
    command, _, *where = map(str, arguments)
    words = [sys.executable, "-m", "pythia_fast", command, str(source), "--split", "line", *where]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        with process.stdin if how == "-" else (tmp_path / "fifo").open("wb") as writer:
            for piece in (b"on", b"e\ntw", b"o\n"):
                writer.write(piece)
                writer.flush()
                time.sleep(0.25)
        assert process.wait(timeout=60) == 0
    assert [bytes(row.tolist()) for row in TokenDataset(tmp_path / "out")] == [b"one", b"two"]
