"""Who is there while a sweep is simulated: the clock, the nodes, their workers, the steps."""

import heapq
from collections import deque
from collections.abc import Callable

from pythia_fast.runs.dispatching.dispatch import Task
from pythia_fast.runs.forecast.simulation.cluster import SPENT, SimulatedStep, Spent
from pythia_fast.runs.forecast.simulation.flows import Flows, Kind, Place

_LEAST_HASHED = 1e-9  # of a byte that comes, so that times can be had of it


class Clock:
    """Simulated time, and what is to happen in it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_s: float, then: Callable[[], None]) -> None:
        """Let it happen so much later; what is at the same time happens in this order."""
        heapq.heappush(self._events, (self.now_s + delay_s, self._count, then))
        self._count += 1

    def tick(self) -> bool:
        """Let all happen that is next, at one time; False if there is nothing."""
        if not self._events:
            return False
        self.now_s = self._events[0][0]
        while self._events and self._events[0][0] <= self.now_s:
            heapq.heappop(self._events)[2]()
        return True


class Step:
    """A step on its way through one worker."""

    def __init__(self, of: SimulatedStep, number: int) -> None:
        self.of, self.number = of, number
        self.given_back = False
        self.asked = False  # for its download
        self.queued_since_s = self.queued_s = 0.0  # for room
        self.here = not of.download_bytes
        hashed = 1.0 if self.here else of.disk_bytes / of.download_bytes
        self.kind = Kind(of.files, max(hashed, _LEAST_HASHED))
        self.room = 0.0  # that it takes on the disk
        self.load_s = self.hash_s = 0.0
        self.waited_for: Spent = "start" if self.here else "download"


class Node:
    """What the workers of one node share."""

    def __init__(self, number: int, room: float) -> None:
        self.number = number
        self.coming: dict[Kind, Flows] = {}
        self.reading, self.hashing = Flows(), Flows()
        self.told = Place()  # what the wire knows of
        self.room = room
        self.used = self.most_used = self.kept = 0.0
        self.queue: deque[tuple[Worker, Step]] = deque()  # for room on the disk

    @property
    def place(self) -> Place:
        """What is under way."""
        coming = ((kind, len(flows)) for kind, flows in self.coming.items() if len(flows))
        return Place(tuple(sorted(coming)), len(self.hashing))


class Worker:
    """One worker: what it holds, and what it is doing."""

    def __init__(self, number: int, node: Node, ready_s: float) -> None:
        self.number, self.node, self.name = number, node, str(number)
        self.model: int | None = None
        self.ready = False
        self.held: dict[Task, Step] = {}
        self.queue: deque[Step] = deque()  # handed out, not begun
        self.begun: deque[Step] = deque()  # has an arena, and waits to be read
        self.loading: Step | None = None
        self.loaded: deque[Step] = deque()
        self.computing: Step | None = None
        self.asking: Step | None = None
        self.asked: deque[Step] = deque()  # downloads that wait for the one before
        self.fetching: list[Step] = []
        self.written_s = 0.0
        self.untold: list[Step] = []  # that are written, which the driver does not know
        self.spent: dict[Spent, float] = dict.fromkeys(SPENT, 0.0)
        self.free_since_s = 0.0  # when it last stopped to compute
        self._gap_start_s = ready_s  # what of the time since then is start, and what idle
        self._gap_idle_s = 0.0
        self._idle_since_s: float | None = None

    @property
    def at_work(self) -> int:
        """Steps that have an arena."""
        alone = (self.loading, self.computing)
        return len(self.begun) + len(self.loaded) + sum(each is not None for each in alone)

    def starts(self, elapsed_s: float) -> None:
        """For so long it can do nothing else."""
        self._gap_start_s += elapsed_s

    def idles(self, idle: bool, now_s: float) -> None:
        """Whether it has nothing to do from now on."""
        if idle and self._idle_since_s is None:
            self._idle_since_s = now_s
        elif not idle and self._idle_since_s is not None:
            self._gap_idle_s += now_s - self._idle_since_s
            self._idle_since_s = None

    def computes(self, now_s: float, step: Step) -> None:
        """Count on what the time went since it last computed.

        A step that had no room for so long would have been here earlier by as much.
        """
        rest = self._end_gap(now_s)
        parts: tuple[tuple[Spent, float], ...] = (
            ("verify", step.hash_s),
            ("read", step.load_s),
            ("disk", step.queued_s),
        )
        for name, most_s in parts:
            part_s = min(rest, most_s)
            self.spent[name] += part_s
            rest -= part_s
        self.spent[step.waited_for] += rest

    def ends(self, now_s: float) -> None:
        """The same where nothing comes any more."""
        self._gap_start_s = min(self._gap_start_s, now_s - self.free_since_s)
        self._gap_idle_s = 0.0
        self.spent["idle"] += self._end_gap(now_s)

    def _end_gap(self, now_s: float) -> float:
        """What is neither start nor idle."""
        rest = now_s - self.free_since_s - self._gap_start_s - self._gap_idle_s
        self.spent["start"] += self._gap_start_s
        self.spent["idle"] += self._gap_idle_s
        self._gap_start_s = self._gap_idle_s = 0.0
        return max(0.0, rest)
