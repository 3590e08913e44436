"""Progress of long work: a bar on a terminal, lines elsewhere, nothing if it is not wanted."""

import io
import sys

import pytest

from pythia_fast.cli import progress


@pytest.fixture
def clock(monkeypatch):
    times = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))


@pytest.mark.usefixtures("clock")
def test_lines_now_and_then(capsys):
    with progress.shown("unshard", "B", quiet=False) as bar:
        bar(1000, 5000)  # at 20 s; what was there before says nothing of the speed
        bar(3000, 5000)  # at 40 s
        bar(3001, 5000)  # at 60 s, 20 s later
        bar(4000, 5000)  # at 80 s
        bar(4001)
        bar(5000)
    assert capsys.readouterr().err.splitlines() == [
        "unshard: 3,000 of 5,000 B, 50 B/s",
        "unshard: 4,000 of 5,000 B, 38 B/s",
        "unshard: 5,000 B, 33 B/s",
    ]


def test_a_bar_on_a_terminal(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(stderr, "isatty", lambda: True, raising=False)
    with progress.shown("unshard", "B", quiet=False) as bar:
        bar(1000, 5000)
        bar(5000, 5000)
    assert "unshard" in stderr.getvalue()
    with progress.shown("unshard", "B", quiet=False):
        pass  # nothing was done: no bar


def test_nothing_if_it_is_not_wanted(monkeypatch):
    with progress.shown("unshard", "B", quiet=True) as bar:
        assert bar is None
    monkeypatch.setattr(sys, "stderr", None)
    with progress.shown("unshard", "B", quiet=False) as bar:
        assert bar is None
