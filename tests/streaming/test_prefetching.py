"""Steps that come and go while the ones before them are loaded and used."""

import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from remote_series import Remote

from pythia_fast.errors import HubError
from pythia_fast.model import LoadReport, Precision, Weights
from pythia_fast.series import Ahead, Checkpoint, LocalSeries
from pythia_fast.series.hub import HubSeries
from pythia_fast.store import Waiting
from pythia_fast.streaming import prefetching
from pythia_fast.streaming.arenas import make_arenas
from pythia_fast.streaming.prefetching import Loaded, NotLoaded, prefetch
from pythia_fast.suite import spec
from pythia_fast.testing import HubServer

WAIT_S = 30
REPO = "EleutherAI/pythia-14m"
HUB_STEPS = (0, 1, 2, 4, 8)
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def arenas(tiny_series: Path) -> tuple[Weights, ...]:
    precision = Precision("float32", torch.float32, "float32")
    shape = LocalSeries(tiny_series).spec.architecture
    return make_arenas(shape, 2, precision, torch.device("cpu")).loading


@pytest.fixture
def remote(tiny_series: Path) -> Remote:
    return Remote(tiny_series)


@pytest.fixture
def hub(tiny_series: Path) -> Iterator[HubServer]:
    branches = {f"step{step}": tiny_series / f"step{step}" for step in HUB_STEPS}
    with HubServer({REPO: branches}) as server:
        yield server


class Gated(LocalSeries):
    """A folder of which some steps open only when they are let."""

    def __init__(self, folder: Path, *closed: int) -> None:
        super().__init__(folder)
        self.gates = {step: threading.Event() for step in closed}
        self.opened = {step: threading.Event() for step in self.steps}
        self.checkpoints: dict[int, Checkpoint] = {}

    def open(self, step: int) -> Checkpoint:
        self.opened[step].set()
        if step in self.gates:
            assert self.gates[step].wait(WAIT_S)
        self.checkpoints[step] = super().open(step)
        return self.checkpoints[step]


def in_turn(loaded: Iterator[Loaded | NotLoaded]) -> list[int]:
    found = []
    for each in loaded:
        assert isinstance(each, Loaded)
        found.append(each.step)
    return found


def test_steps_appended_meanwhile_are_loaded_too(
    tiny_series: Path, arenas: tuple[Weights, ...]
) -> None:
    steps = deque([0])
    found = []
    for loaded in prefetch(LocalSeries(tiny_series), steps, arenas, hashed=False):
        found.append(loaded.step)
        if len(found) < 4:
            steps.append([0, 1, 2, 4][len(found)])
    assert found == [0, 1, 2, 4]


def test_what_comes_while_one_is_waited_for_is_read_while_it_is_used(
    tiny_series: Path, arenas: tuple[Weights, ...]
) -> None:
    series, steps = Gated(tiny_series, 0), deque([0])

    def later() -> None:
        assert series.opened[0].wait(WAIT_S)
        steps.extend([1, 2])
        series.gates[0].set()

    thread = threading.Thread(target=later)
    thread.start()
    with closing(prefetch(series, steps, arenas, hashed=False)) as loaded:
        assert next(loaded).step == 0
        thread.join()
        assert series.opened[1].wait(WAIT_S), "it is read, though nobody has asked for it yet"
        assert list(steps) == [2], "which may still be taken back"
        steps.pop()
        assert in_turn(loaded) == [1]


