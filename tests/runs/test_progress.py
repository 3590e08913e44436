"""Progress on a terminal and elsewhere."""

import io
import sys
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast import progress as progress_module
from pythia_fast.runs.progress import Progress
from pythia_fast.streaming.times import LoadTimes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(checkpoints=3, tokens=1000, shown=True) as progress:
        progress.advance(500, 0)
        progress.checkpoint_done()
        progress.say("a line")
    assert "1/3 checkpoints" in screen.getvalue()
    assert "a line\n" in screen.getvalue()


def test_what_is_left_to_others_is_no_part_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(checkpoints=8, tokens=1000, shown=True) as progress:
        progress.of("other").leave_to_others(5, 600)
        assert progress._bar.total == 400
        progress.advance(400, 0)
        progress.checkpoint_done()
        assert progress._bar._drawn.format_dict["n"] == progress._bar._drawn.total == 400
    assert "1/3 checkpoints" in screen.getvalue()


def test_a_line_now_and_then_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress(checkpoints=2, tokens=100, shown=True) as progress:
        progress.advance(10, 0)
        now[0] += progress_module.LINE_EVERY_S
        progress.advance(40, 0)
        progress.checkpoint_done()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["0/2 checkpoints: 50/100 tokens, 2 tokens/s, 00:30 left"]


def test_what_was_done_before_does_not_count_for_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress(checkpoints=10, tokens=1000, shown=False) as progress:
        progress.skip(900, 0)
        now[0] += 10
        progress.advance(50, 0)
        assert progress.line() == "0/10 checkpoints: 950/1,000 tokens, 5 tokens/s, 00:10 left"


def test_nor_does_it_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(checkpoints=10, tokens=1000, shown=True) as progress:
        progress.skip(900, 0)
        drawn = progress._bar._drawn
        assert drawn.format_dict["n"] == drawn.format_dict["initial"] == 900


def test_nothing_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(checkpoints=1, tokens=1, shown=False) as progress:
        progress.advance(1, 0)
        progress.say("hidden")
    assert capsys.readouterr().err == ""


class Ahead:
    """What is said of downloads."""

    received_bytes = 0
    waits_for_room = False


