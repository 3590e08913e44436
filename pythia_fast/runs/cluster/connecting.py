"""A Ray cluster, existing or started here, and the workers of one sweep in it."""

import itertools
import logging
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from pythia_fast.errors import ArgumentError, PythiaFastError, WorkerError
from pythia_fast.extras import require
from pythia_fast.runs.cluster.actor import Worker
from pythia_fast.runs.cluster.events import Event, GaveBack, Joined, Lost, Told, reason_of
from pythia_fast.runs.cluster.messages import Hello, Order, Work
from pythia_fast.runs.cluster.placing import Node, Placing, placing
from pythia_fast.runs.cluster.reaching import connect
from pythia_fast.runs.workers import Workers
from pythia_fast.suite import Architecture

_log = logging.getLogger("pythia_fast")

AT_ONCE = 16
"""Calls of a worker that may wait side by side: its orders, a poll, and what interrupts them."""
FIRST_TRIES = 3
"""So many workers that die before a single one could say hello end the sweep."""
PATIENCE_S = 30.0
"""How often it is said that no worker is there yet."""
STOP_S = 10.0
"""How long a worker may take to write what it has in hand."""


class Cluster:
    """The workers of one sweep. Entering it connects; leaving it ends them, and what it started.

    ArgumentError if Ray is not installed, or if this machine alone is the cluster and has no room
    for all of them; WorkerError if no cluster answers where there should be one.
    """

    def __init__(self, workers: Workers, device: str | None) -> None:
        self._ray = require("ray")
        self._workers, self._device = workers, device
        self._connected_here = self._alone = False
        self._name = f"pythia_fast {uuid.uuid4().hex[:8]}"
        self._numbers = itertools.count(1)
        self._actors: dict[str, Any] = {}
        self._waiting: dict[Any, tuple[str, tuple[str, int, int]]] = {}
        self._ready: set[str] = set()
        self._early: list[Event] = []
        self._lost_early = 0
        self._asked: tuple[str, tuple[Architecture, ...]] = ("auto", ())
        self.placing = Placing(1, 1, 0)

    def __enter__(self) -> "Cluster":
        if not self._ray.is_initialized():
            self._connect()
        try:
            nodes = [
                Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
                for node in self._ray.nodes()
                if node["Alive"]
            ]
            self.placing = placing(self._workers, nodes, self._device)
            if self._alone:
                _check_room(self.placing, nodes)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stop()
        finally:
            self._leave()

    def begin(self, dtype: str, architectures: Sequence[Architecture]) -> None:
        """Ask for all workers; those of them that can be placed come by and by."""
        self._asked = (dtype, tuple(architectures))
        for _ in range(self.placing.count):
            self.add()

    def add(self) -> str:
        """Ask for one worker more, in the place of one that is lost; its name."""
        number = next(self._numbers)
        name = f"worker {number}"
        placed, wanted = self.placing, self._workers
        actor = (
            self._ray.remote(Worker)
            .options(
                name=f"{self._name} {name}",
                num_cpus=placed.cpus,
                num_gpus=placed.gpus,
                memory=wanted.memory,
                resources=dict(wanted.resources) or None,
                runtime_env=None if wanted.runtime_env is None else dict(wanted.runtime_env),
                scheduling_strategy=wanted.placement,
                max_concurrency=AT_ONCE,
                max_restarts=0,  # the driver asks for another one: it decides what is done again
                max_task_retries=0,
            )
            .remote(placed.threads, self._device, placed.gpus)
        )
        self._actors[name] = actor
        self._expect(name, actor.hello.options(name="hello").remote(*self._asked), ("hello", 0, 0))
        return name

    def first(self) -> Hello:
        """Who the first worker is that is ready. WorkerError if several die before that."""
        while True:
            events = self._now(PATIENCE_S)
            joined = [event for event in events if isinstance(event, Joined)]
            self._early += joined
            for _ in range(len(events) - len(joined)):  # each is of one that is lost
                self.add()
            if joined:
                return joined[0].hello
            if not events:
                _log.warning(
                    "no worker with %g CPUs and %g GPUs is ready yet: still waiting for Ray to "
                    "place one",
                    *(self.placing.cpus, self.placing.gpus),
                )

    def share(self, work: Work) -> Any:
        """Give all workers access to this; what `order` takes.

        Ray sees bytes only, so that what cannot be opened elsewhere is told by its own error.
        """
        return [self._ray.put(self._ray.cloudpickle.dumps(work))]

    def order(self, worker: str, order: Order, work: Any, name: str) -> None:
        """Have a worker compute a step, which Ray's dashboard shows under this name."""
        compute = self._actors[worker].compute.options(name=name)
        self._expect(worker, compute.remote(order, work), ("compute", order.model, order.step))

    def ask_back(self, worker: str, model: int, step: int) -> None:
        """Ask for a step that the worker may not have begun; `GaveBack` is the answer."""
        give_back = self._actors[worker].give_back.options(name="give back")
        self._expect(worker, give_back.remote(model, step), ("give back", model, step))

    def events(self, patience_s: float) -> list[Event]:
        """What has happened, at least one thing unless nothing does for so long."""
        if self._early:
            early, self._early = self._early, []
            return early
        return self._now(patience_s)

    @property
    def coming(self) -> bool:
        """Whether a worker was asked for that is not ready yet."""
        return not self._actors.keys() <= self._ready

    def dismiss(self, worker: str) -> None:
        """End a worker that is not to be used."""
        self._ray.kill(self._actors.pop(worker))
        self._forget(worker)

    def _now(self, patience_s: float) -> list[Event]:
        if not self._waiting:
            time.sleep(patience_s)
            return []
        ready, _ = self._ray.wait(
            list(self._waiting), num_returns=1, timeout=patience_s, fetch_local=False
        )
        more, _ = self._ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        events: list[Event] = []
        for reference in dict.fromkeys((*ready, *more)):
            expected = self._waiting.pop(reference, None)
            if expected is not None:
                events += self._event(reference, *expected)
        return events

    def _event(self, reference: Any, worker: str, what: tuple[str, int, int]) -> list[Event]:
        kind, model, step = what
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise _own(error, worker) from error
        except errors.RayError as error:  # it died, or its machine did, with what it had to tell
            return self._lose(worker, error, joined=kind != "hello")
        if kind == "give back":
            return [GaveBack(worker, model, step, bool(value))]
        if kind == "compute":
            return []
        self._poll(worker)
        if kind == "hello":
            self._ready.add(worker)
            self._lost_early = 0
            return [Joined(worker, value)]
        return [Told(worker, value)] if value else []

    def _poll(self, worker: str) -> None:
        poll = self._actors[worker].poll.options(name="poll")
        self._expect(worker, poll.remote(), ("poll", 0, 0))

    def _expect(self, worker: str, reference: Any, what: tuple[str, int, int]) -> None:
        self._waiting[reference] = (worker, what)

    def _lose(self, worker: str, error: Exception, *, joined: bool) -> list[Event]:
        actor = self._actors.pop(worker, None)
        if actor is None:
            return []  # told already: each of its calls says so
        self._ray.kill(actor)  # if only the way to it is lost, it must not go on
        self._forget(worker)
        if not joined:
            self._lost_early += 1
            if self._lost_early >= FIRST_TRIES:
                raise WorkerError(
                    f"{FIRST_TRIES} workers in a row have died before they could begin: "
                    f"{reason_of(error)}"
                ) from error
        return [Lost(worker, reason_of(error), joined)]

    def _forget(self, worker: str) -> None:
        self._waiting = {
            reference: expected
            for reference, expected in self._waiting.items()
            if expected[0] != worker
        }

    def _connect(self) -> None:
        self._alone = connect(self._ray, self._workers.address)
        self._connected_here = True

    def _stop(self) -> None:
        """Let the workers finish the write in hand, and end them."""
        if not self._ray.is_initialized():
            return
        stopping = [
            actor.stop.options(name="stop").remote()
            for worker, actor in self._actors.items()
            if worker in self._ready
        ]
        if stopping:
            self._ray.wait(stopping, num_returns=len(stopping), timeout=STOP_S)
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()

    def _leave(self) -> None:
        if self._connected_here:
            self._ray.shutdown()


def _check_room(placed: Placing, nodes: Sequence[Node]) -> None:
    """ArgumentError where no machine will ever join, and this one cannot take all workers."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if placed.count * placed.cpus > cpus or placed.count * placed.gpus > gpus:
        raise ArgumentError(
            f"{placed.count} workers with {placed.cpus:g} CPUs and {placed.gpus:g} GPUs each do "
            f"not fit on this machine, which has {cpus:g} and {gpus:g}; connect to a cluster "
            "(RAY_ADDRESS), or ask for fewer"
        )


def _own(error: Any, worker: str) -> PythiaFastError:
    """The error that a call of a worker has ended with, if it is ours, or one that tells of it."""
    cause = error.cause
    if isinstance(cause, PythiaFastError):
        cause.add_note(f"on {worker} of the cluster")
        return cause
    return WorkerError(f"{worker} cannot begin: {type(cause).__name__}: {cause}")
