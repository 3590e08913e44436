"""The driver over a cluster that is played: whatever happens in whatever order, all is computed."""

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pythia_fast
from pythia_fast.errors import (
    FormatError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
    WorkerError,
)
from pythia_fast.runs.asking import questions, settled
from pythia_fast.runs.cluster.driver import RayEngine
from pythia_fast.runs.cluster.events import Event, GaveBack, Joined, Lost, Told
from pythia_fast.runs.cluster.messages import (
    Advanced,
    Began,
    Failed,
    Fatal,
    Finished,
    Hello,
    Loading,
    Order,
    Part,
    Work,
)
from pythia_fast.runs.dispatch import LOOK_AHEAD, RETRIES
from pythia_fast.runs.folder import versions
from pythia_fast.runs.parts import read_provenance
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.results import SweepResult
from pythia_fast.series import open_series
from pythia_fast.testing import tiny_suite

STEPS = (0, 1, 2, 4, 8, 16, 32)
IDS = np.random.default_rng(0).integers(0, 260, (3, 17), dtype=np.uint16)
HELLO = Hello("node", "here", 1, "cpu", 1, versions()["pythia-fast"], ("float32",))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_suite(tmp_path_factory.mktemp("played") / "tiny", steps=STEPS)


@pytest.fixture(scope="module")
def known(small: Path, tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """What the local engine finds, whose parts are what the played workers tell."""
    out = tmp_path_factory.mktemp("known") / "run"
    return pythia_fast.sweep(small, tokens=IDS, out=out, dtype="float32", progress=False)


class Played:
    """A cluster of `count` workers without a run folder, where `chance` decides what is next.

    So many `deaths` happen while there is something in hand; who computes a step of `deadly` dies.
    """

    def __init__(
        self,
        known: Path,
        chance: random.Random,
        *,
        count: int = 2,
        deaths: int = 0,
        deadly: tuple[int, ...] = (),
        failing: dict[int, Exception] | None = None,
    ) -> None:
        self._known, self._chance, self._deaths = known, chance, deaths
        self._deadly, self._failing = deadly, failing or {}
        self._starting: list[str] = []
        self._told: dict[str, list[Any]] = {}  # what a worker's head has still to tell
        self._asked: list[tuple[str, int, int]] = []
        self.orders: dict[str, list[Order]] = {}
        self.computed: Counter[int] = Counter()
        self.lost: Counter[int] = Counter()  # how often a step was in the hand of one that died
        self.alone: Counter[int] = Counter()  # likewise, with nothing else in it
        self.given_back = self.joined = 0
        self.dismissed: list[str] = []
        self.hello = HELLO
        self.work: Work | None = None
        for _ in range(count):
            self.add()

    def add(self) -> str:
        self.joined += 1
        self._starting.append(f"worker {self.joined}")
        return self._starting[-1]

    def replace(self) -> None:
        self.add()

    @property
    def coming(self) -> bool:
        return bool(self._starting)

    alive = coming  # whoever has joined is known to the driver
    waits = "nobody is there"

    def share(self, work: Work) -> Any:
        self.work = work
        assert work.probe.is_file()
        return [work]

    def dismiss(self, worker: str) -> None:
        self.dismissed.append(worker)

    def order(self, worker: str, order: Order, work: Any, name: str) -> None:
        assert work == [self.work]
        assert name == f"tiny step {order.step}"
        assert order.step not in [each.step for each in self.orders[worker]]
        self.orders[worker].append(order)
        assert len(self.orders[worker]) <= LOOK_AHEAD + 1

    def ask_back(self, worker: str, model: int, step: int) -> None:
        self._asked.append((worker, model, step))

    def events(self, patience_s: float) -> list[Event]:
        """One thing that may happen now."""
        may: list[Callable[[], list[Event]]] = []
        if self._starting:
            may.append(self._join)
        busy = [worker for worker, orders in self.orders.items() if orders]
        if busy:
            may += [lambda: self._go_on(self._chance.choice(busy))] * 8
            mortal = [worker for worker in busy if self._may_die(worker)]
            if self._deaths and mortal:
                may.append(lambda: self._die(self._chance.choice(mortal)))
        if self._asked:
            may += [self._answer] * 2
        assert may, "nothing is going to happen, and the driver waits"
        return self._chance.choice(may)()

    def _may_die(self, worker: str) -> bool:
        """By chance; not so often that the driver gives up a step for it."""
        first, *others = self.orders[worker]
        return bool(others) or self.alone[first.step] < RETRIES

    def _join(self) -> list[Event]:
        worker = self._starting.pop(self._chance.randrange(len(self._starting)))
        if self._deaths and self._chance.random() < 0.2:
            self._deaths -= 1
            return [Lost(worker, "its machine is gone", False)]
        self.orders[worker] = []
        return [Joined(worker, self.hello)]

    def _go_on(self, worker: str) -> list[Event]:
        order = self.orders[worker][0]
        if worker not in self._told:
            self.computed[order.step] += 1
            self._told[worker] = self._messages(order)
        waiting = self._told[worker]
        deadly = order.step in self._deadly
        if deadly and not isinstance(waiting[0], Loading):
            return self._die(worker)
        now = 1 if deadly else self._chance.randint(1, len(waiting))
        told, self._told[worker] = waiting[:now], waiting[now:]
        if not self._told[worker]:
            del self._told[worker]
            self.orders[worker].pop(0)
        return [Told(worker, told)]

    def _messages(self, order: Order) -> list[Any]:
        key = (order.model, order.step)
        if order.step in self._failing:
            return [Loading(*key), Failed(*key, self._failing[order.step])]
        (path,) = (self._known / f"parts/step={order.step}").glob("*.parquet")
        part = Part(*key, str(path.relative_to(self._known)), path.read_bytes())
        tokens = Advanced(*key, IDS.size, skipped=False)
        sha256 = read_provenance(path)["weights_sha256"]
        return [Loading(*key), Began(*key), tokens, part, Finished(*key, sha256)]

    def _die(self, worker: str) -> list[Event]:
        self._deaths -= bool(self._deaths)
        steps = [order.step for order in self.orders.pop(worker)]
        self.lost.update(steps)
        if len(steps) == 1:
            self.alone.update(steps)
        self._told.pop(worker, None)
        self._asked = [asked for asked in self._asked if asked[0] != worker]
        return [Lost(worker, "it was killed", True)]

    def _answer(self) -> list[Event]:
        worker, model, step = self._asked.pop(0)
        steps = [order.step for order in self.orders[worker]]
        begun = step not in steps or (steps.index(step) == 0 and worker in self._told)
        if not begun:
            self.given_back += 1
            self.orders[worker] = [each for each in self.orders[worker] if each.step != step]
        return [GaveBack(worker, model, step, not begun)]


def run(
    small: Path, out: Path, cluster: Any, on_error: Any = "raise", progress: Progress | None = None
) -> SweepResult:
    asking = questions(
        [open_series(small)],
        "all",
        tokens=IDS,
        sequences=512,
        metrics=("perplexity",),
        deterministic=False,
        batch_tokens="auto",
        disk_budget=None,
        cache_dir=None,
    )
    asked = settled(asking, ["float32"], out=out, several=False, resume=True, cache_dir=None)
    progress = progress or Progress(checkpoints=len(STEPS), tokens=0, shown=False)
    RayEngine(cluster, asked, progress).run(on_error)
    return SweepResult(out, steps=STEPS, metrics=asked[0].plan.metrics)


@pytest.fixture
def new(tmp_path: Path) -> Callable[[], Path]:
    """A run folder of its own for each call."""
    numbers = itertools.count()
    return lambda: tmp_path / f"run{next(numbers)}"


def quiet(out: Path) -> bool:
    """Whether nothing is left in a folder but results."""
    return not [
        path
        for path in out.rglob("*")
        if path.is_file() and (path.name.startswith(".") or path.parent.name == "working")
    ]


@pytest.mark.timeout(300)
def test_whatever_happens_all_is_computed(
    small: Path, known: SweepResult, tmp_path_factory: pytest.TempPathFactory
) -> None:
    backs = Counter[str]()

    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        count=st.integers(1, 9),
        deaths=st.integers(0, 6),
        there=st.sets(st.sampled_from(STEPS)),
    )
    def check(seed: int, count: int, deaths: int, there: set[int]) -> None:
        out = tmp_path_factory.mktemp("out") / "run"
        shutil.copytree(known.path, out)
        for step in set(STEPS) - there:
            shutil.rmtree(out / f"parts/step={step}")
        cluster = Played(known.path, random.Random(seed), count=count, deaths=deaths)
        result = run(small, out, cluster)
        assert result.table.equals(known.table)
        assert result.sequences.equals(known.sequences)
        assert not result.failures
        assert cluster.computed.keys() == set(STEPS) - there
        for step, times in cluster.computed.items():
            assert times <= 1 + cluster.lost[step], "computed again, and nobody had lost it"
        assert quiet(out)
        backs["given"] += cluster.given_back

    check()
    assert backs["given"], "no step was ever given back: the test does not see that"