def test_with_more_arenas_several_are_hashed_at_once_and_read_in_order(
    tiny_series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = LocalSeries(tiny_series).spec.architecture
    arenas = [Weights(shape) for _ in range(4)]
    together = threading.Barrier(3, timeout=WAIT_S)  # nobody goes on before three are hashed
    load, opened, reading = Weights.load, [], threading.Lock()

    class Noting(LocalSeries):
        def open(self, step: int) -> Checkpoint:
            opened.append(step)
            return super().open(step)

    def alone(self: Weights, checkpoint: Checkpoint, **options: Any) -> LoadReport:
        assert reading.acquire(blocking=False)
        report = load(self, checkpoint, **options)
        reading.release()
        return report

    def digest(self: Checkpoint) -> str:
        together.wait()
        return "of " + str(self.step)

    monkeypatch.setattr(Weights, "load", alone)
    monkeypatch.setattr(Checkpoint, "weights_sha256", property(digest))
    steps = (0, 1, 2, 4, 8, 16)
    with closing(prefetch(Noting(tiny_series), deque(steps), arenas, hashed=True)) as loaded:
        found = []
        for each in loaded:
            assert isinstance(each, Loaded)
            with closing(LocalSeries(tiny_series).open(each.step)) as checkpoint:
                expected = Weights(shape)
                load(expected, checkpoint)
            assert torch.equal(each.weights.flat, expected.flat)
            found.append(each.step)
    assert tuple(found) == tuple(opened) == steps


def test_taken_back_while_the_deque_is_looked_at(
    tiny_series: Path, arenas: tuple[Weights, ...]
) -> None:
    """A thread may be faster than any look at the deque: then there is nothing to take."""

    class Fleeting(deque[int]):
        def popleft(self) -> int:
            if self and self[0] != 0:
                self.pop()
            return super().popleft()

    steps = Fleeting([0, 1])
    assert in_turn(prefetch(LocalSeries(tiny_series), steps, arenas, hashed=False)) == [0]


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_lost_or_done_twice_whoever_comes_between(
    tiny_series: Path, arenas: tuple[Weights, ...], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    series = LocalSeries(tiny_series)
    monkeypatch.setattr(
        prefetching, "_load", lambda series, step, *_: NotLoaded(step, HubError("not here"))
    )
    steps: deque[int] = deque()
    given, taken_back, done = 1_500, [], []
    over = threading.Event()
    draw = random.Random(count)

    def give() -> None:
        for step in range(given):
            steps.append(step)
            if draw.random() < 0.3:
                try:
                    taken_back.append(steps.pop())
                except IndexError:
                    continue
        over.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=give)
    try:
        thread.start()
        while not over.is_set() or steps:
            done += [each.step for each in prefetch(series, steps, arenas[:count], hashed=False)]
    finally:
        thread.join()
        sys.setswitchinterval(interval)
    assert Counter(done + taken_back) == Counter(range(given))
    assert done == sorted(done)
    assert taken_back
    assert done


def test_the_caller_is_told_what_fetches(
    tiny_series: Path, arenas: tuple[Weights, ...], remote: Remote
) -> None:
    steps, told = deque([0, 1]), []
    with closing(prefetch(remote, steps, arenas, hashed=False, entered=told.append)) as loaded:
        assert told == []
        next(loaded)
        assert len(told) == 1
        assert told[0].received_bytes == 5_000_000
        assert remote.ahead_of == [(0, 1)]
        in_turn(loaded)
    assert len(told) == 1


def test_what_changed_while_the_series_was_surveyed_is_caught_up_with(
    tiny_series: Path, arenas: tuple[Weights, ...], remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = deque([0, 1, 2])
    ahead = remote.ahead

    def slow(first: tuple[int, ...]) -> Any:
        assert (steps.pop(), steps.pop()) == (2, 1)
        steps.extend([4, 8])
        return ahead(first)

    monkeypatch.setattr(remote, "ahead", slow)
    told: list[Any] = []
    found = in_turn(prefetch(remote, steps, arenas, hashed=False, entered=told.append))
    assert found == [0, 4, 8]
    assert remote.ahead_of == [(0, 1, 2)]
    assert sorted(told[0].dropped) == [1, 2]
    assert told[0].told == [(4, 8)]


def test_a_checkpoint_gives_its_room_before_one_that_came_late_is_loaded(
    tiny_series: Path, arenas: tuple[Weights, ...], remote: Remote
) -> None:
    """There is room for one, and the next step turns up when that is in use already."""
    remote.room = threading.Semaphore(1)
    steps = deque([0])
    found = []
    for loaded in prefetch(remote, steps, arenas[:1], hashed=False):
        found.append(loaded.step)
        if loaded.step < 2:
            steps.append(loaded.step + 1)
    assert found == [0, 1, 2]
    assert [lease.closed for lease in remote.leases] == [True, True, False]


def test_from_the_hub_what_turns_up_is_fetched_ahead(
    hub: HubServer, tmp_path: Path, arenas: tuple[Weights, ...], tiny_series: Path, until: Until
) -> None:
    series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
    monitored: list[Ahead] = []
    steps = deque([0])
    shape = LocalSeries(tiny_series).spec.architecture
    assert arenas[0].architecture == shape

    def here(step: int) -> bool:
        revision = series.survey([step])[step]
        return revision.download_bytes == 0

    with closing(prefetch(series, steps, arenas, hashed=True, entered=monitored.append)) as loaded:
        first = next(loaded)
        assert isinstance(first, Loaded)
        (ahead,) = monitored
        ahead.extend([1, 2, 4])
        steps.extend([1, 2, 4])
        until(lambda: all(map(here, (1, 2, 4))))  # while the first is still in use
        assert steps.pop() == 4
        ahead.drop(4)
        assert in_turn(loaded) == [1, 2]
    assert series._store.lease.claims.fetching == {}


@pytest.mark.parametrize("seed", range(3))
def test_from_the_hub_with_little_room_while_steps_come_and_go(
    hub: HubServer, tmp_path: Path, arenas: tuple[Weights, ...], tiny_series: Path, seed: int
) -> None:
    """As a worker has it whose steps are ordered and asked back by another machine."""
    size = max(
        sum(path.stat().st_size for path in (tiny_series / f"step{step}").glob("*model*"))
        for step in HUB_STEPS
    )
    series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url, disk_budget=2 * size)
    steps: deque[int] = deque()
    lock, over = threading.Lock(), threading.Event()
    heard: list[Ahead] = []
    draw = random.Random(seed)
    ordered, taken_back, done = 60, [], []

    def fetching(ahead: Ahead) -> None:
        with lock:
            heard.append(ahead)
            ahead.extend(tuple(steps))

    def order() -> None:
        for number in range(ordered):
            step = HUB_STEPS[number % len(HUB_STEPS)]
            with lock:
                if heard:
                    heard[-1].extend([step])
                steps.append(step)
            if draw.random() < 0.3:
                time.sleep(draw.random() / 100)
            if draw.random() < 0.3:
                with lock, suppress(IndexError):
                    last = steps.pop()
                    if heard:
                        heard[-1].drop(last)
                    taken_back.append(last)
        over.set()

    thread = threading.Thread(target=order)
    thread.start()
    while not over.is_set() or steps:
        each = None
        for each in prefetch(series, steps, arenas, hashed=False, entered=fetching):
            assert isinstance(each, Loaded), each
            done.append(each.step)
        if each is not None:
            each.checkpoint.close()
    thread.join()
    assert Counter(done + taken_back) == Counter(HUB_STEPS * (ordered // len(HUB_STEPS)))
    assert taken_back
    room = series._store.room
    assert room.excess({}, Waiting()) <= 0
    assert (room.lease.claims.using, room.lease.claims.fetching) == (frozenset(), {})
