"""Progress of long work: a bar on a terminal, lines elsewhere, nothing if it is not wanted."""

import errno
import io
import logging
import re
import sys
import threading
import time

import pytest
from tqdm import tqdm

from pythia_fast.progress import LINE_EVERY_S, Bar, warn
from pythia_fast.progress import clock as clock_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands still unless it is set on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def standard_error(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal; not a fixture, as pytest puts its own there between them and the test."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_lines_now_and_then(clock, capsys):
    with Bar("unshard", "B", on=True) as bar:
        bar(1000, 5000)  # what was there before says nothing of the speed
        for done, total in ((3000, 5000), (3001, 5000), (4000, 5000), (4001, None)):
            clock.now_s += 20
            bar(done, total)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "unshard: 3 kB/5 kB, 50 B/s, 00:39 left",
        "unshard: 4 kB/5 kB, 37.5 B/s, 00:26 left",
    ]


def test_a_total_may_stay_unknown_and_slow_work_is_not_at_rest(clock, capsys):
    with Bar("convert", "steps", on=True) as bar:
        clock.now_s += 200
        bar.advance()
    assert capsys.readouterr().err == "convert: 1 steps, 0.005 steps/s\n"


def test_a_bar_on_a_terminal_before_anything_is_done(monkeypatch):
    screen = standard_error(monkeypatch)
    with Bar("unshard", "B", on=True) as bar:
        assert "unshard" in screen.getvalue()
        bar(1000, 5000)
        bar(5000, 5000)
        assert "0.00/5.00k" in screen.getvalue()
    assert screen.getvalue().endswith("\r")
    assert "\n" not in screen.getvalue()  # it goes when it is done


def test_what_an_earlier_attempt_did_says_nothing_of_the_speed(monkeypatch):
    standard_error(monkeypatch)
    with Bar("unshard", "B", on=True) as bar:
        bar(1000, 5000)
        bar(3000, 5000)
        assert (bar.done, bar.skipped, bar.total) == (3000, 1000, 5000)
        assert (bar._drawn.n, bar._drawn.initial, bar._drawn.total) == (3000, 1000, 5000)


def test_what_was_skipped_can_be_taken_back(monkeypatch):
    standard_error(monkeypatch)
    with Bar("sweep", "tokens", 100, on=True) as bar:
        bar.skip(40)
        bar.skip(-10)
        bar.advance(5)
        assert (bar.done, bar.skipped) == (35, 30)
        assert (bar._drawn.n, bar._drawn.initial) == (35, 30)


def test_one_thing_after_another_counts_from_nothing_and_lines_keep_their_distance(clock, capsys):
    with Bar("tasks", "tasks", on=True) as bar:
        bar.begin("requests of a", "requests", 10)
        clock.now_s += 20
        bar.advance(10)
        bar.begin("requests of b", "requests", 8)
        clock.now_s += 20
        bar.advance(4)
        bar.begin("texts", "texts", 8)
        clock.now_s += 20
        bar.advance(4)
    assert capsys.readouterr().err == "requests of b: 4/8 requests, 0.2 requests/s, 00:20 left\n"


def test_one_thing_after_another_on_a_terminal(monkeypatch):
    screen = standard_error(monkeypatch)
    with Bar("tasks", "tasks", on=True) as bar:
        bar.skip(3)
        bar.begin("requests of a", "requests", 10)
        bar.advance(4)
        drawn = bar._drawn
        assert (drawn.n, drawn.initial, drawn.total) == (4, 0, 10)
    assert "requests of a:   0%|          | 0.00/10.0 [00:00<?, ? requests/s]" in screen.getvalue()


def test_what_was_remarked_of_one_thing_is_not_told_of_the_next(clock, capsys, monkeypatch):
    with Bar("requests of a", "requests", on=True) as bar:
        bar.remark("12 MB received")
        bar.begin("requests of b", "requests")
        clock.now_s += LINE_EVERY_S
        bar.advance(30)
    assert capsys.readouterr().err == "requests of b: 30 requests, 1 requests/s\n"
    screen = standard_error(monkeypatch)
    with Bar("requests of a", "requests", on=True) as bar:
        bar.remark("12 MB received")
        told = len(screen.getvalue())
        bar.begin("requests of b", "requests")
    assert "requests of b: : 0.00 requests" in screen.getvalue()[told:]
    assert "received" not in screen.getvalue()[told:]


def test_a_warning_goes_to_the_log_and_bars_are_drawn_again_below_it(caplog, monkeypatch):
    screen = standard_error(monkeypatch)
    with Bar("sweep", "tokens", 10, on=True):
        handler = logging.StreamHandler(screen)
        monkeypatch.setattr(logging.getLogger("pythia_fast"), "handlers", [handler])
        warn("a machine is lost")
        assert re.search("\r *\ra machine is lost\n\r?sweep:", screen.getvalue())
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("pythia_fast", "WARNING")
    assert record.filename == "test_progress.py"


