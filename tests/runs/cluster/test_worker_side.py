"""The worker's queue, its progress and its way to the run folder, without a cluster."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import pythia_fast
from pythia_fast.errors import FormatError, RunMismatchError
from pythia_fast.model import ends_context
from pythia_fast.runs.cluster.messages import (
    Advanced,
    Began,
    Computed,
    Failed,
    Finished,
    Loading,
    Order,
    Part,
    WaitsFor,
    Work,
)
from pythia_fast.runs.cluster.outbox import Outbox
from pythia_fast.runs.cluster.sent_error import sent
from pythia_fast.runs.cluster.worker_side import (
    Assigned,
    SentParts,
    Telling,
    parts_of,
    sees,
)
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.results.result import SweepResult


class Fetching:
    """An `Ahead` that remembers."""

    received_bytes = 7
    waits_for_room = True
    failed: Exception | None = None

    def __init__(self) -> None:
        self.steps: list[int] = []

    def extend(self, steps: Iterable[int]) -> None:
        self.steps += steps

    def drop(self, step: int) -> None:
        self.steps.remove(step)


def order(step: int, *remarks: str) -> Order:
    return Order(3, step, remarks, {})


def test_steps_are_ordered_fetched_and_given_back() -> None:
    outbox = Outbox()
    assigned, fetching = Assigned(3, outbox), Fetching()
    assigned.order(order(10, "odd"))
    assigned.fetching(fetching)
    assert fetching.steps == [10]
    for step in (20, 30):
        assigned.order(order(step))
    assert fetching.steps == [10, 20, 30]
    assert assigned.queue.popleft() == 10
    assert outbox.take(0) == [Loading(3, 10)]
    assert not assigned.give_back(10), "it is being loaded"
    assert assigned.give_back(20)
    assert not assigned.give_back(20)
    assert fetching.steps == [10, 30]
    assert list(assigned.queue) == [30]
    assert assigned.remarks(10) == ("odd",)
    assert assigned.remarks(99) == ()
    assert assigned.finished_with("abc") is None
    assert outbox.take(0) == []


def test_a_step_is_either_loaded_or_given_back() -> None:
    """By threads that race for it: never both, never neither."""
    for _ in range(50):
        outbox = Outbox()
        assigned = Assigned(3, outbox)
        for step in range(20):
            assigned.order(order(step))
        given: list[int] = []
        loaded: list[int] = []
        begin = threading.Barrier(2)

        def take(assigned: Assigned, loaded: list[int], begin: threading.Barrier) -> None:
            begin.wait()
            while assigned.queue:
                try:
                    loaded.append(assigned.queue.popleft())
                except IndexError:
                    return

        thread = threading.Thread(target=take, args=(assigned, loaded, begin))
        thread.start()
        begin.wait()
        given += [step for step in reversed(range(20)) if assigned.give_back(step)]
        thread.join()
        assert sorted(given + loaded) == list(range(20))
        assert outbox.take(0) == [Loading(3, step) for step in loaded]


def test_what_becomes_of_a_step_is_told() -> None:
    outbox = Outbox()
    assigned, telling = Assigned(3, outbox), Telling(3, outbox)
    error = FormatError(Path("weights"), "damaged")
    telling.waiting(5, Fetching())
    assigned.begin(5)
    telling.advance(4, 5)
    telling.advance(6, 5)
    telling.skip(1, 5)
    telling.computed(0.5)
    assigned.written(5, "abc")
    assigned.finish(5, "abc")  # later, when the pipeline has seen it; told already
    assigned.fail(6, error)
    assert outbox.take(0) == [
        WaitsFor(3, 5, 7, True),
        Began(3, 5),
        Advanced(3, 5, 10, skipped=False),
        Advanced(3, 5, 1, skipped=True),
        Computed(0.5),
        Finished(3, 5, "abc"),
        Failed(3, 6, sent(error)),
    ]


def test_a_broken_gpu_is_no_fault_of_the_step() -> None:
    """Running out of its memory is."""
    outbox = Outbox()
    broken = torch.AcceleratorError("an illegal memory access")
    with pytest.raises(torch.AcceleratorError):
        Assigned(3, outbox).fail(5, broken)
    assert outbox.take(0) == []
    assert ends_context(broken)
    full = torch.OutOfMemoryError("none left")
    assert not ends_context(full)
    Assigned(3, outbox).fail(5, full)
    assert len(outbox.take(0)) == 1


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    root = tmp_path_factory.mktemp("sent")
    series = pythia_fast.testing.tiny_suite(root / "tiny", steps=(0, 1))
    ids = np.random.default_rng(0).integers(0, 260, (3, 17), dtype=np.uint16)
    return pythia_fast.sweep(series, tokens=ids, out=root / "run", progress=False)


def work(known: SweepResult, probe: Path, **changes: Any) -> Work:
    run_hash = pythia_fast.runs.folder.parts.read_run(known.path)["hash"]
    given: dict[str, Any] = {"model": 3, "series": None, "plan": None, "batch_tokens": "auto"}
    given |= {"folder": known.path, "run_hash": run_hash, "probe": probe, "sample": None}
    return Work(**given | changes)


def test_who_sees_the_probe_writes_himself(known: SweepResult, tmp_path: Path) -> None:
    outbox, probe = Outbox(), tmp_path / "probe"
    assert not sees(probe)
    assert not sees(Path("\0"))
    assert isinstance(parts_of(work(known, probe), outbox), SentParts)
    probe.touch()
    assert isinstance(parts_of(work(known, probe), outbox), RunFolder)
    with pytest.raises(RunMismatchError):
        parts_of(work(known, probe, run_hash="another"), outbox)


def test_a_part_that_is_sent_is_the_file_that_would_be_written(
    known: SweepResult, tmp_path: Path
) -> None:
    outbox = Outbox()
    folder = RunFolder.joined(known.path, work(known, tmp_path).run_hash)
    (path,) = (known.path / "parts/step=1").glob("*.parquet")
    name = str(path.relative_to(known.path))

    class Unit:
        step, path = 1, name

    unit: Any = Unit()
    table = folder.table(unit)
    provenance = folder.provenance(unit)
    sent = SentParts(work(known, tmp_path / "none"), outbox)
    assert not sent.done(unit)
    assert sent.intact(unit) is None
    assert sent.first_origin() is None
    with pytest.raises(FormatError, match="it is not on this machine"):
        sent.table(unit)
    sent.publish(unit, pa.table(table), provenance)
    (part,) = outbox.take(0)
    assert part == Part(3, 1, name, path.read_bytes())
    sent.know({name: "abc"})
    assert sent.done(unit)
    assert sent.origin(unit) == sent.intact(unit) == {"weights_sha256": "abc"}
