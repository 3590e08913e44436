"""A cluster that is played, for the driver: its workers tell what the local engine found."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pythia_fast.progress import warn
from pythia_fast.runs.asking import questions, settled
from pythia_fast.runs.cluster.driver import RayEngine
from pythia_fast.runs.cluster.events import Event, GaveBack, Joined, Lost, Told
from pythia_fast.runs.cluster.messages import (
    Advanced,
    Began,
    Failed,
    Finished,
    Hello,
    Loading,
    Order,
    Part,
    Unable,
    Unfit,
    Work,
)
from pythia_fast.runs.cluster.sent_error import sent
from pythia_fast.runs.dispatching.dispatch import LOOK_AHEAD, RETRIES
from pythia_fast.runs.folder.parts import read_provenance
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.results.result import SweepResult
from pythia_fast.series import open_series

STEPS = (0, 1, 2, 4, 8, 16, 32)
IDS = np.random.default_rng(0).integers(0, 260, (3, 17), dtype=np.uint16)
HELLO = Hello("node", "here", ("float32",))


class Played:
    """A cluster of `count` workers without a run folder, where `chance` decides what is next.

    So many `deaths` happen while there is something in hand; who computes a step of `deadly` dies,
    and who computes one of `unable` can do no more; a step of `failing` fails, and `unfit` is what
    a worker finds that cannot even begin with the model. With several `nodes`
    workers join on one after the other, and what is bad is so on the node `bad` only, if there is
    one. `together`: nothing else happens while a worker may join.
    """

    def __init__(
        self,
        known: Path,
        chance: random.Random,
        *,
        count: int = 2,
        deaths: int = 0,
        deadly: tuple[int, ...] = (),
        unable: dict[int, Exception] | None = None,
        failing: dict[int, Exception] | None = None,
        unfit: Exception | None = None,
        nodes: tuple[str, ...] = (),
        bad: str | None = None,
        together: bool = False,
    ) -> None:
        self._known, self._chance, self._deaths = known, chance, deaths
        self._deadly, self._unable, self._failing = deadly, unable or {}, failing or {}
        self._unfit = unfit
        self._nodes, self._bad, self._together = nodes, bad, together
        self._starting: list[str] = []
        self._told: dict[str, list[Any]] = {}  # what a worker's head has still to tell
        self._asked: list[tuple[str, int, int]] = []
        self.orders: dict[str, list[Order]] = {}
        self.hosts: dict[str, str] = {}
        self.computed_on: list[tuple[str, int]] = []
        self.computed: Counter[int] = Counter()
        self.lost: Counter[int] = Counter()  # how often a step was in the hand of one that died
        self.alone: Counter[int] = Counter()  # likewise, with nothing else in it
        self.given_back = self.joined = self.given_back_last = 0
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

    @property
    def nodes(self) -> set[str]:
        return {f"node {each}" for each in self._nodes} or {self.hello.node}

    @property
    def alive(self) -> bool:
        return bool(self._starting or self.orders)

    def tell_waiting(self) -> None:
        warn("nobody is there")

    def share(self, work: Work) -> Any:
        self.work = work
        assert work.probe.is_file()
        return [work]

    def dismiss(self, worker: str) -> None:
        self.dismissed.append(worker)
        self._forget(worker)

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
        if self._together and self._starting:
            return self._join()
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
        hello = self.hello
        if self._nodes:
            host = self._nodes[(int(worker.partition(" ")[2]) - 1) % len(self._nodes)]
            hello = replace(hello, node=f"node {host}", host=host)
        self.hosts[worker] = hello.host
        return [Joined(worker, hello)]

    def _go_on(self, worker: str) -> list[Event]:
        order = self.orders[worker][0]
        if worker not in self._told:
            self.computed[order.step] += 1
            self.computed_on.append((self.hosts[worker], order.step))
            here = self._bad in (None, self.hosts[worker])
            self._told[worker] = self._messages(order) if here else self._results(order)
        waiting = self._told[worker]
        deadly = order.step in self._deadly and self._bad in (None, self.hosts[worker])
        if deadly and not isinstance(waiting[0], Loading):
            return self._die(worker)
        now = 1 if deadly else self._chance.randint(1, len(waiting))
        told, self._told[worker] = waiting[:now], waiting[now:]
        if isinstance(told[-1], Unfit):
            self.orders[worker].clear()
            del self._told[worker]
            return [Told(worker, told)]
        if isinstance(told[-1], Unable):
            return [Told(worker, told), *self._last_answers(worker)]
        if not self._told[worker]:
            del self._told[worker]
            self.orders[worker].pop(0)
        return [Told(worker, told)]

    def _messages(self, order: Order) -> list[Any]:
        key = (order.model, order.step)
        if self._unfit is not None:
            return [Unfit(order.model, sent(self._unfit))]
        if order.step in self._failing:
            half = Advanced(*key, IDS.size // 2, skipped=False)
            return [Loading(*key), Began(*key), half, Failed(*key, sent(self._failing[order.step]))]
        if order.step in self._unable:
            return [Loading(*key), Began(*key), Unable(sent(self._unable[order.step]))]
        return self._results(order)

    def _results(self, order: Order) -> list[Any]:
        key = (order.model, order.step)
        (path,) = (self._known / f"parts/step={order.step}").glob("*.parquet")
        part = Part(*key, str(path.relative_to(self._known)), path.read_bytes())
        tokens = Advanced(*key, IDS.size, skipped=False)
        sha256 = read_provenance(path)["weights_sha256"]
        return [Loading(*key), Began(*key), tokens, part, Finished(*key, sha256)]

    def _die(self, worker: str) -> list[Event]:
        self._deaths -= bool(self._deaths)
        self._forget(worker)
        return [Lost(worker, "it was killed", True)]

    def _forget(self, worker: str) -> None:
        steps = [order.step for order in self.orders.pop(worker)]
        self.lost.update(steps)
        if len(steps) == 1:
            self.alone.update(steps)
        self._told.pop(worker, None)
        self._asked = [asked for asked in self._asked if asked[0] != worker]

    def _last_answers(self, worker: str) -> list[Event]:
        """A worker that can do no more gives back what it is asked for, at the same moment."""
        answers: list[Event] = [
            GaveBack(asked, model, step, step != self.orders[worker][0].step)
            for asked, model, step in self._asked
            if asked == worker
        ]
        self.given_back_last += len(answers)
        return answers

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
    RayEngine(cluster, asked, progress, on_error).run()
    return SweepResult(out, steps=STEPS, metrics=asked[0].plan.metrics)


def quiet(out: Path) -> bool:
    """Whether nothing is left in a folder but results."""
    return not [
        path
        for path in out.rglob("*")
        if path.is_file() and (path.name.startswith(".") or path.parent.name == "working")
    ]
