"""What is fetched ahead is taken, or given back, whatever goes wrong between."""

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import HubError
from pythia_fast.hub.download import Downloader
from pythia_fast.series.fetching import Begun, Fetched
from pythia_fast.series.lookahead import LookAhead
from pythia_fast.store import Stopped, Waiting

WAIT_S = 10

Until = Callable[[Callable[[], bool]], None]


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


class Coming(Source):
    """Steps that are on their way until `came`."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def finish(self, begun: Begun) -> Fetched:
        assert self.came.wait(WAIT_S)
        return super().finish(begun)


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


def test_steps_that_turn_up_are_fetched_too(source: Source, until: Until) -> None:
    ahead = source.ahead()
    ahead.start()
    ahead.extend([4, 5])
    until(lambda: set(source.begun) == {4, 5})  # before anybody asks for them
    first = dict(source.begun)
    ahead.extend([5, 6, 4])  # what is to come already stays where it is
    for step in (4, 5, 6):
        assert within(lambda step=step: ahead.take(step)) is (source.begun | first)[step]
    ahead.extend([4])  # once more: it is another now
    assert within(lambda: ahead.take(4)) is source.begun[4]
    assert source.begun[4] is not first[4]
    ahead.close()
    every = (*first.values(), *source.begun.values())
    assert not any(files.hold.closed.is_set() for files in every)


def test_only_so_many_are_fetched_of_those_that_turn_up(source: Source, until: Until) -> None:
    ahead = source.ahead()
    ahead.start()
    ahead.extend(range(5))
    until(lambda: len(source.begun) == 2)
    ahead.drop(0)
    until(lambda: set(source.begun) == {0, 1, 2})
    within(lambda: ahead.take(1))
    until(lambda: set(source.begun) == {0, 1, 2, 3})
    ahead.close()
    assert set(source.begun) == {0, 1, 2, 3}
    closed = {step for step, files in source.begun.items() if files.hold.closed.is_set()}
    assert closed == {0, 2, 3}


def test_what_is_dropped_is_given_back(source: Source, ahead: LookAhead, until: Until) -> None:
    until(lambda: {0, 1} <= set(source.begun))
    ahead.drop(1)
    ahead.drop(1)
    ahead.drop(17)
    assert source.begun[1].hold.closed.wait(WAIT_S)
    assert source.begun[1].waiting.stopped()
    assert within(lambda: ahead.take(1)) is None  # and is fetched by whoever opens it after all
    assert within(lambda: ahead.take(0)) is source.begun[0]
    assert within(lambda: ahead.take(2)) is source.begun[2]
    ahead.drop(2)
    assert not source.begun[2].hold.closed.is_set(), "what was taken is the taker's"


def test_what_is_dropped_while_it_is_claimed_stops(source: Source) -> None:
    claiming, dropped = threading.Event(), threading.Event()

    def begin(step: int, waiting: Waiting, downloader: Downloader) -> Begun:
        if step == 0 and not claiming.is_set():
            claiming.set()
            assert dropped.wait(WAIT_S)
            assert waiting.stopped()
            raise Stopped
        return Source.begin(source, step, waiting, downloader)

    source.begin = begin  # type: ignore[method-assign]
    ahead = source.ahead(0, 1)
    ahead.start()
    assert claiming.wait(WAIT_S)
    ahead.drop(0)
    ahead.extend([0])  # and it is wanted again, after the other
    dropped.set()
    for step in (1, 0):
        assert within(lambda step=step: ahead.take(step)) is source.begun[step]
    assert ahead.failed is None
    ahead.close()


def test_one_that_is_being_taken_is_not_dropped(source: Source, until: Until) -> None:
    let_go = threading.Event()
    finish = source.finish

    def patient(begun: Begun) -> Fetched:
        assert let_go.wait(WAIT_S)
        return finish(begun)

    source.finish = patient  # type: ignore[method-assign]
    ahead = source.ahead(0)
    ahead.start()
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(ahead.take(0)))
    thread.start()
    until(lambda: any(entry.awaited for entry in ahead._entries.values()))
    ahead.drop(0)
    let_go.set()
    thread.join(WAIT_S)
    assert taken == [source.begun[0]]
    assert not source.begun[0].hold.closed.is_set()
    ahead.close()


def test_after_it_was_left_nothing_is_added(source: Source) -> None:
    ahead = source.ahead(0)
    ahead.start()
    ahead.close()
    ahead.extend([1])
    assert within(lambda: ahead.take(1)) is None, "nobody would fetch it: it must not be waited for"
    ahead.drop(1)
    assert 1 not in source.begun


def test_one_that_is_added_again_while_the_first_is_given_up(source: Source, until: Until) -> None:
    """Somebody takes step 1 while another still waits for step 0, which is then wanted anew."""
    let_go = threading.Event()
    finish = source.finish

    def patient(begun: Begun) -> Fetched:
        if begun is waited_for[0]:
            assert let_go.wait(WAIT_S)
        return finish(begun)

    waited_for: list[Any] = [None]
    begin = source.begin

    def noting(step: int, waiting: Waiting, downloader: Downloader) -> Begun:
        begun = begin(step, waiting, downloader)
        waited_for[0] = waited_for[0] or begun
        return begun

    source.begin, source.finish = noting, patient  # type: ignore[method-assign]
    ahead = source.ahead(0, 1)
    ahead.start()
    thread = threading.Thread(target=lambda: ahead.take(0), daemon=True)
    thread.start()
    until(lambda: waited_for[0] is not None and ahead._entries[0].awaited)
    within(lambda: ahead.take(1))
    ahead.extend([0])
    until(lambda: source.begun[0] is not waited_for[0])
    let_go.set()
    thread.join(WAIT_S)
    assert within(lambda: ahead.take(0)) is source.begun[0]
    ahead.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_of_calls(data: st.DataObject) -> None:
    """By a list of what is still to come: what is taken is its own, all else is given back."""
    source = Source()
    every: list[Files] = []
    begin = source.begin

    def noting(step: int, waiting: Waiting, downloader: Downloader) -> Begun:
        files = begin(step, waiting, downloader)
        every.append(cast("Files", files))
        return files

    source.begin = noting  # type: ignore[method-assign]
    steps = st.lists(st.integers(0, 6), max_size=4)
    to_come = list(dict.fromkeys(data.draw(steps)))
    taken: list[Files] = []
    ahead = source.ahead(*to_come)
    with closing(ahead):  # also where hypothesis leaves the example in the middle of a draw
        ahead.start()
        for call in data.draw(st.lists(st.sampled_from(("extend", "drop", "take", "shed")))):
            if call == "extend":
                more = data.draw(steps)
                ahead.extend(more)
                to_come += [step for step in dict.fromkeys(more) if step not in to_come]
            elif call == "shed":
                before = list(ahead._entries)
                ahead.shed()
                assert to_come == before
                to_come = list(ahead._entries)
            else:
                step = data.draw(st.integers(0, 6))
                if call == "drop":
                    ahead.drop(step)
                    to_come = [each for each in to_come if each != step]
                    continue
                found = within(lambda step=step: ahead.take(step))
                assert (found is not None) == (step in to_come)
                if found is not None:
                    assert found.step == step
                    taken.append(found)
                    to_come = to_come[to_come.index(step) + 1 :]
        within(ahead.close)
    assert len({id(files) for files in taken}) == len(taken)
    for files in every:
        assert files.hold.closed.is_set() != any(files is each for each in taken)


def test_a_step_is_given_up_only_after_a_look_without_the_one_before(until: Until) -> None:
    """Else what is about to be given back would not be counted, and too much given up."""
    source = Coming()
    with closing(source.ahead(0, 1, 2)) as ahead:
        ahead.start()
        until(lambda: set(source.begun) == {0, 1})
        assert ahead.shed()
        assert list(ahead._entries) == [0, 2]
        for _ in range(3):  # it is still on its way
            assert ahead.shed()
        assert list(ahead._entries) == [0, 2]
        source.came.set()
        assert source.begun[1].hold.closed.wait(WAIT_S)
        until(lambda: 2 in source.begun)
        assert ahead.shed()
        assert list(ahead._entries) == [0, 2]
        assert ahead.shed()
        assert list(ahead._entries) == [0]


def test_a_step_that_somebody_waits_for_may_be_given_up_before_it_is_begun(until: Until) -> None:
    """Another thread opens a later one: the first is told, and does not wait for ever."""
    source = Coming()
    claims = threading.Event()
    begin = source.begin

    def slow(step: int, waiting: Waiting, downloader: Downloader) -> Begun:
        claims.set()
        assert source.came.wait(WAIT_S)
        return begin(step, waiting, downloader)

    source.begin = slow  # type: ignore[method-assign]
    with closing(source.ahead(0, 1, 2)) as ahead, ThreadPoolExecutor(2) as pool:
        ahead.start()
        assert claims.wait(WAIT_S)
        first = pool.submit(ahead.take, 1)
        until(lambda: ahead._entries[1].awaited)
        second = pool.submit(ahead.take, 2)
        assert isinstance(first.exception(WAIT_S), HubError)
        source.came.set()
        assert second.result(WAIT_S) is source.begun[2]
    assert set(source.begun) == {0, 2}


def test_steps_come_and_go_while_they_are_taken() -> None:
    """One thread adds and takes back at the end, another opens from the front."""
    source = Source()
    every: list[Files] = []
    begin = source.begin

    def noting(step: int, waiting: Waiting, downloader: Downloader) -> Begun:
        files = begin(step, waiting, downloader)
        every.append(cast("Files", files))
        return files

    source.begin = noting  # type: ignore[method-assign]
    ahead = source.ahead()
    ahead.start()
    queue: deque[int] = deque()
    over = threading.Event()
    taken: dict[int, Any] = {}
    dropped: set[int] = set()
    draw = random.Random(0)

    def change() -> None:
        for step in range(2_000):
            ahead.extend([step])
            queue.append(step)
            if draw.random() < 0.4:
                with suppress(IndexError):
                    last = queue.pop()
                    ahead.drop(last)
                    dropped.add(last)
        over.set()

    def take() -> None:
        while True:
            last = over.is_set()
            try:
                step = queue.popleft()
            except IndexError:
                if last:
                    return
                continue
            taken[step] = ahead.take(step)

    thread = threading.Thread(target=change)
    thread.start()
    within(take)
    thread.join(WAIT_S)
    within(ahead.close)
    assert taken.keys() | dropped == set(range(2_000))
    assert not taken.keys() & dropped
    assert all(files is not None and files.step == step for step, files in taken.items())
    kept = {id(files) for files in taken.values()}
    for files in every:
        assert files.hold.closed.is_set() != (id(files) in kept)
