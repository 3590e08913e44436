"""A Ray cluster, existing or started here, and the workers of one sweep in it."""

import itertools
import pickle
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from pythia_fast.errors import (
    ArgumentError,
    PythiaFastError,
    SweepInterruptedError,
    WorkerError,
)
from pythia_fast.extras import require
from pythia_fast.progress import warn
from pythia_fast.runs.cluster.actor import Worker
from pythia_fast.runs.cluster.calls import GIVE_UP_S, Call, Calls
from pythia_fast.runs.cluster.events import (
    Event,
    GaveBack,
    Joined,
    LeftOut,
    Lost,
    Silent,
    Told,
    own_error,
    reason_of,
)
from pythia_fast.runs.cluster.messages import Hello, Order, Work
from pythia_fast.runs.cluster.placing import (
    Node,
    Placing,
    check_places,
    holds,
    in_words,
    largest,
    placing,
)
from pythia_fast.runs.cluster.reaching import connected, grows
from pythia_fast.runs.cluster.replacing import FIRST_TRIES, Replacing
from pythia_fast.runs.folder.run_folder import versions
from pythia_fast.runs.workers import Workers
from pythia_fast.suite import Architecture

AT_ONCE = 16
"""Calls of a worker that may wait side by side: its orders, a poll, and what interrupts them."""
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
        self._alone = False
        self._connection = ExitStack()
        self._name = f"pythia_fast {uuid.uuid4().hex[:8]}"
        self._numbers = itertools.count(1)
        self._actors: dict[str, Any] = {}
        self._calls = Calls(self._ray)
        self._hosts: dict[str, str] = {}  # of those that were ready, also if they were lost later
        self._early: list[Event] = []
        self._replacing = Replacing()
        self._version, self._asked = versions()["pythia-fast"], b""
        self.placing = Placing(1, 1, 0)

    def __enter__(self) -> "Cluster":
        self._alone = self._connection.enter_context(connected(self._ray, self._workers.address))
        try:
            offered = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            nodes = [Node(each.get("CPU", 0), each.get("GPU", 0)) for each in offered]
            self.placing = placing(self._workers, nodes, self._device)
            if self._alone:
                check_places(self.placing, self._workers, offered)
        except BaseException:
            self._connection.close()
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
        except KeyboardInterrupt:
            if not isinstance(error, SweepInterruptedError):
                raise  # else it was pressed twice, and the first error says what is kept
        finally:
            self._connection.close()

    def begin(self, dtype: str, architectures: Sequence[Architecture], *, most: int) -> None:
        """Ask for all workers, `most` of them; those that can be placed come by and by."""
        self._asked = pickle.dumps((dtype, tuple(architectures)))
        for _ in range(min(self.placing.count, most)):
            self.add()

    def replace(self) -> None:
        """Ask for another worker where one was lost; later, if several in a row could not begin."""
        self._replacing.owe()
        self._ask_for_owed()

    def _ask_for_owed(self) -> None:
        for _ in range(self._replacing.due()):
            self.add()

    def add(self) -> str:
        """Ask for one worker more; its name.

        ArgumentError where Ray does not take what is asked for.
        """
        number = next(self._numbers)
        name = f"worker {number}"
        try:
            actor = self._actor(name)
        except (TypeError, ValueError) as error:
            words = "".join(map(str, error.args))
            raise ArgumentError(f"Ray takes no such workers: {words}") from error
        self._actors[name] = actor
        hello = actor.hello.options(name="hello").remote(self._version, self._asked)
        self._calls.expect(hello, Call(name, "hello"))
        return name

    def _actor(self, name: str) -> Any:
        placed, wanted = self.placing, self._workers
        return (
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
            .remote(placed.threads, placed.gpus)
        )

    def first(self) -> Hello:
        """Who the first worker is that is ready. WorkerError if several die before that."""
        while True:
            events = self._now(PATIENCE_S)
            joined = [event for event in events if isinstance(event, Joined)]
            self._early += joined
            for event in events:
                if isinstance(event, Lost):
                    self.replace()
            if joined:
                return joined[0].hello
            if not events:
                self.tell_waiting()

    def share(self, work: Work) -> Any:
        """Give all workers access to this; what `order` takes.

        Ray sees bytes only, so that what cannot be opened elsewhere is told by its own error.
        """
        return [self._ray.put(self._ray.cloudpickle.dumps(work))]

    def order(self, worker: str, order: Order, work: Any, name: str) -> None:
        """Have a worker compute a step, which Ray's dashboard shows under this name."""
        compute = self._actors[worker].compute.options(name=name)
        call = Call(worker, "compute", order.model, order.step)
        self._calls.expect(compute.remote(order, work), call)

    def ask_back(self, worker: str, model: int, step: int) -> None:
        """Ask for a step that the worker may not have begun; `GaveBack` is the answer."""
        give_back = self._actors[worker].give_back.options(name="give back")
        self._calls.expect(give_back.remote(model, step), Call(worker, "give back", model, step))

    def events(self, patience_s: float) -> list[Event]:
        """What has happened, at least one thing unless nothing does for so long."""
        if self._early:
            early, self._early = self._early, []
            return early
        self._ask_for_owed()
        return self._now(patience_s)

    def tell_waiting(self) -> None:
        """Warn that no worker is ready for what is left, and of what is waited for.

        ArgumentError where no machine of the cluster could hold one, and nobody starts others.
        """
        wanted = in_words(self.placing, self._workers)
        less = "ask for less (Workers, --worker-cpus, --worker-gpus)"
        if not self.nodes and not grows(self._ray):
            offered = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            raise ArgumentError(
                f"no machine of the cluster can hold a worker with {wanted}: the nearest has "
                f"{largest(offered, self.placing, self._workers)}; {less}"
            )
        warn(
            f"no worker is ready for what is left: waiting for Ray to place one with {wanted}. "
            f"Where nobody offers that, {less}"
        )

    @property
    def alive(self) -> bool:
        """Whether there is a worker, or one was asked for, or will be."""
        return bool(self._actors) or self._replacing.hopeful

    @property
    def coming(self) -> bool:
        """Whether a worker was asked for that is not ready yet, or will be."""
        return not self._actors.keys() <= self._hosts.keys() or self._replacing.hopeful

    @property
    def nodes(self) -> set[str]:
        """The machines of the cluster that could hold a worker, whoever is on them now."""
        return {
            str(node["NodeID"])
            for node in self._ray.nodes()
            if node["Alive"] and holds(node["Resources"], self.placing, self._workers)
        }

    def dismiss(self, worker: str) -> None:
        """End a worker that is not to be used."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor)
            self._calls.forget(worker)

    def _now(self, patience_s: float) -> list[Event]:
        events: list[Event] = []
        for reference, call in self._calls.answered(patience_s):
            events += self._event(reference, call)
        for worker, silent_s in self._calls.silent():
            if silent_s > GIVE_UP_S:
                error = WorkerError(f"it has not answered for {silent_s:.0f} s")
                events += self._lose(worker, error, joined=True)
            else:
                events.append(Silent(worker, silent_s))
        return events

    def _event(self, reference: Any, call: Call) -> list[Event]:
        worker, kind = call.worker, call.kind
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:
            own = own_error(error, f"{worker} of {self._hosts.get(worker, 'the cluster')}")
            if kind != "hello":
                raise own from error
            return self._lose(worker, own, joined=False)  # others may do what this one cannot
        except errors.RayError as error:  # it died, or its machine did, with what it had to tell
            return self._lose(worker, error, joined=kind != "hello")
        if kind == "give back":
            return [GaveBack(worker, call.model, call.step, bool(value))]
        if kind == "compute":
            return []
        if isinstance(value, str):
            return [self._leave_out(worker, value)]
        self._calls.hear(worker)
        self._poll(worker)
        if kind == "hello":
            self._hosts[worker] = value.host
            self._replacing.joined()
            return [Joined(worker, value)]
        return [Told(worker, value)] if value else []

    def _leave_out(self, worker: str, version: str) -> LeftOut:
        """End a worker of another version. WorkerError if no other is there or asked for."""
        words = f"has pythia-fast {version}, and here is {self._version}: install the same"
        self.dismiss(worker)
        if not self._actors:
            raise WorkerError(f"no worker is left: {worker}, the last one, {words} everywhere")
        warn(f"{worker} is left out: it {words} everywhere")
        return LeftOut(worker)

    def _poll(self, worker: str) -> None:
        poll = self._actors[worker].poll.options(name="poll")
        self._calls.expect(poll.remote(), Call(worker, "poll"))

    def _lose(self, worker: str, error: Exception, *, joined: bool) -> list[Event]:
        actor = self._actors.pop(worker, None)
        if actor is None:
            return []  # told already: each of its calls says so
        self._ray.kill(actor)  # if only the way to it is lost, it must not go on
        self._calls.forget(worker)
        if not joined:
            self._lose_early(error)
        return [Lost(worker, reason_of(error), joined)]

    def _lose_early(self, error: Exception) -> None:
        """One more could not begin. Its error, where that is likely to be so with all."""
        self._replacing.dies_early()
        tries = self._replacing.died_early
        said = isinstance(error, PythiaFastError)  # by the worker itself
        words = f"{tries} workers in a row have died before they could begin"
        if self._hosts:
            if tries >= FIRST_TRIES:
                warn(
                    f"{words}: another is asked for in {self._replacing.pause_s:.0f} s, or once "
                    f"one that was is ready: {reason_of(error)}"
                )
        elif said and (tries >= FIRST_TRIES or not self._actors):
            raise error
        elif tries >= FIRST_TRIES:
            raise WorkerError(f"{words}: {reason_of(error)}") from error

    def _stop(self) -> None:
        """Let the workers finish the write in hand, and end them."""
        if not self._ray.is_initialized():
            return
        stopping = [
            actor.stop.options(name="stop").remote()
            for worker, actor in self._actors.items()
            if worker in self._hosts
        ]
        try:
            if stopping:
                self._ray.wait(stopping, num_returns=len(stopping), timeout=STOP_S)
        finally:  # also if Ctrl-C is pressed once more
            for actor in self._actors.values():
                self._ray.kill(actor)
            self._actors.clear()