def test_the_line_says_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, ahead = [1000.0], Ahead()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress(checkpoints=2, tokens=100, shown=True) as progress:
        progress.waiting(7, ahead)  # too soon for a line
        for room, received_bytes in ((False, 0), (False, 60_000_000), (True, 60_000_000)):
            now[0] += progress_module.LINE_EVERY_S
            ahead.received_bytes, ahead.waits_for_room = received_bytes, room
            progress.waiting(7, ahead)
    assert [line.split("; ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "waiting for step 7",
        "waiting for step 7, 2.0 MB/s",
        "waiting for step 7, which waits for room on the disk",
    ]


def test_line_and_bar_say_which_stage_is_the_bottleneck(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(checkpoints=3, tokens=1000, shown=True) as progress:
        progress.loaded(LoadTimes())
        assert "bound by" not in progress.line()
        progress.loaded(LoadTimes(download_s=4, open_s=4, wait_s=3, received_bytes=9))
        progress.computed(1.0)
        assert progress.line().endswith(", bound by download (waits 75% of the time)")
        progress.waiting(2, Ahead())
    assert "bound by download" in screen.getvalue()
    assert "waiting for step 2" in screen.getvalue()


def test_another_look_ahead_begins_to_count_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a step that failed, of which another has the weights."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    first, second = Ahead(), Ahead()
    with Progress(checkpoints=2, tokens=100, shown=True) as progress:
        for ahead, received_bytes in (
            *((first, 60_000_000), (first, 90_000_000)),
            *((second, 3_000_000), (second, 6_000_000)),
        ):
            now[0] += progress_module.LINE_EVERY_S
            ahead.received_bytes = received_bytes
            progress.waiting(7, ahead)
    assert [line.split("; ")[1] for line in capsys.readouterr().err.splitlines()] == [
        *("waiting for step 7", "waiting for step 7, 1.0 MB/s"),
        *("waiting for step 7", "waiting for step 7, 0.1 MB/s"),
    ]


def test_what_is_left_of_a_step_that_failed_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress(checkpoints=3, tokens=300, shown=False) as progress:
        now[0] += 10
        progress.advance(40, 1)
        progress.leave_out(1, 100)
        progress.leave_out(2, 100)
        assert progress.line() == "0/3 checkpoints: 200/300 tokens, 4 tokens/s, 00:25 left"


def test_of_time_nothing_is_said_before_it_is_known() -> None:
    with Progress(checkpoints=3, tokens=300, shown=False) as progress:
        assert progress.line() == "0/3 checkpoints: 0/300 tokens, 0 tokens/s"


def test_each_of_several_models_speaks_in_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress(checkpoints=4, tokens=400, shown=True) as progress:
        small, large = progress.of("70m"), progress.of("12b")
        small.say("2 steps to load")
        progress.say("all are here")
        small.advance(100, 0)
        small.checkpoint_done()
        now[0] += progress_module.LINE_EVERY_S
        large.advance(50, 0)
        large.advance(10, 0)  # too soon for another line
        now[0] += progress_module.LINE_EVERY_S
        large.waiting(7, Ahead())
    assert capsys.readouterr().err.splitlines() == [
        "70m: 2 steps to load",
        "all are here",
        "1/4 checkpoints: 150/400 tokens, 5 tokens/s, 00:50 left",
        "1/4 checkpoints: 160/400 tokens, 3 tokens/s, 01:30 left; waiting for step 7 of 12b",
    ]


def test_the_bar_is_one_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(checkpoints=2, tokens=30, shown=True) as progress:
        for name in ("70m", "12b"):
            part = progress.of(name)
            part.advance(15, 0)
            part.checkpoint_done()
        assert progress._bar._drawn.format_dict["n"] == 30
    assert "2/2 checkpoints" in screen.getvalue()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["advance", "skip", "leave_out"]),
            st.integers(0, 2),
            st.integers(0, 50),
        )
    )
)
def test_steps_of_the_same_number_are_told_apart(calls: list[tuple[str, str, int, int]]) -> None:
    """What is left out of a step is what that model has not looked at; the rest is a sum."""
    with Progress(checkpoints=9, tokens=900, shown=False) as progress:
        parts = {name: progress.of(name) for name in "abc"}
        looked_at: Counter[tuple[str, int]] = Counter()
        for name, call, step, tokens in calls:
            if call == "leave_out":
                parts[name].leave_out(step, 100)
                looked_at[name, step] = max(100, looked_at[name, step])
            else:
                getattr(parts[name], call)(tokens, step)
                looked_at[name, step] += tokens
        assert f" {looked_at.total():,}/900 tokens" in progress.line()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["advance", "skip", "again"]), st.integers(0, 2), st.integers(0, 50)
        )
    )
)
def test_what_is_lost_and_done_again_counts_once(calls: list[tuple[str, int, int]]) -> None:
    """As on a cluster: what a lost worker had skipped says nothing of the speed afterwards."""
    screen = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        now = [1000.0]
        patch.setattr(time, "monotonic", lambda: now[0])
        plain = Progress(checkpoints=9, tokens=900, shown=False)
        patch.setattr(sys, "stderr", screen)
        with Progress(checkpoints=9, tokens=900, shown=True) as barred:
            for each in (plain.of("a"), barred.of("a")):
                looked_at: Counter[int] = Counter()
                computed: Counter[int] = Counter()
                for call, step, tokens in calls:
                    if call == "again":
                        each.again(step)
                        looked_at[step] = computed[step] = 0
                    else:
                        getattr(each, call)(tokens, step)
                        looked_at[step] += tokens
                        computed[step] += tokens if call == "advance" else 0
            bar = barred._bar._drawn
            assert (bar.n, bar.n - bar.initial) == (looked_at.total(), computed.total())
            now[0] += 10
            rate = computed.total() / 10
            told = f"{rate:.2g}" if 0 < rate < 1 else f"{rate:,.0f}"
            words = f"{looked_at.total():,}/900 tokens, {told} tokens/s"
            assert words in plain.line()
            assert words in barred.line()
