"""How the bytes come: over the network to a node's disk, and from there into an arena."""

import math
from collections.abc import Callable, Sequence

from pythia_fast.runs.forecast.simulation.cluster import Cluster, SimulatedStep
from pythia_fast.runs.forecast.simulation.flows import Flows, Place, Wire
from pythia_fast.runs.forecast.simulation.places import Clock, Node, Step, Worker


def rate_of(given: float | None) -> float:
    """A rate, infinite where nothing limits it."""
    return math.inf if given is None else given


_NOTHING = Place()


class Transport:
    """All downloads and all reading; `touched` is told of each worker whose bytes have come."""

    def __init__(
        self,
        steps: Sequence[SimulatedStep],
        cluster: Cluster,
        nodes: Sequence[Node],
        clock: Clock,
        touched: Callable[[Worker], None],
    ) -> None:
        self._cluster, self._nodes = cluster, nodes
        self._clock, self._touched = clock, touched
        self._depth = _depths(steps, cluster.disk_budget_bytes)
        self._wire = Wire(
            *(rate_of(cluster.network), rate_of(cluster.node_network)),
            *(rate_of(cluster.step_network), rate_of(cluster.verify)),
            rate_of(cluster.node_verify),
        )
        self._dirty: dict[int, Node] = {}
        self._moving: dict[int, tuple[Worker, Step]] = {}
        self.downloaded = self.loaded = self.hashed = 0.0
        self.came_hash_s = self.read_hash_s = (
            0.0  # of one step after the other, on cores of its own
        )

    def fetch(self, worker: Worker) -> None:
        """Ask for downloads, one after the other, as far as the look-ahead reaches."""
        while worker.asking is None and (step := self._next(worker)) is not None:
            step.asked = True
            worker.asking = step
            if not self._cluster.ask_s:
                self._answered(worker, step)
                continue
            self._clock.after(self._cluster.ask_s, lambda: self._answered(worker, step))
            break
        self._begin(worker)

    def load(self, worker: Worker, step: Step) -> None:
        """Read a step that is here into an arena; of what was not downloaded hash it then."""
        worker.loading = step
        step.load_s = self._clock.now_s
        self._moving[step.number] = worker, step
        worker.node.reading.add(self._clock.now_s, step.number, step.of.load_bytes)
        self._dirty[worker.node.number] = worker.node

    def leave_disk(self, worker: Worker, step: Step) -> None:
        """A step's files are not needed any more."""
        worker.node.used -= step.room
        step.room = 0.0
        self._admit(worker.node)

    def drop(self, worker: Worker, step: Step) -> None:
        """A step is not wanted after all: what of it was coming is in vain."""
        node = worker.node
        if step in worker.asked:
            worker.asked.remove(step)
        if step in worker.fetching:
            worker.fetching.remove(step)
            if (worker, step) in node.queue:
                node.queue.remove((worker, step))
            else:
                node.coming[step.kind].remove(self._clock.now_s, step.number)
                del self._moving[step.number]
                self._dirty[node.number] = node
        self.leave_disk(worker, step)

    def share(self) -> None:
        """Give each transfer its part of the wire, its disk and its cores, as they are now."""
        differs = False
        for node in self._dirty.values():
            place = node.place
            if place != node.told:
                differs |= self._wire.changed(node.told, place)
                node.told = place
        for node in self._nodes if differs else self._dirty.values():
            if node.told == _NOTHING:
                continue
            shares, dirty = self._wire.shares(node.told), node.number in self._dirty
            for kind, _ in node.told.coming:
                self._set(node, node.coming[kind], shares.coming[kind], self._arrived, dirty)
            if node.told.hashing:
                self._set(node, node.hashing, shares.hashing, self._hashed, dirty)
        for node in self._dirty.values():
            rate = rate_of(self._cluster.read) / max(1, len(node.reading))
            self._set(node, node.reading, rate, self._read, True)
        self._dirty.clear()

    def _set(
        self,
        node: Node,
        flows: Flows,
        rate: float,
        end: Callable[[Worker, Step], None],
        dirty: bool,
    ) -> None:
        """Give each of these transfers this rate, if it is another or there are other ones."""
        if dirty or rate != flows.rate:
            flows.set_rate(self._clock.now_s, rate)
            self._foretell(node, flows, end)

    def _next(self, worker: Worker) -> Step | None:
        """The first step that is not asked for, if so few are that there is a place for it."""
        taken = 0
        for step in (*worker.begun, *worker.queue):
            if worker.model is None or step.of.task.model != worker.model:
                return None
            if not step.of.download_bytes:
                continue
            if not step.asked:
                return step if taken < self._depth[worker.model] else None
            taken += 1
        return None

    def _answered(self, worker: Worker, step: Step) -> None:
        worker.asking = None
        if not step.given_back:
            worker.asked.append(step)
        self._touched(worker)

    def _begin(self, worker: Worker) -> None:
        """Let the next ones wait for room, and come."""
        while len(worker.fetching) < self._cluster.at_once and worker.asked:
            step = worker.asked.popleft()
            worker.fetching.append(step)
            step.queued_since_s = self._clock.now_s
            worker.node.queue.append((worker, step))
            self._admit(worker.node)

    def _admit(self, node: Node) -> None:
        """Begin the downloads that have room, in the order in which they were asked for."""
        while node.queue and node.queue[0][1].of.disk_bytes <= node.room - node.used:
            worker, step = node.queue.popleft()
            step.queued_s = self._clock.now_s - step.queued_since_s
            step.room = step.of.disk_bytes
            node.used += step.room
            node.most_used = max(node.most_used, node.used)
            self._moving[step.number] = worker, step
            coming = node.coming.setdefault(step.kind, Flows())
            coming.add(self._clock.now_s, step.number, step.of.download_bytes)
            self._dirty[node.number] = node

    def _arrived(self, worker: Worker, step: Step) -> None:
        node = worker.node
        worker.fetching.remove(step)
        step.here = True
        self.downloaded += step.of.download_bytes
        self.hashed += step.of.disk_bytes
        self.came_hash_s += step.of.disk_bytes / (rate_of(self._cluster.verify) * step.of.files)
        node.kept += step.of.disk_bytes
        if step.kind in self._wire.shares(node.told).hash_bound:
            step.waited_for = "verify"
        self._touched(worker)

    def _read(self, worker: Worker, step: Step) -> None:
        step.load_s = self._clock.now_s - step.load_s
        self.loaded += step.of.load_bytes
        if step.of.download_bytes:
            self._ready(worker, step)
            return
        step.hash_s = self._clock.now_s
        self._moving[step.number] = worker, step
        worker.node.hashing.add(self._clock.now_s, step.number, step.of.disk_bytes)

    def _hashed(self, worker: Worker, step: Step) -> None:
        step.hash_s = self._clock.now_s - step.hash_s
        self.hashed += step.of.disk_bytes
        self.read_hash_s += step.of.disk_bytes / rate_of(self._cluster.verify)
        self._ready(worker, step)

    def _ready(self, worker: Worker, step: Step) -> None:
        worker.loading = None
        worker.loaded.append(step)
        self._touched(worker)

    def _foretell(self, node: Node, flows: Flows, end: Callable[[Worker, Step], None]) -> None:
        """Look at the transfers again when the first of them is over, if nothing changes before."""
        version, when_s = flows.version, flows.next_s
        if when_s == math.inf:
            return

        def look() -> None:
            if flows.version == version:
                for number in flows.pop_ended(self._clock.now_s, foretold=True):
                    end(*self._moving.pop(number))
                self._dirty[node.number] = node

        self._clock.after(max(0.0, when_s - self._clock.now_s), look)


def _depths(steps: Sequence[SimulatedStep], budget_bytes: int | None) -> dict[int, int]:
    """Of each model, how many steps may be on their way or wait."""
    from pythia_fast.series.lookahead import depth  # here: huggingface_hub is slow to import

    largest: dict[int, float] = {}
    for step in steps:
        model = step.task.model
        largest[model] = max(largest.get(model, 0.0), step.disk_bytes)
    return {model: depth(budget_bytes, int(nbytes)) for model, nbytes in largest.items()}
