"""What a sweep on a cluster would take, by how many workers there are."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pythia_fast.markup import html_facts, html_table
from pythia_fast.quantities import counted, duration, sized
from pythia_fast.runs.forecast.simulation import BUSY, Spent
from pythia_fast.runs.forecast.stages import Stage

GAIN = 0.1
"""Twice as many workers help no more where they gain less than this part of the time."""

LOSS = 0.05
"""More workers are said to take longer where they do by more than this part of the time."""

Source = Literal["given", "measured here", "measured before", "assumed"]

FULL: Mapping[Spent, str] = {
    "compute": "all of them compute all the time",
    "download": "the network carries no more",
    "verify": "no more can be hashed",
    "read": "the disks give no more",
}
"""Why more workers do not help, where a stage is busy all the time."""

WAITS: Mapping[Spent, str] = {
    "download": "they wait for downloads, though the network is not full all the time",
    "verify": "they wait for files to be hashed",
    "read": "they wait for files to be read, though the disks are not busy all the time",
    "disk": "the disk budget has no room for more",
    "start": "what each worker, model and step needs before it computes takes longest",
    "idle": "there are too few steps for so many, or one of them takes too long",
}
"""The same where none is: what most time goes on beside computing."""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model of a sweep to come.

    `steps` are those asked for; of them `loads` are loaded, `missing` cannot be had, and the rest
    has the weights of another. `flops` and `download_bytes` are of all that are loaded,
    `compute_flop_per_s` is one worker's rate. `reasons` say why the missing ones cannot be had.
    """

    name: str
    source: str
    steps: int
    loads: int
    missing: tuple[int, ...]
    download_bytes: float
    load_bytes: float
    flops: int
    compute_flop_per_s: float
    reasons: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class PlannedRate:
    """A rate in bytes a second of what `of` says ("all", "a node", "a file"); None: no limit."""

    of: str
    value: float | None
    source: Source


@dataclass(frozen=True, slots=True)
class PlannedTime:
    """What something takes beside the work, in seconds, and where that is from."""

    value_s: float
    source: Source


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """The sweep on so many workers.

    Attributes:
        workers, nodes: how many.
        total_s: from the start to the last result.
        speedup: how many times faster than one worker.
        efficiency: that, over the number of workers.
        worker_hours: all workers' time, also in which they wait.
        bottleneck: the busiest stage, if it is busy for 0.9 of the time; else what most of the time
            goes on in which workers do not compute.
        busy: of each stage the part of what can be done in that time that is.
        spent: on what the workers' time goes; the parts sum to 1.
        download_bytes: what comes over the network, of all that is finished.
        disk_bytes: the most that checkpoints in use take on one node at a time.
        kept_bytes: what all that came to one node takes. Without a disk budget used downloads are
            kept as long as the disk has room; a budget is the most of it.
    """

    workers: int
    nodes: int
    total_s: float
    speedup: float
    efficiency: float
    worker_hours: float
    bottleneck: Spent
    busy: Mapping[Stage, float]
    spent: Mapping[Spent, float]
    download_bytes: float
    disk_bytes: float
    kept_bytes: float

    @property
    def why(self) -> str:
        """Why twice as many workers do not take half the time, in words."""
        full = any(stage == self.bottleneck and part >= BUSY for stage, part in self.busy.items())
        return FULL[self.bottleneck] if full else WAITS[self.bottleneck]


