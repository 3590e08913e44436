"""What is fetched ahead is taken, or given back, whatever goes wrong between."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest

from pythia_fast.errors import HubError
from pythia_fast.hub.download import Downloader
from pythia_fast.series.fetching import Begun, Fetched
from pythia_fast.series.lookahead import LookAhead
from pythia_fast.store import Waiting

WAIT_S = 10


class Hold:
    """Counts how often it is given back."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Files:
    """Of a step: claimed, and perhaps fetched or abandoned."""

    def __init__(self, step: int, waiting: Waiting) -> None:
        self.step, self.waiting = step, waiting
        self.hold = Hold()
        self.abandoned = threading.Event()


class Source:
    """Steps that come at once."""

    def __init__(self) -> None:
        self.begun: dict[int, Files] = {}

    def begin(self, step: int, waiting: Waiting, _: Downloader) -> Begun:
        self.begun[step] = Files(step, waiting)
        return cast("Begun", self.begun[step])

    def finish(self, begun: Begun) -> Fetched:
        return cast("Fetched", begun)

    def abandon(self, begun: Begun) -> None:
        cast("Files", begun).abandoned.set()

    def ahead(self, *steps: int) -> LookAhead:
        return LookAhead(steps, 2, self.begin, self.finish, self.abandon)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def ahead(source: Source) -> Iterator[LookAhead]:
    ahead = source.ahead(0, 1, 2)
    ahead.start()
    yield ahead
    ahead.close()


def within(work: Callable[[], Any]) -> Any:
    """What `work` returns, in a thread: a look-ahead that has died lets it wait for ever."""
    future: Future[Any] = Future()

    def go() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=go, daemon=True).start()
    return future.result(WAIT_S)


def test_steps_are_taken_in_turn(source: Source, ahead: LookAhead) -> None:
    for step in range(3):
        assert within(lambda step=step: ahead.take(step)) is source.begun[step]
        assert ahead.take(step) is None
    assert not any(files.hold.closed.is_set() for files in source.begun.values())


def test_what_an_interrupt_keeps_from_being_taken_is_given_back(
    source: Source, ahead: LookAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Future.result
    left = [1]

    def interrupted(self: Future[Any], *arguments: Any) -> Any:
        found = result(self, *arguments)
        if left:
            left.pop()
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            ahead.take(0)
    assert source.begun[0].hold.closed.wait(WAIT_S)
    assert source.begun[0].waiting.stopped(), "who still fetched it would stop"
    assert caught.value is not None
    assert within(lambda: ahead.take(1)) is source.begun[1]


def test_without_a_thread_for_it_a_step_fails_and_the_next_does_not(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = ThreadPoolExecutor.submit
    left = [1]

    def refused(self: ThreadPoolExecutor, *arguments: Any) -> Any:
        if left:
            left.pop()
            raise RuntimeError("can't start new thread")
        return submit(self, *arguments)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refused)
    ahead = source.ahead(0, 1)
    ahead.start()
    with pytest.raises(RuntimeError, match="can't start"):
        within(lambda: ahead.take(0))
    assert source.begun[0].abandoned.is_set()
    assert within(lambda: ahead.take(1)) is source.begun[1]
    ahead.close()


def test_a_thread_that_is_found_after_all_does_no_harm(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executor takes the work before it fails to start a thread; another one may do it."""
    submit = ThreadPoolExecutor.submit
    done: list[Future[Any]] = []

    def refused(self: ThreadPoolExecutor, *arguments: Any) -> Any:
        done.append(submit(self, *arguments))
        raise RuntimeError("can't start new thread")

    ended = threading.Event()

    def finish(_: Begun) -> Fetched:
        assert ended.wait(WAIT_S)
        raise HubError("its files were cancelled")

    source.finish = finish  # type: ignore[method-assign]
    monkeypatch.setattr(ThreadPoolExecutor, "submit", refused)
    ahead = source.ahead(0)
    ahead.start()
    with pytest.raises(RuntimeError, match="can't start"):
        within(lambda: ahead.take(0))
    ended.set()
    ahead.close()
    assert done[0].exception() is None


def test_one_that_was_never_started_can_be_left(source: Source) -> None:
    ahead = source.ahead(0)
    ahead.close()
    assert ahead.stopped
    assert not source.begun
