"""A worker in this process: its orders, what it gives back, and how it ends. Ray is played."""

import os
import pickle
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import pythia_fast
from pythia_fast.errors import (
    ArgumentError,
    MissingTokensError,
    RunMismatchError,
    WorkerError,
)
from pythia_fast.metrics import Batch
from pythia_fast.model import Model
from pythia_fast.model.precision import resolve_precision
from pythia_fast.runs import pipeline
from pythia_fast.runs.asked import Asked
from pythia_fast.runs.asking import questions, settled
from pythia_fast.runs.cluster import actor
from pythia_fast.runs.cluster.actor import BROKEN_CONTEXT, Worker
from pythia_fast.runs.cluster.messages import (
    Began,
    Failed,
    Fatal,
    Finished,
    Hello,
    Loading,
    Message,
    Order,
    Unable,
    Unfit,
    Work,
)
from pythia_fast.runs.folder.run_folder import RunFolder, versions
from pythia_fast.runs.results.result import SweepResult
from pythia_fast.series import open_series
from pythia_fast.testing import tiny, tiny_suite

STEPS = (0, 1, 2, 4)
IDS = np.random.default_rng(1).integers(0, 96, (4, 17), dtype=np.uint16)
PATIENCE_S = 15.0
NODE = "node 7"


class Acting:
    """A metric that does what a test wants, in the worker's thread."""

    name = "acting"
    settings: Mapping[str, Any] = {}
    act: ClassVar[Callable[[int], object]] = staticmethod(lambda step: None)

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, Any]:
        type(self).act(model.checkpoint.step)
        return {"row": batch.rows_B.astype(np.float64)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root, architecture = tmp_path_factory.mktemp("models"), tiny(layers=1, width=32, heads=2)
    return [
        tiny_suite(root / name, steps=STEPS, architecture=architecture, seed=seed)
        for seed, name in enumerate("ab")
    ]


@pytest.fixture
def asked(models: list[Path], tmp_path: Path) -> tuple[Asked, ...]:
    asking = questions(
        [open_series(model) for model in models],
        "all",
        tokens=IDS,
        sequences=512,
        metrics=["perplexity", Acting()],
        deterministic=False,
        batch_tokens="auto",
        disk_budget=None,
        cache_dir=None,
    )
    out = tmp_path / "out"
    return settled(asking, ["float32"] * 2, out=out, several=True, resume=True, cache_dir=None)


class Hand:
    """Orders steps of a worker as Ray would, each in a thread of its own, and hears of them."""

    def __init__(self, asked: tuple[Asked, ...], sample: Any = None) -> None:
        self.worker = Worker(1, 0)
        self.heard: list[Message] = []
        self.calls: dict[tuple[int, int], threading.Thread] = {}
        self._works = []
        for place, each in enumerate(asked):
            probe = each.folder.path / "probe"
            probe.touch()
            work = Work(
                *(place, each.series, each.plan, each.batch_tokens, each.folder.path),
                *(each.folder.hash, probe, sample),
            )
            self._works.append(pickle.dumps(work))

    def order(self, model: int, *steps: int) -> None:
        """Have steps computed, one after the other."""
        for step in steps:
            order = Order(model, step, (), {})
            call = threading.Thread(target=self.worker.compute, args=(order, [self._works[model]]))
            call.start()
            self.calls[model, step] = call
            key = (model, step)
            wait(lambda: key in self.worker._over or not call.is_alive())  # noqa: B023

    def hears(self, kind: type, model: int | None = None, step: int | None = None) -> Any:
        """The first such message, which comes within some time."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            for each in self.heard:
                here = (getattr(each, "model", None), getattr(each, "step", None))
                if isinstance(each, kind) and (model is None or here == (model, step)):
                    return each
            assert time.monotonic() < end_s, f"no {kind.__name__} of {model}, {step}: {self.heard}"
            self.heard += self.worker.poll()

    def all_of(self, kind: type) -> list[tuple[int, int]]:
        """The models and steps of all such messages so far."""
        return [(each.model, each.step) for each in self.heard if isinstance(each, kind)]  # type: ignore[union-attr]

    def end(self) -> None:
        """Stop; nobody waits any longer, and no thread is left."""
        self.worker.stop()
        for thread in (*self.calls.values(), self.worker._thread):
            if thread.ident is not None:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()


def wait(there: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a worker asks of Ray, and no long waiting for what does not come."""
    played = ModuleType("ray")
    played.get = lambda reference: reference  # type: ignore[attr-defined]
    context = SimpleNamespace(get_node_id=lambda: NODE)
    played.get_runtime_context = lambda: context  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", played)
    monkeypatch.setattr(actor, "POLL_S", 0.02)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def hand(asked: tuple[Asked, ...]) -> Iterator[Hand]:
    hand = Hand(asked)
    yield hand
    hand.end()


@pytest.fixture
def acting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], object]], None]:
    """Say what the metric does at each step."""
    return lambda act: monkeypatch.setattr(Acting, "act", staticmethod(act))