@dataclass(frozen=True)
class ClusterForecast:
    """What a sweep would take on a cluster, found on paper and in simulated time.

    Attributes:
        models: what of.
        workers_per_node, device, dtype: as asked for, or by default.
        compute_source: where the models' `compute_flop_per_s` are from.
        rates: by name, each with where it is from.
        overheads: by name, what everything takes beside the work. Most of it is assumed.
        data_bytes: of the training data on the Hub, what the steps of one model look at. Each node
            fetches so much of each data set, which is in none of the times.
        disk_budget_bytes: room for downloads on each node, None for as much as they need.
        asked: the sweep on as many workers as were asked for.
        curve: the sweep on 1, 2, 4 … 1024 workers.
    """

    models: tuple[PlannedModel, ...]
    workers_per_node: int
    device: str
    dtype: str
    compute_source: Source
    rates: Mapping[str, PlannedRate]
    overheads: Mapping[str, PlannedTime]
    data_bytes: int
    disk_budget_bytes: int | None
    asked: ClusterRow
    curve: tuple[ClusterRow, ...]

    @property
    def best(self) -> ClusterRow:
        """The shortest of the curve, on as few workers as need be."""
        return min(self.curve, key=lambda row: (row.total_s, row.workers))

    @property
    def stops_helping(self) -> ClusterRow | None:
        """The first of the curve from which on twice as many gain less than 10%, each time.

        None if even the last doubling gains more, or if there is nothing to load.
        """
        if not any(model.loads for model in self.models):
            return None
        found = None
        for fewer, more in zip(self.curve[-2::-1], self.curve[:0:-1], strict=True):
            if more.total_s <= (1 - GAIN) * fewer.total_s:
                break
            found = fewer
        return found

    @property
    def why(self) -> str:
        """Where adding workers stops helping, and why, in a sentence."""
        if not any(model.loads for model in self.models):
            return "Nothing is to be loaded."
        row = self.stops_helping
        if row is None:
            found = f"Up to {self.curve[-1].workers} workers, twice as many gain 10% or more."
        else:
            following = self.curve[self.curve.index(row) + 1]
            more = f"{row.workers} workers help" if row.workers > 1 else "one worker helps"
            found = (
                f"More than {more} little: twice as many gain less than 10%, because "
                f"{following.why}."
            )
        return found + self._slower()

    def _slower(self) -> str:
        """The case in which most time is lost by more workers, in words; "" if there is none."""
        rows = {row.workers: row for row in (*self.curve, self.asked)}
        fewer, found, most = rows[min(rows)], "", 1 + LOSS
        for _, row in sorted(rows.items()):
            if row.total_s > most * fewer.total_s:
                most = row.total_s / fewer.total_s
                found = (
                    f" {row.workers} workers take longer than {fewer.workers}: "
                    f"{duration(row.total_s)}, not {duration(fewer.total_s)}, because {row.why}."
                )
            fewer = min(fewer, row, key=lambda each: each.total_s)
        return found

    @property
    def download_bytes(self) -> float:
        """What is to be downloaded, each once."""
        return sum(model.download_bytes for model in self.models)

    @property
    def flops(self) -> int:
        """All operations."""
        return sum(model.flops for model in self.models)

    @property
    def missing(self) -> dict[str, tuple[int, ...]]:
        """The steps that cannot be had, by model."""
        return {model.name: model.missing for model in self.models if model.missing}

    def to_dict(self) -> dict[str, Any]:
        """All of it in what JSON knows."""
        stops = self.stops_helping
        return asdict(self) | {
            "download_bytes": self.download_bytes,
            "flops": self.flops,
            "best": self.best.workers,
            "stops_helping": None if stops is None else stops.workers,
            "why": self.why,
        }

    def __repr__(self) -> str:
        steps, row = sum(model.steps for model in self.models), self.asked
        names = ", ".join(model.name for model in self.models)
        return (
            f"<ClusterForecast {names} in {self.dtype} on {self.device}, simulated: "
            f"{counted(steps, 'step')}, {sized(self.download_bytes)} to download, "
            f"{duration(row.total_s)} on {counted(row.workers, 'worker')}; the bottleneck: "
            f"{row.bottleneck}>"
        )

    def _repr_html_(self) -> str:
        steps = sum(model.steps for model in self.models)
        row = self.asked
        facts = [
            ("steps", f"{steps}, of which {sum(model.loads for model in self.models)} are loaded"),
            ("missing", [f"{name} {step}" for name in self.missing for step in self.missing[name]]),
            ("to download", f"about {sized(self.download_bytes)}"),
            ("operations", f"{self.flops:.3g}"),
            ("workers", f"{row.workers}, {self.workers_per_node} a node"),
            ("in all", duration(row.total_s)),
            ("bottleneck", row.bottleneck),
            ("disk in use", f"{sized(row.disk_bytes)} a node at a time"),
            ("disk if all is kept", f"{sized(row.kept_bytes)} a node"),
            (
                "training data",
                f"{sized(self.data_bytes)} a node and data set, not in these times"
                if self.data_bytes
                else "",
            ),
            ("more workers", self.why),
        ]
        names = ", ".join(model.name for model in self.models)
        columns = (
            "workers",
            "nodes",
            "time",
            "speed-up",
            "efficiency",
            "worker-hours",
            "bottleneck",
        )
        table = html_table(
            columns,
            [
                (
                    *(each.workers, each.nodes, duration(each.total_s), each.speedup),
                    *(each.efficiency, each.worker_hours, each.bottleneck),
                )
                for each in self.curve
            ],
        )
        title = f"{names} in {self.dtype} on {self.device}, simulated"
        return html_facts([(n, v or None) for n, v in facts], title=title) + table
