"""The file of JSON lines: what a kill leaves of it is gone on with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import FormatError, RunMismatchError, WriteError
from pythia_fast.tokens.passes import step_lines
from pythia_fast.tokens.passes.step_lines import StepLines, step_line

OF = {"function": "mine:count", "source": "a.bin, 48 rows", "batch": 4}


def write(path, steps):
    with StepLines(path, **OF) as lines:
        new = [step for step in steps if step not in lines]
        for step in new:
            lines.add(step, {"n": step * step})
        lines.finish()
    return new


def expected(steps):
    return "".join(step_line(step, {"n": step * step}, **OF) for step in steps)


def test_a_line_says_what_it_is_of():
    assert json.loads(step_line(3, {"n": [1, None]}, **OF)) == {
        "step": 3,
        "rows": [8, 12],
        "source": "a.bin, 48 rows",
        "function": "mine:count",
        "n": [1, None],
    }


@settings(max_examples=80, deadline=None)
@given(
    runs=st.lists(st.lists(st.integers(1, 12), unique=True, max_size=6).map(sorted), max_size=4),
    cut=st.integers(0, 40),
)
def test_runs_and_kills_end_in_one_file_in_order(tmp_path_factory, runs, cut):
    path = tmp_path_factory.mktemp("lines") / "stats.jsonl"
    for steps in runs:
        write(path, steps)
        whole = path.read_bytes()
        path.write_bytes(whole[: max(0, len(whole) - cut)])
    every = range(1, 13)
    left = path.read_text().count("\n") if path.exists() else 0
    assert len(write(path, every)) == 12 - left
    assert path.read_text() == expected(every)
    assert write(path, every) == []
    assert path.read_text() == expected(every)
    assert [each.name for each in path.parent.iterdir()] == ["stats.jsonl"]


def test_lines_are_there_at_once(tmp_path):
    path = tmp_path / "stats.jsonl"
    with StepLines(path, **OF) as lines:
        lines.add(2, {"n": 4})
        assert path.read_text() == expected([2])
        lines.add(1, {"n": 1})
    assert path.read_text() == expected([2, 1])  # it was not finished
    assert write(path, [1, 2]) == []
    assert path.read_text() == expected([1, 2])


@pytest.mark.parametrize(
    "text", ["hello", "hello\n", "[1]\n", "{}\n", '{"step": "x"}\n', '{"step": 0, "rows": []}\n',
             '{"step": 1, "rows": [0, 4], "function": "mi\n', "\xff\n"],
)  # fmt: skip
def test_other_files_are_left_alone(tmp_path, text):
    path = tmp_path / "notes"
    content = expected([1]).encode() + text.encode("latin1")
    path.write_bytes(content)
    with pytest.raises(FormatError, match="write to another file") as caught:
        StepLines(path, **OF)
    assert caught.value.offset == len(expected([1]))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "other", [{"function": "mine:other"}, {"source": "b.bin, 48 rows"}, {"batch": 8}]
)
def test_lines_of_something_else_are_refused(tmp_path, other):
    path = tmp_path / "stats.jsonl"
    write(path, [1, 2])
    with pytest.raises(RunMismatchError, match=r"line 1 of .* is of mine:count and rows \[0, 4\]"):
        StepLines(path, **(OF | other))


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    with pytest.raises(WriteError, match="No such file"):
        StepLines(tmp_path / "missing" / "stats.jsonl", **OF)
    with pytest.raises(WriteError, match="Is a directory"):
        StepLines(tmp_path, **OF)

    def no_room(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "stats.jsonl"
    with StepLines(path, **OF) as lines:
        lines.add(2, {"n": 4})
        monkeypatch.setattr(step_lines.os, "fsync", no_room)
        with pytest.raises(WriteError, match="No space left"):
            lines.finish()
        lines.add(1, {"n": 1})
        with pytest.raises(WriteError, match="No space left"):
            lines.finish()
        assert path.read_text() == expected([2, 1])
        with monkeypatch.context() as patch:
            patch.setattr(lines, "_file", Full())
            with pytest.raises(WriteError, match="No space left"):
                lines.add(3, {"n": 9})


class Full:
    def write(self, _):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    path = tmp_path / "stats.jsonl"
    if kind == "link":
        path.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    with pytest.raises(WriteError, match="give the name of"):
        StepLines(path, **OF)
    assert not (tmp_path / "other").exists()


@settings(max_examples=80, deadline=None)
@given(
    turns=st.lists(st.sampled_from([0, 1]), max_size=14),
    order=st.permutations(range(1, 13)),
    finisher=st.sampled_from([0, 1]),
)
def test_two_at_once_lose_nothing(tmp_path_factory, turns, order, finisher):
    path = tmp_path_factory.mktemp("lines") / "stats.jsonl"
    with StepLines(path, **OF) as one, StepLines(path, **OF) as two:
        writers, left = (one, two), [list(order), list(reversed(order))]
        for turn in turns:
            if left[turn]:
                step = left[turn].pop()
                writers[turn].add(step, {"n": step * step})
        for turn in (finisher, 1 - finisher):  # the other goes on when this one has replaced it
            for step in left[turn]:
                writers[turn].add(step, {"n": step * step})
            writers[turn].finish()
    assert path.read_text() == expected(range(1, 13))
    assert [each.name for each in path.parent.iterdir()] == ["stats.jsonl"]


def test_what_is_added_while_it_is_replaced_is_taken_over(tmp_path, monkeypatch):
    path = tmp_path / "stats.jsonl"
    with StepLines(path, **OF) as one, StepLines(path, **OF) as two:
        one.add(3, {"n": 9})
        one.add(1, {"n": 1})
        replace = Path.replace

        def add_before(partial, target):
            monkeypatch.undo()
            two.add(2, {"n": 4})
            two.finish()
            return replace(partial, target)

        monkeypatch.setattr(Path, "replace", add_before)
        one.finish()
    assert path.read_text() == expected([1, 2, 3])


def test_a_piece_before_another_writers_line_costs_only_itself(tmp_path):
    path = tmp_path / "stats.jsonl"
    path.write_text(expected([1])[:-9] + expected([2]))
    assert write(path, [1, 2]) == [1]
    assert path.read_text() == expected([1, 2])


ADD = """
import sys, time
from pathlib import Path
from pythia_fast.tokens.passes.step_lines import StepLines
with StepLines(Path(sys.argv[1]), function="mine:count", source="a.bin, 48 rows", batch=4) as lines:
    for step in map(int, sys.argv[2:]):
        lines.add(step, {"n": step * step})
        time.sleep(0.0005)
    lines.finish()
"""


def test_two_processes_at_once(tmp_path):
    path = tmp_path / "stats.jsonl"
    orders = [range(1, 200), range(250, 100, -1)]
    processes = [
        subprocess.Popen([sys.executable, "-c", ADD, str(path), *map(str, steps)])
        for steps in orders
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert path.read_text() == expected(range(1, 251))