def test_a_handler_that_writes_by_tqdm_does_not_wait_for_a_warning_that_waits_for_it(monkeypatch):
    """Both take tqdm's lock and the handler's."""

    class ByTqdm(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(0.005)
            tqdm.write(self.format(record), file=screen)

    screen = standard_error(monkeypatch)
    monkeypatch.setattr(logging.getLogger("pythia_fast"), "handlers", [ByTqdm()])
    ways = (warn, logging.getLogger("pythia_fast").warning)
    threads = [
        threading.Thread(target=lambda way=way: [way("lost") for _ in range(20)], daemon=True)
        for way in ways
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert screen.getvalue().count("lost") == 40


def test_a_warning_that_nobody_can_hear_ends_nothing(monkeypatch):
    monkeypatch.setattr(logging.getLogger("pythia_fast"), "propagate", False)
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    warn("a machine is lost")


@pytest.mark.parametrize("error", [OSError, ValueError, AttributeError])
def test_a_stream_that_does_not_say_whether_it_is_a_terminal_is_none(monkeypatch, error):
    class Odd(io.StringIO):
        def isatty(self) -> bool:
            raise error

    stream = Odd()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    with Bar("work", "B", on=True, beside_output=True) as bar:
        bar.say("a line")
    assert stream.getvalue() == "a line\n"


def test_lines_of_others_do_not_break_the_bar(capsys, monkeypatch):
    screen = standard_error(monkeypatch)
    with Bar("find", "rows", 10, on=True) as bar:
        bar.say("a line")
        with bar.aside():
            print("a hit")
        bar.remark("soon")
    assert re.search("\r *\ra line\n\r?find:", screen.getvalue())
    assert capsys.readouterr().out == "a hit\n"
    assert "soon" in screen.getvalue()


def test_nothing_if_it_is_not_wanted(clock, capsys, monkeypatch):
    screen = standard_error(monkeypatch)
    with Bar("unshard", "B", on=False) as bar:
        clock.now_s += 2 * LINE_EVERY_S
        bar(1, 2)
        bar.advance()
        bar.say("hidden")
        with bar.aside():
            print("output")
    assert screen.getvalue() == ""
    assert capsys.readouterr().out == "output\n"


def test_nothing_where_the_shell_has_closed_standard_error(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Bar("unshard", "B", on=True) as bar:
        clock.now_s += 2 * LINE_EVERY_S
        bar(1, 2)
        bar.say("nowhere")


@pytest.mark.parametrize("terminal", [False, True])
def test_no_bar_amid_the_output(monkeypatch, terminal):
    screen = standard_error(monkeypatch)
    monkeypatch.setattr(sys, "stdout", Terminal() if terminal else io.StringIO())
    with Bar("show", "rows", 3, on=True, beside_output=True) as bar:
        bar.advance()
    assert ("show" in screen.getvalue()) is not terminal


@pytest.mark.parametrize("terminal", [False, True])
def test_a_piece_that_takes_long_is_told_of_meanwhile(monkeypatch, terminal):
    screen = standard_error(monkeypatch) if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("pythia_fast.progress.TELL_EVERY_S", 0.01)
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    asked = threading.Event()

    def remark() -> str:
        if "12 MB received" in screen.getvalue():
            asked.set()
        return "12 MB received"

    with Bar("convert", "steps", 3, on=True) as bar, bar.telling(remark):
        assert asked.wait(60)
    before = threading.active_count()
    with Bar("convert", "steps", 3, on=False) as bar, bar.telling(remark):
        assert threading.active_count() == before  # nobody is asked where nothing is told


@pytest.mark.parametrize("terminal", [False, True])
def test_work_that_cannot_say_how_far_it_is_shows_the_time(monkeypatch, terminal):
    screen = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("pythia_fast.progress.TELL_EVERY_S", 0.01)
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    with clock_of("read the runs"):
        until = time.monotonic() + 60
        while screen.getvalue().count("read the runs: ") < 2 and time.monotonic() < until:
            time.sleep(0.01)
    told = re.findall(r"read the runs: (?:00:0)?[0-4]\b", screen.getvalue())
    assert len(told) >= 2
    assert "?" not in screen.getvalue()


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("closed", [False, True])
def test_lines_that_cannot_be_written_end_no_work(
    monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    """A program may have closed its standard error, and a log's disk may be full."""
    stream = Full()
    if closed:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar("work", "B", on=True) as bar:
        bar.say("a line")
        bar(3)
    assert bar.done == 3


def test_a_programs_own_stream_need_not_be_a_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Log:
        lines = ""

        def write(self, text: str) -> None:
            self.lines += text

    log = Log()
    monkeypatch.setattr(sys, "stderr", log)
    with Bar("work", "B", on=True) as bar:
        bar.say("a line")
    assert log.lines == "a line\n"