def test_an_order_that_comes_while_the_model_is_switched_is_not_lost(
    hand: Hand, asked: tuple[Asked, ...], models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of another model while this one's is waited for: A, B and A again."""
    between, go_on = threading.Event(), threading.Event()
    next_work, times = hand.worker._next_work, iter(range(100))

    def slowly() -> Work | None:
        if next(times) == 1:  # the first model's arenas are gone
            between.set()
            go_on.wait(PATIENCE_S)
        return next_work()

    monkeypatch.setattr(hand.worker, "_next_work", slowly)
    hand.order(0, 0)
    hand.hears(Finished, 0, 0)
    hand.order(1, 0)
    assert between.wait(PATIENCE_S)
    hand.order(0, 1, 2)
    hand.order(1, 1)
    go_on.set()
    for model, step in ((1, 0), (1, 1), (0, 1), (0, 2)):
        hand.hears(Finished, model, step)
    hand.order(0, 4)
    hand.hears(Finished, 0, 4)
    wait(lambda: not any(call.is_alive() for call in hand.calls.values()))
    done = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 4)]
    assert hand.all_of(Finished) == hand.all_of(Began) == done
    assert not hand.all_of(Failed)

    plan = asked[0].plan
    result = SweepResult(asked[0].folder.path, steps=plan.steps, metrics=plan.metrics)
    out = asked[0].folder.path.parent / "local"
    metrics = ["perplexity", Acting()]
    local = pythia_fast.sweep(
        models[0], tokens=IDS, metrics=metrics, out=out, dtype="float32", progress=False
    )
    assert result.table.equals(local.table)
    assert result.sequences.equals(local.sequences)


