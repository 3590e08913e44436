"""A GPU that takes its time: its memory is the CPU's, its streams are threads with random delays.

What is given to a stream is done later, so that a wait that is missing gives wrong numbers: a
target is written late, and a source is read late.
"""

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from pythia_fast.errors import PinnedMemoryError

PATIENCE_S = 60.0


class Passed:
    """A place in a stream."""

    def __init__(self, gpu: "FakeGpu") -> None:
        self._gpu, self._passed = gpu, threading.Event()

    def synchronize(self) -> None:
        assert self._passed.wait(PATIENCE_S), "the stream stands still"
        self._gpu.check()

    def query(self) -> bool:
        self._gpu.check()
        return self._passed.is_set()

    def set(self) -> None:
        self._passed.set()

    def wait(self) -> None:
        assert self._passed.wait(PATIENCE_S), "the stream stands still"


class Stream:
    """Does one thing after the other, each after a delay.

    It stands still before the next while `goes_on` is not set, and after the `hold_after`-th.
    """

    def __init__(self, seed: int, slowest_s: float) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._draw, self._slowest_s = random.Random(seed), slowest_s
        self._given, self._done, self._lock = 0, 0, threading.Lock()
        self.hold_after: int | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    @property
    def under_way(self) -> int:
        return self._given - self._done

    def _go(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def give(self, work: Callable[[], None]) -> None:
        def late() -> None:
            self.goes_on.wait(PATIENCE_S)
            time.sleep(self._slowest_s * (0.2 + 0.8 * self._draw.random()))
            work()
            self._done += 1
            if self._done == self.hold_after:
                self.goes_on.clear()

        with self._lock:
            self._given += 1
            self._work.put(late)

    def then(self, at_once: Callable[[], None]) -> None:
        self._work.put(at_once)

    def end(self) -> None:
        self.goes_on.set()
        self._work.put(None)
        self._thread.join(PATIENCE_S)


class FakeGpu:
    """`pythia_fast.model.streams.Streams`. Who makes it computes: other threads give no work.

    `without` names waits that it does not do. Where the tests' thread is itself what computes
    (`inline`), that waits. `lockable` is how many bytes of memory can be pinned. `broken` makes all
    calls fail.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        copy_s: float = 3e-4,
        compute_s: float = 3e-3,
        without: frozenset[str] = frozenset(),
        inline: bool = False,
        lockable: int = 1 << 30,
    ) -> None:
        self.copying, self.computing = Stream(seed, copy_s), Stream(seed + 1, compute_s)
        self.without, self.inline, self.lockable = without, inline, lockable
        self._owner = threading.get_ident()
        self.broken = False
        self.copies = 0

    def check(self) -> None:
        if self.broken:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    def pinned(self, nbytes: int) -> torch.Tensor:
        if nbytes > self.lockable:
            raise PinnedMemoryError(f"no {nbytes} bytes")
        self.lockable -= nbytes
        return torch.full((nbytes,), 0xFF, dtype=torch.uint8)  # NaN, in every dtype

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.check()
        assert target.is_contiguous()
        assert source.is_contiguous()
        assert (target.dtype, target.shape) == (source.dtype, source.shape)
        self.copies += 1
        self.copying.give(lambda: _copy(target, source))

    def fill(self, target: torch.Tensor, value: float) -> None:
        self.check()
        self.copying.give(lambda: _fill(target, value))

    def copied(self) -> Passed:
        return self._place(self.copying)

    def computed(self) -> Passed:
        if not self.inline and threading.get_ident() == self._owner:
            return self._place(self.computing)
        now = Passed(self)
        now.set()
        return now

    def copy_after(self, event: Passed) -> None:
        self.check()
        if "copy_after" not in self.without:
            self.copying.then(event.wait)

    def compute_after(self, event: Passed) -> None:
        self.check()
        if "compute_after" in self.without:
            return
        if self.inline:
            event.synchronize()
        else:
            self.computing.then(event.wait)

    def compute(self, work: Callable[[], None]) -> None:
        """Give the computing stream something to do."""
        self.computing.give(work)

    def finish(self) -> None:
        """Wait for all, as only a test may."""
        for stream in (self.copying, self.computing, self.copying):
            place = Passed(self)
            stream.then(place.set)
            place.wait()

    def _place(self, stream: Stream) -> Passed:
        self.check()
        place = Passed(self)
        stream.then(place.set)
        return place


@contextmanager
def fake_gpu(seed: int = 0, **made: object) -> Iterator[FakeGpu]:
    """One whose threads end with the block."""
    gpu = FakeGpu(seed, **made)  # type: ignore[arg-type]
    try:
        yield gpu
    finally:
        gpu.copying.end()
        gpu.computing.end()


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    with torch.no_grad():
        target.copy_(source)


def _fill(target: torch.Tensor, value: float) -> None:
    with torch.no_grad():
        target.fill_(value)
