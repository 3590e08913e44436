"""The worker's ends of what a pipeline uses: its queue, its progress, its way to the folder."""

import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from pythia_fast.errors import FormatError
from pythia_fast.model import ends_context
from pythia_fast.runs.cluster.messages import (
    Advanced,
    Began,
    Computed,
    Failed,
    Finished,
    LoadedIn,
    Loading,
    Order,
    Part,
    WaitsFor,
    Work,
)
from pythia_fast.runs.cluster.outbox import Outbox
from pythia_fast.runs.cluster.sent_error import sent
from pythia_fast.runs.folder.run_folder import Parts, RunFolder, part_bytes
from pythia_fast.runs.plan import Unit
from pythia_fast.series import Ahead
from pythia_fast.streaming.times import LoadTimes


class Queue(deque[int]):
    """The steps of one model that are to be loaded. The driver is told of each that is taken."""

    def __init__(self, model: int, outbox: Outbox) -> None:
        super().__init__()
        self._model, self._outbox = model, outbox

    def popleft(self) -> int:
        """The next step, which is loaded from now on. IndexError if there is none."""
        step = super().popleft()
        self._outbox.put(Loading(self._model, step))
        return step


class Assigned:
    """Steps as the driver orders them; it decides what becomes of them. A pipeline's `Source`."""

    def __init__(self, model: int, outbox: Outbox) -> None:
        self._model, self._outbox = model, outbox
        self._remarks: dict[int, tuple[str, ...]] = {}
        self._ahead: Ahead | None = None
        self._given_back: set[int] = set()
        self._lock = threading.Lock()
        self.queue: deque[int] = Queue(model, outbox)

    def order(self, order: Order) -> None:
        """Append a step."""
        with self._lock:
            self._remarks[order.step] = order.remarks
            if self._ahead is not None:
                self._ahead.extend((order.step,))
            self.queue.append(order.step)

    def give_back(self, step: int) -> bool:
        """Whether a step was not begun yet: then it is not in the queue any more."""
        with self._lock, suppress(ValueError):
            self.queue.remove(step)
            self._given_back.add(step)
            if self._ahead is not None:
                self._ahead.drop(step)
            return True
        return False

    def fetching(self, ahead: Ahead) -> None:
        """The files of the queue are being fetched: what changes is told there from now on."""
        with self._lock:
            self._ahead = ahead
            ahead.extend(tuple(self.queue))
            for step in self._given_back - set(self.queue):
                ahead.drop(step)
            self._given_back.clear()

    def remarks(self, step: int) -> tuple[str, ...]:
        """What the driver knows to be odd with a step."""
        return self._remarks.get(step, ())

    def finished_with(self, sha256: str) -> int | None:
        """None: of steps with the same weights the driver has ordered one only."""
        return None

    def forget(self, first: int) -> None:
        """Nothing is known of others here."""

    def begin(self, step: int) -> None:
        """Tell that a step is computed now."""
        self._outbox.put(Began(self._model, step))

    def written(self, step: int, sha256: str) -> None:
        """Tell that a step is done, at once: another one may come in its place."""
        self._outbox.put(Finished(self._model, step, sha256))

    def finish(self, step: int, sha256: str | None = None) -> None:
        """The driver knows already."""

    def fail(self, step: int, error: Exception) -> None:
        """Tell that a step has failed; whether that ends the sweep the driver decides."""
        if ends_context(error):
            raise error
        self._outbox.put(Failed(self._model, step, sent(error)))


class Telling:
    """A worker's progress, told to the driver. A pipeline's `Reporter`."""

    def __init__(self, model: int, outbox: Outbox) -> None:
        self._model, self._outbox = model, outbox

    def advance(self, tokens: int, step: int) -> None:
        """Tell that so many tokens have been looked at."""
        self._outbox.put(Advanced(self._model, step, tokens, skipped=False))

    def skip(self, tokens: int, step: int) -> None:
        """Tell that so many tokens need not be looked at."""
        self._outbox.put(Advanced(self._model, step, tokens, skipped=True))

    def loaded(self, times: LoadTimes) -> None:
        """Tell where the time went until a step was loaded."""
        self._outbox.put(LoadedIn(times))

    def computed(self, elapsed_s: float) -> None:
        """Tell how long computing took."""
        self._outbox.put(Computed(elapsed_s))

    def waiting(self, step: int, ahead: Ahead) -> None:
        """Tell that a step is waited for."""
        waits = WaitsFor(self._model, step, ahead.received_bytes, ahead.waits_for_room)
        self._outbox.put(waits)


class SentParts:
    """The run folder where a worker does not see it: finished units are sent to the driver."""

    def __init__(self, work: Work, outbox: Outbox) -> None:
        self.path, self.hash = work.folder, work.run_hash
        self._model, self._outbox = work.model, outbox
        self._done: dict[str, str] = {}

    def know(self, done: Mapping[str, str]) -> None:
        """These units are there already, of weights with these digests."""
        self._done |= done

    def done(self, unit: Unit) -> bool:
        """Whether the driver has the unit's result."""
        return unit.path in self._done

    def origin(self, unit: Unit) -> Mapping[str, Any]:
        """Of which weights a unit's result is; more is not known here."""
        return {"weights_sha256": self._done[unit.path]}

    def intact(self, unit: Unit) -> Mapping[str, Any] | None:
        """`origin` of those that the driver has read; None of all others."""
        return self.origin(unit) if self.done(unit) else None

    def first_origin(self) -> dict[str, Any] | None:
        """None: the driver has looked."""
        return None

    def table(self, unit: Unit) -> pa.Table:
        """Not to be had here. FormatError."""
        raise FormatError(self.path / unit.path, "it is not on this machine")

    def publish(self, unit: Unit, table: pa.Table, provenance: Mapping[str, Any]) -> None:
        """Send a unit's file to the driver, who publishes it."""
        data = part_bytes(table, provenance).to_pybytes()
        self._outbox.put(Part(self._model, unit.step, unit.path, data))

    def forget_failure(self, step: int) -> None:
        """The driver does that."""


def parts_of(work: Work, outbox: Outbox) -> Parts:
    """The run folder if this machine sees the very one, else the way there."""
    if sees(work.probe):
        return RunFolder.joined(work.folder, work.run_hash)
    return SentParts(work, outbox)


def sees(probe: Path) -> bool:
    """Whether the file that the driver keeps in the run folder is there."""
    try:
        return probe.is_file()
    except OSError:
        return False