def test_a_step_that_kills_fails_alone(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    for seed in range(8):
        cluster = Played(known.path, random.Random(seed), count=1 + seed % 3, deadly=(4,))
        result = run(small, new(), cluster, "skip")
        (failure,) = result.failures
        assert (failure.step, failure.error) == (4, "WorkerError")
        assert "it was killed" in failure.message
        assert cluster.alone == {4: RETRIES + 1}
        assert set(cluster.computed) == set(STEPS)
        rows = [row for row in known.table.to_pylist() if row["step"] != 4]
        assert [row for row in result.table.to_pylist() if row["step"] != 4] == rows


def test_failures_are_raised_or_skipped(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    failing: dict[int, Exception] = {8: FormatError(Path("weights"), "it is damaged")}
    out = new()
    with pytest.raises(SweepError, match=r"step 8 failed: .*it is damaged"):
        run(small, out, Played(known.path, random.Random(0), failing=failing))
    assert quiet(out)
    result = run(small, out, Played(known.path, random.Random(1), failing=failing), "skip")
    assert [(each.step, each.error) for each in result.failures] == [(8, "FormatError")]
    again = run(small, out, Played(known.path, random.Random(2)))
    assert again.table.equals(known.table)
    assert not again.failures


def test_what_no_worker_can_do_ends_the_sweep(
    small: Path, known: SweepResult, new: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Played(known.path, random.Random(0))
    error = RunMismatchError("the tokens are others")
    monkeypatch.setattr(cluster, "_messages", lambda order: [Fatal(error)])
    out = new()
    with pytest.raises(RunMismatchError, match="the tokens are others"):
        run(small, out, cluster, "skip")
    assert quiet(out)


def test_an_interrupt_says_what_is_kept(
    small: Path, known: SweepResult, new: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Played(known.path, random.Random(0))
    events = cluster.events

    def pressed(patience_s: float) -> list[Event]:
        if len(cluster.computed) == 4:
            raise KeyboardInterrupt
        return events(patience_s)

    monkeypatch.setattr(cluster, "events", pressed)
    out = new()
    with pytest.raises(SweepInterruptedError, match=r"[1-3] of 7 steps are finished and kept"):
        run(small, out, cluster)
    assert quiet(out)
    rest = Played(known.path, random.Random(0))
    assert run(small, out, rest).table.equals(known.table)
    assert 0 < len(rest.computed) < len(STEPS)


def test_a_worker_with_another_precision_or_version_is_told(
    small: Path,
    known: SweepResult,
    new: Callable[[], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Mixed(Played):
        def _join(self) -> list[Event]:
            events = super()._join()
            self.hello = HELLO
            return events

    for hello, words in (
        (Hello("node", "old", 1, "cpu", 1, "0.0", ("float32",)), "on old has pythia-fast 0.0"),
        (Hello("node", "amx", 1, "cpu", 1, HELLO.version, ("split-bf16",)), "on amx is left out"),
    ):
        cluster = Mixed(known.path, random.Random(0))
        cluster.hello = hello
        progress = Progress(checkpoints=len(STEPS), tokens=0, shown=True)
        assert run(small, new(), cluster, progress=progress).table.equals(known.table)
        assert words in capsys.readouterr().err
        assert len(cluster.dismissed) == (hello.precisions != HELLO.precisions)


def test_no_worker_of_the_right_precision_is_left(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    cluster = Played(known.path, random.Random(0), count=2)
    cluster.hello = Hello("node", "amx", 1, "cpu", 1, HELLO.version, ("split-bf16",))
    with pytest.raises(WorkerError, match="no worker is left that computes in float32"):
        run(small, new(), cluster)
    assert len(cluster.dismissed) == 2


def test_a_step_that_another_finishes_meanwhile_is_not_ordered(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    out = new()

    class Elsewhere(Played):
        def _join(self) -> list[Event]:
            if not self.orders:  # before the first order
                shutil.copytree(known.path / "parts/step=16", out / "parts/step=16")
            return super()._join()

    cluster = Elsewhere(known.path, random.Random(0))
    assert run(small, out, cluster).table.equals(known.table)
    assert set(cluster.computed) == set(STEPS) - {16}
