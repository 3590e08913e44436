"""What a sweep on a cluster would take, by how many workers there are."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pythia_fast.markup import html_facts, html_table
from pythia_fast.quantities import duration, sized
from pythia_fast.runs.simulation import Spent
from pythia_fast.runs.stages import Stage

GAIN = 0.1
"""Twice as many workers help no more where they gain less than this part of the time."""

Source = Literal["given", "measured here", "assumed"]

REASONS: Mapping[Spent, str] = {
    "compute": "all of them compute all the time",
    "download": "the network carries no more",
    "verify": "no more can be hashed",
    "read": "the disks give no more",
    "disk": "the disk budget has no room for more",
    "start": "what each worker, model and step needs before it computes takes longest",
    "idle": "there are too few steps for so many",
}


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model of a sweep to come.

    `steps` are those asked for; of them `loads` are loaded, `missing` cannot be had, and the rest
    has the weights of another. `flops` and `download_bytes` are of all that are loaded,
    `compute_flop_per_s` is one worker's rate.
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


@dataclass(frozen=True, slots=True)
class PlannedRate:
    """A rate in bytes a second of what `of` says ("all", "a node", "a worker"); None: no limit."""

    of: str
    value: float | None
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
        bottleneck: the busiest stage; where none is even half busy, what most time is spent on.
        busy: of each stage the part of what can be done in that time that is.
        spent: on what the workers' time goes; the parts sum to 1.
        download_bytes: all that comes over the network.
        disk_bytes: the most that checkpoints in use take on one node at a time.
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


@dataclass(frozen=True)
class ClusterForecast:
    """What a sweep would take on a cluster, found on paper and in simulated time.

    Attributes:
        models: what of.
        workers_per_node, device, dtype: as asked for, or by default.
        compute_source: where the models' `compute_flop_per_s` are from.
        rates: by name, each with where it is from.
        overheads_s: what everything takes beside the work, in seconds.
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
    overheads_s: Mapping[str, float]
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

        None if even the last doubling gains more.
        """
        found = None
        for fewer, more in zip(self.curve[-2::-1], self.curve[:0:-1], strict=True):
            if more.total_s <= (1 - GAIN) * fewer.total_s:
                break
            found = fewer
        return found

    @property
    def why(self) -> str:
        """Where adding workers stops helping, and why, in a sentence."""
        row = self.stops_helping
        if row is None:
            return f"Up to {self.curve[-1].workers} workers, twice as many gain 10% or more."
        following = self.curve[self.curve.index(row) + 1]
        return (
            f"More than {row.workers} worker{'s' * (row.workers > 1)} help little: twice as many "
            f"gain less than 10%, because {REASONS[following.bottleneck]}."
        )

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
            ("disk in use", f"{sized(row.disk_bytes)} a node"),
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
