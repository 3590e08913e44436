"""The argument `workers` of a sweep on a cluster: how many, and what each of them is given."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pythia_fast.errors import ArgumentError

PLACEMENTS = ("SPREAD", "DEFAULT")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The workers of a sweep with `engine="ray"`, each an actor with a resident model of its own.

        pythia_fast.sweep("12b", engine="ray", workers=8)
        pythia_fast.sweep("70m", engine="ray", workers=Workers(count=4, num_gpus=0.5))

    Attributes:
        count: how many, or "auto": one for each GPU of the cluster (1 / `num_gpus` of them), or,
            where it has none, one for each node, or for each `num_cpus` of its CPUs.
        num_cpus: CPUs of each, which is also how many threads it computes with. None: of a node's
            CPUs an equal part for each of its workers.
        num_gpus: GPUs of each, also a part of one. None: 1 where the cluster has GPUs and `device`
            is not "cpu", else 0.
        memory: bytes of memory that each is to find free, None for no such condition.
        resources: of your own, such as {"fast_disk": 1}.
        placement: "SPREAD" over the nodes, "DEFAULT" (Ray's: fill a node first), or any scheduling
            strategy of `ray.util.scheduling_strategies`.
        runtime_env: what Ray prepares for each worker, such as {"env_vars": {"HF_TOKEN": …}}.
        address: of the cluster. None: the one this process is connected to, that of RAY_ADDRESS,
            one that was started on this machine, or a new local one, in this order; "local": a new
            one in any case.

    Raises ArgumentError for what makes no sense.
    """

    count: int | Literal["auto"] = "auto"
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    placement: Any = "SPREAD"
    runtime_env: Mapping[str, Any] | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.count != "auto" and (
            not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1
        ):
            raise ArgumentError(f"workers are 'auto' or a positive number, not {self.count!r}")
        for name, value, least in (
            ("num_cpus", self.num_cpus, 0.0),
            ("num_gpus", self.num_gpus, 0.0),
            ("memory", self.memory, 1),
        ):
            given: object = value
            if given is not None and not _is_number(given, least):
                raise ArgumentError(f"{name} of a worker is a number from {least:g} on or None")
        if not isinstance(self.resources, Mapping) or not all(
            isinstance(name, str) and _is_number(each, 0) for name, each in self.resources.items()
        ):
            raise ArgumentError(
                f"resources of a worker are numbers by name, such as {{'fast_disk': 1}}, not "
                f"{self.resources!r}"
            )
        if self.runtime_env is not None and not isinstance(self.runtime_env, Mapping):
            raise ArgumentError(f"runtime_env is a mapping or None, not {self.runtime_env!r}")
        if self.address is not None and not isinstance(self.address, str):
            raise ArgumentError(f"address is a text such as '10.0.0.1:6379', not {self.address!r}")
        if self.memory is not None and not isinstance(self.memory, int):
            raise ArgumentError(f"memory of a worker is a whole number of bytes, not {self.memory}")
        if isinstance(self.placement, str) and self.placement not in PLACEMENTS:
            raise ArgumentError(
                f"placement is {' or '.join(map(repr, PLACEMENTS))}, or a scheduling strategy of "
                f"Ray, not {self.placement!r}"
            )


def _is_number(value: object, least: float) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf
    )


def resolve_workers(workers: object) -> Workers:
    """The argument `workers`: None, "auto", a number or `Workers`. ArgumentError for others."""
    if isinstance(workers, Workers):
        return workers
    if workers is None or workers == "auto":
        return Workers()
    if isinstance(workers, int) and not isinstance(workers, bool):
        return Workers(count=workers)
    raise ArgumentError(f"workers is 'auto', a number or Workers(…), not {workers!r}")
