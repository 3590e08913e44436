"""How a simulated sweep goes on: what the driver does, and what each worker does."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from pythia_fast.runs.dispatching.dispatch import Dispatcher
from pythia_fast.runs.forecast.simulation.cluster import (
    BUSY,
    SPENT,
    Cluster,
    Simulated,
    SimulatedStep,
    Spent,
)
from pythia_fast.runs.forecast.simulation.places import Clock, Node, Step, Worker
from pythia_fast.runs.forecast.simulation.transport import Transport, rate_of
from pythia_fast.runs.forecast.stages import Stage


class Play:
    """One sweep; `run` plays it once."""

    def __init__(self, steps: Sequence[SimulatedStep], cluster: Cluster) -> None:
        self._cluster = cluster
        self._steps = {step.task: step for step in steps}
        tasks = [step.task for step in steps]
        self._dispatcher = Dispatcher(tasks, look_ahead=cluster.look_ahead)
        budget, each = cluster.disk_budget_bytes, cluster.workers_per_node
        room = math.inf if budget is None else float(budget)
        self._nodes = [Node(number, room) for number in range(-(-cluster.workers // each))]
        self._ready_s = cluster.begin_s + cluster.start_s
        self._workers = [
            Worker(number, self._nodes[number // each], self._ready_s)
            for number in range(cluster.workers)
        ]
        self._clock = Clock()
        self._touched: dict[int, Worker] = {}
        self._transport = Transport(steps, cluster, self._nodes, self._clock, self._touch)
        self._end_s = 0.0
        self._switches = self._given = 0

    def run(self) -> Simulated:
        """From the start of the driver to the last result."""
        if self._steps:
            for worker in self._workers:
                self._clock.after(self._ready_s, partial(self._join, worker))
        while self._clock.tick():
            self._hand_out()
            while self._touched:
                self._go_on(self._touched.pop(next(iter(self._touched))))
            self._transport.share()
        if not self._dispatcher.over:
            raise AssertionError("the simulation stands still")
        return self._result()

    def _touch(self, worker: Worker) -> None:
        self._touched[worker.number] = worker

    def _join(self, worker: Worker) -> None:
        worker.ready = True
        self._dispatcher.join(worker.name)
        self._touch(worker)

    def _hand_out(self) -> None:
        """Give out what waits, and have those who hold too much give back."""
        while True:
            for name, task in self._dispatcher.assignments():
                worker, step = self._workers[int(name)], Step(self._steps[task], self._given)
                self._given += 1
                worker.held[task] = step
                self._clock.after(self._cluster.message_s, partial(self._receive, worker, step))
            wanted = self._dispatcher.wanted_back()
            if wanted is None:
                return
            name, task = wanted
            self._give_back(self._workers[int(name)], self._workers[int(name)].held.pop(task))
            self._dispatcher.taken_back(name, task, given=True)

    def _receive(self, worker: Worker, step: Step) -> None:
        if not step.given_back:
            worker.queue.append(step)
            self._touch(worker)

    def _give_back(self, worker: Worker, step: Step) -> None:
        step.given_back = True
        if step in worker.queue:
            worker.queue.remove(step)
        self._transport.drop(worker, step)
        self._touch(worker)

    def _go_on(self, worker: Worker) -> None:
        """Begin whatever can begin now."""
        if not worker.ready:
            return
        self._compute(worker)
        more = bool(worker.queue) and worker.queue[0].of.task.model == worker.model
        if worker.untold and not worker.at_work and not more:
            self._clock.after(0.0, partial(self._tell, worker))
        if not worker.at_work and worker.queue and not more:
            self._switch(worker, worker.queue[0].of.task.model)
            return
        while (
            worker.queue
            and worker.at_work < self._cluster.arenas
            and worker.queue[0].of.task.model == worker.model
        ):
            step = worker.queue.popleft()
            worker.begun.append(step)
            self._dispatcher.begun(worker.name, step.of.task)
        if worker.loading is None and worker.begun and worker.begun[0].here:
            self._transport.load(worker, worker.begun.popleft())
        self._transport.fetch(worker)
        worker.idles(not (worker.at_work or worker.queue), self._clock.now_s)

    def _switch(self, worker: Worker, model: int) -> None:
        """Make arenas for another model; nothing else goes on meanwhile."""
        worker.idles(False, self._clock.now_s)
        worker.starts(self._cluster.model_s)
        self._switches += worker.model is not None
        worker.model, worker.ready = model, False

        def made() -> None:
            worker.ready = True
            self._touch(worker)

        self._clock.after(self._cluster.model_s, made)

    def _compute(self, worker: Worker) -> None:
        if worker.computing is not None or not worker.loaded:
            return
        step = worker.computing = worker.loaded.popleft()
        worker.computes(self._clock.now_s, step)
        worker.spent["start"] += self._cluster.step_s
        worker.spent["compute"] += step.of.compute_s
        elapsed_s = self._cluster.step_s + step.of.compute_s
        self._clock.after(elapsed_s, partial(self._computed, worker, step))
        if self._cluster.batches is not None:
            first_s = self._cluster.step_s + step.of.compute_s / self._cluster.batches
            self._clock.after(first_s, partial(self._tell, worker))

    def _computed(self, worker: Worker, step: Step) -> None:
        worker.computing = None
        worker.free_since_s = now_s = self._clock.now_s
        self._transport.leave_disk(worker, step)
        worker.written_s = max(worker.written_s, now_s) + self._cluster.publish_s
        self._clock.after(worker.written_s - now_s, partial(self._written, worker, step))
        self._touch(worker)

    def _written(self, worker: Worker, step: Step) -> None:
        worker.untold.append(step)
        self._end_s = self._clock.now_s
        if self._cluster.batches is None:
            self._tell(worker)
        self._touch(worker)

    def _tell(self, worker: Worker) -> None:
        """Let the driver know what is done."""
        for step in worker.untold:
            del worker.held[step.of.task]
            self._dispatcher.finished(worker.name, step.of.task)
        worker.untold.clear()

    def _result(self) -> Simulated:
        total_s, whole = self._end_s, self._end_s * len(self._workers)
        for worker in self._workers:
            worker.ends(total_s)
        spent: dict[Spent, float] = dict.fromkeys(SPENT, 0.0) | {"idle": 1.0}
        if whole:
            spent = {
                name: sum(worker.spent[name] for worker in self._workers) / whole for name in SPENT
            }
        busy = self._busy() | {"compute": spent["compute"]}
        return Simulated(
            total_s=total_s,
            spent=spent,
            busy=busy,
            bottleneck=_bottleneck(busy, spent),
            idle=tuple(
                worker.spent["idle"] / total_s if total_s else 1.0 for worker in self._workers
            ),
            download_bytes=self._transport.downloaded,
            load_bytes=self._transport.loaded,
            disk_bytes=max(node.most_used for node in self._nodes),
            kept_bytes=max(max(node.kept, node.most_used) for node in self._nodes),
            switches=self._switches,
        )

    def _busy(self) -> dict[Stage, float]:
        """What part of what could have been done in that time was, by who would have been slowest.

        The workers of a node share its rates; what comes is hashed by a worker beside what is read.
        """
        if not self._end_s:
            return dict.fromkeys(("download", "verify", "read"), 0.0)
        cluster, moved, workers = self._cluster, self._transport, len(self._workers)
        nodes_s, workers_s = self._end_s * len(self._nodes), self._end_s * workers
        coming_s = workers_s * cluster.at_once
        return {
            "download": max(
                moved.downloaded / (rate_of(cluster.network) * self._end_s),
                moved.downloaded / (rate_of(cluster.node_network) * nodes_s),
                moved.downloaded / (rate_of(cluster.step_network) * coming_s),
            ),
            "verify": max(
                moved.hashed / (rate_of(cluster.node_verify) * nodes_s),
                moved.came_hash_s / coming_s,
                moved.read_hash_s / workers_s,
            ),
            "read": moved.loaded / (rate_of(cluster.read) * nodes_s),
        }


def _bottleneck(busy: Mapping[Stage, float], spent: Mapping[Spent, float]) -> Spent:
    """The busiest stage, or where none is busy enough what most time goes on beside computing."""
    busiest = max(busy, key=lambda stage: busy[stage])
    if busy[busiest] >= BUSY:
        return busiest
    return max((name for name in SPENT if name != "compute"), key=lambda name: spent[name])
