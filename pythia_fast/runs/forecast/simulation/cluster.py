"""What is simulated, and what comes of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.dispatching.dispatch import LOOK_AHEAD, Task
from pythia_fast.runs.forecast.stages import Stage

Spent = Literal["compute", "download", "verify", "read", "disk", "start", "idle"]
"""On what a worker's time goes: it computes, it waits for one of these, or has nothing to do.

"start" is all that is needed once a worker, once a model or once a step; "disk" is room on it.
"""

BUSY = 0.9
"""A stage that is busy for less of the time than this is not the reason for it."""

SPENT: tuple[Spent, ...] = ("compute", "download", "verify", "read", "disk", "start", "idle")


RATES = ("network", "node_network", "step_network", "verify", "node_verify", "read")
"""Those of a `Cluster`."""


@dataclass(frozen=True, slots=True)
class SimulatedStep:
    """One step: what of it comes over the network, what of it is read, how long it is computed.

    `compute_s` is that of one worker, by itself. What is not downloaded lies on the node's disk and
    is hashed after it was read, one file after the other. What is downloaded is hashed as it comes,
    its `files` side by side, and takes `file_bytes` on the disk: more than came where masks are
    made. None: as much as is read.
    """

    task: Task
    download_bytes: float
    load_bytes: float
    compute_s: float
    file_bytes: float | None = None
    files: int = 1

    @property
    def disk_bytes(self) -> float:
        """What its files take on the disk, all of which is hashed."""
        return self.load_bytes if self.file_bytes is None else self.file_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The machines, and what everything takes on them; rates in bytes a second, None: no limit.

    Attributes:
        workers, workers_per_node: how many, and how many of them share a node.
        network: what all of them can download together.
        node_network: what those of one node can.
        step_network: what one step's download can, where each connection has a limit of its own.
        at_once: a worker's downloads that come side by side: one after the other where the network
            is the limit, and more where each of them is slow for itself.
        verify, node_verify: sha256 of one file's bytes, on one core, and of all those of a node.
        read: from a node's disk, or its page cache, into the arenas of its workers. That what comes
            is written to the disk is not simulated.
        disk_budget_bytes: room for downloads on each node.
        begin_s: until the driver knows what there is to do.
        start_s: from then until a worker is ready.
        model_s: to make a model's arenas, for the first and for each other one.
        ask_s: from when a step's download is asked for until its bytes come; those of the step
            before may come meanwhile.
        step_s: what each step needs beside its arithmetic, while nothing is computed.
        publish_s: to write a step's results, while the next one is computed.
        message_s: from the end of a step until another one has been handed out in its place.
        batches: of a step. Its end is told to the driver with the first batch of the next one, or
            when there is no next one. None: it is told at once.
        arenas: steps that a worker has in memory, 1 or 2.
        look_ahead: steps that a worker holds beside the one that it computes.
    """

    workers: int = 1
    workers_per_node: int = 1
    network: float | None = None
    node_network: float | None = None
    step_network: float | None = None
    at_once: int = 1
    verify: float | None = None
    node_verify: float | None = None
    read: float | None = None
    disk_budget_bytes: int | None = None
    begin_s: float = 0.0
    start_s: float = 0.0
    model_s: float = 0.0
    ask_s: float = 0.0
    step_s: float = 0.0
    publish_s: float = 0.0
    message_s: float = 0.0
    batches: int | None = None
    arenas: int = 2
    look_ahead: int = LOOK_AHEAD

    def __post_init__(self) -> None:
        for name in ("workers", "workers_per_node", "at_once", "arenas"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} is 1 or more, not {getattr(self, name)}")
        if self.batches is not None and self.batches < 1:
            raise ArgumentError(f"batches are 1 or more, or None, not {self.batches}")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_s") and not 0 <= value < math.inf:
                raise ArgumentError(f"{each.name} is a time from 0 s up, not {value}")
            if each.name in RATES and value is not None and not value > 0:
                raise ArgumentError(f"{each.name} is a rate above 0, or None, not {value}")


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of it.

    Attributes:
        total_s: until the last result is written.
        spent: on what the workers' time went, as parts of it all: they sum to 1.
        busy: of each stage ("download", "verify", "read", "compute") the part of what could be done
            in that time that was; 0 where nothing limits it.
        bottleneck: the busiest stage, if it is so for `BUSY` of the time; else what most of the
            time went on in which workers did not compute.
        idle: of each worker, the part of its time in which it had nothing to do.
        download_bytes, load_bytes: what came and what was read, as far as it came whole: also what
            was given back after that, and not what was given back while it came.
        disk_bytes: the most that downloads in use took on one node at a time.
        kept_bytes: what all that came to one node takes, if nothing of it is removed.
        switches: how often a worker went from one model to another.
    """

    total_s: float
    spent: Mapping[Spent, float]
    busy: Mapping[Stage, float]
    bottleneck: Spent
    idle: tuple[float, ...]
    download_bytes: float
    load_bytes: float
    disk_bytes: float
    kept_bytes: float
    switches: int