def test_what_is_not_begun_is_given_back(
    hand: Hand,
    acting: Callable[[Callable[[int], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, ordered, prepared = threading.Event(), threading.Event(), hand.worker._prepared
    acting(lambda step: gate.wait(PATIENCE_S))
    monkeypatch.setattr(
        hand.worker, "_prepared", lambda work: ordered.wait(PATIENCE_S) and prepared(work)
    )
    hand.order(0, 0, 1, 2, 4)
    hand.order(1, 0, 1)
    ordered.set()  # else the first could be computed before there is a second
    hand.hears(Began, 0, 0)
    hand.hears(Loading, 0, 1)  # the other arena is for that
    give = hand.worker.give_back
    assert not give(0, 0)
    assert not give(0, 1)
    assert give(0, 2)  # of the model that is there
    assert give(1, 0)  # of one that is not
    assert not give(0, 2)
    assert not give(1, 0)
    assert not give(1, 8)
    for key in ((0, 2), (1, 0)):
        hand.calls[key].join(PATIENCE_S)
        assert not hand.calls[key].is_alive()
    hand.order(0, 2)  # once more, after all
    gate.set()
    for model, step in ((0, 4), (0, 2), (1, 1)):
        hand.hears(Finished, model, step)
    assert hand.all_of(Finished) == [(0, 0), (0, 1), (0, 4), (0, 2), (1, 1)]
    assert hand.all_of(Loading) == hand.all_of(Finished)


def test_what_comes_while_its_model_is_being_learned_is_given_back(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To learn it can take long: modules of the user's are imported for it."""
    learning, go_on = threading.Event(), threading.Event()

    def slowly(reference: object) -> object:
        learning.set()
        go_on.wait(PATIENCE_S)
        return reference

    monkeypatch.setattr(sys.modules["ray"], "get", slowly)
    for step in (0, 1):
        order = Order(0, step, (), {})
        call = threading.Thread(target=hand.worker.compute, args=(order, [hand._works[0]]))
        call.start()
        hand.calls[0, step] = call
        wait(lambda key=(0, step): key in hand.worker._coming)  # type: ignore[misc]
    assert learning.wait(PATIENCE_S)
    assert hand.worker.give_back(0, 1)
    assert not hand.worker.give_back(0, 1)
    go_on.set()
    hand.hears(Finished, 0, 0)
    hand.calls[0, 1].join(PATIENCE_S)
    assert not hand.calls[0, 1].is_alive()
    assert hand.all_of(Loading) == [(0, 0)]


def leaving(step: int) -> None:
    sys.exit(7)


def pressing(step: int) -> None:
    raise KeyboardInterrupt("in the metric")


@pytest.mark.parametrize(
    ("act", "words"),
    [(leaving, "SystemExit: 7"), (pressing, "KeyboardInterrupt: in the metric")],
)
def test_what_would_end_a_process_is_told(
    hand: Hand,
    acting: Callable[[Callable[[int], object]], None],
    act: Callable[[int], object],
    words: str,
) -> None:
    """In an error that can be raised in the driver, without ending that."""
    acting(act)
    hand.order(0, 0, 1)
    error = hand.hears(Unable).error.opened()
    assert isinstance(error, WorkerError)
    assert str(error) == words
    assert not hand.all_of(Failed)
    assert not hand.all_of(Finished)


def test_a_step_that_fails_is_told_and_the_next_is_computed(
    hand: Hand, acting: Callable[[Callable[[int], object]], None]
) -> None:
    def act(step: int) -> None:
        if step == 1:
            raise ValueError("odd")

    acting(act)
    hand.order(0, 0, 1, 2)
    hand.hears(Finished, 0, 2)
    assert str(hand.hears(Failed, 0, 1).error.opened()) == "odd"
    assert hand.all_of(Finished) == [(0, 0), (0, 2)]


def test_who_has_no_memory_for_a_model_goes_on_with_others(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = pipeline.make_arenas, list[object]()

    def full(*given: Any, **named: Any) -> Any:
        made.append(given)
        if len(made) == 1:
            raise torch.OutOfMemoryError("tried to allocate 24 GiB")
        return make(*given, **named)

    monkeypatch.setattr(pipeline, "make_arenas", full)
    hand.order(0, 0)
    unfit = hand.hears(Unfit)
    assert unfit.model == 0
    assert "24 GiB" in str(unfit.error.opened())
    hand.calls[0, 0].join(PATIENCE_S)
    assert not hand.calls[0, 0].is_alive()
    hand.worker.compute(
        Order(0, 1, (), {}), [hand._works[0]]
    )  # ordered before the driver has heard
    assert not hand.worker.give_back(0, 1)
    hand.order(1, 0)
    hand.hears(Finished, 1, 0)
    assert len(made) == 2
    assert hand.all_of(Loading) == hand.all_of(Finished) == [(1, 0)]


class Absent:
    """What needs a file where it is opened, and there is none."""

    def __reduce__(self) -> tuple[Any, ...]:
        return absent, ()


def absent() -> None:
    raise MissingTokensError("no token data at /data/train")


def test_who_lacks_the_files_of_a_model_goes_on_with_others(hand: Hand) -> None:
    opened = [pickle.dumps(Absent())]
    for step in (0, 1):
        hand.worker.compute(Order(0, step, (), {}), opened)
    hand.order(1, 0)
    hand.hears(Finished, 1, 0)
    (unfit,) = [each for each in hand.heard if isinstance(each, Unfit)]
    assert unfit.model == 0
    assert isinstance(unfit.error.opened(), MissingTokensError)


def test_other_tokens_end_the_run(asked: tuple[Asked, ...]) -> None:
    """And those that are the same do not."""
    plan = asked[0].plan
    rows = plan.rows(0)[:3]
    fingerprint = plan.dataset.fingerprint(rows)
    for sample, kind in (((rows, fingerprint), Finished), ((rows, "0" * 64), Fatal)):
        hand = Hand(asked, sample)
        try:
            hand.order(0, 0)
            message = hand.hears(kind)
        finally:
            hand.end()
    error = message.error.opened()
    assert isinstance(error, RunMismatchError)
    assert "are others on" in str(error)
    assert error.__notes__ == [f"on {platform.node()}"]
    assert not [each for each in hand.heard if isinstance(each, Unable)]


def test_a_broken_gpu_ends_the_process(
    hand: Hand,
    acting: Callable[[Callable[[int], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes, over = [], threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        over.wait(PATIENCE_S)  # nothing comes after this

    def act(step: int) -> None:
        raise torch.AcceleratorError("an illegal memory access")

    monkeypatch.setattr(os, "_exit", leave)
    acting(act)
    hand.order(0, 0)
    hand.hears(Began, 0, 0)
    wait(lambda: bool(codes))
    hand.heard += hand.worker.poll()
    assert codes == [BROKEN_CONTEXT]
    assert not [each for each in hand.heard if isinstance(each, Unable | Fatal | Failed)]
    over.set()


def test_stopping_waits_for_what_is_being_written(
    hand: Hand, asked: tuple[Asked, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, gate = threading.Event(), threading.Event()
    publish = RunFolder.publish

    def slowly(self: RunFolder, *arguments: Any) -> None:
        writing.set()
        gate.wait(PATIENCE_S)
        publish(self, *arguments)

    monkeypatch.setattr(RunFolder, "publish", slowly)
    hand.order(0, 0)
    assert writing.wait(PATIENCE_S)
    stop = threading.Thread(target=hand.worker.stop)
    stop.start()
    stop.join(0.2)
    assert stop.is_alive()
    gate.set()
    stop.join(PATIENCE_S)
    assert not stop.is_alive()
    assert len(list(asked[0].folder.path.glob("parts/step=0/*.parquet"))) >= 1
    assert not list(asked[0].folder.path.rglob("*.partial"))


def test_without_a_gpu_of_its_own_a_worker_takes_none(
    asked: tuple[Asked, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray hides them only from who has asked for a number of them."""
    architectures = [each.series.spec.architecture for each in asked]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asking = (versions()["pythia-fast"], pickle.dumps(("auto", architectures)))
    hello = Worker(2, 0).hello(*asking)
    assert isinstance(hello, Hello)
    assert (hello.node, hello.host) == (NODE, platform.node())
    on_a_cpu = resolve_precision("auto", torch.device("cpu"), architectures[0]).name
    assert hello.precisions == (on_a_cpu, on_a_cpu) != ("float16", "float16")
    assert torch.get_num_threads() == 2
    hello = Worker(1, 0.5).hello(*asking)
    assert isinstance(hello, Hello)
    assert hello.precisions == ("float16", "float16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="torch sees no GPU here"):
        Worker(1, 1)


def test_a_driver_of_another_version_hears_of_the_version_alone() -> None:
    """And nothing that it sends is opened."""
    assert Worker(1, 0).hello("0.0", b"no pickle") == versions()["pythia-fast"]
