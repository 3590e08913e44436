"""The file of JSON lines: what a kill leaves of it is gone on with."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import FormatError, RunMismatchError, WriteError
from pythia_fast.tokens import step_lines
from pythia_fast.tokens.step_lines import StepLines, step_line

OF = {"function": "mine:count", "batch": 4}


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


@pytest.mark.parametrize("other", [{"function": "mine:other"}, {"batch": 8}])
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
