"""How many workers a cluster is asked for, and which part of a node each gets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.workers import Workers


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster, by what it offers."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Placing:
    """So many workers, with so many CPUs and GPUs each; they compute with `threads` threads."""

    count: int
    cpus: float
    gpus: float

    @property
    def threads(self) -> int:
        """A whole number of CPUs, at least one."""
        return max(1, int(self.cpus))


def placing(workers: Workers, nodes: Sequence[Node], device: str | None) -> Placing:
    """What `Workers` leaves open, for these nodes. See there for the rules.

    ArgumentError where a GPU is asked for by its number, which Ray gives out, or is asked for and
    denied at a time.
    """
    check_device(device)
    gpus = workers.num_gpus
    if gpus is None:
        gpus = 0 if device == "cpu" or not any(node.gpus for node in nodes) else 1
    if device == "cuda" and not gpus:
        raise ArgumentError("device 'cuda' was asked for, but the workers have no GPU (num_gpus)")
    return _on_gpus(workers, nodes, gpus) if gpus else _on_cpus(workers, nodes)


def _on_gpus(workers: Workers, nodes: Sequence[Node], gpus: float) -> Placing:
    of_node = [(int(node.gpus / gpus + 1e-9), node.cpus) for node in nodes]
    places = [(count, cpus) for count, cpus in of_node if count]
    count = sum(count for count, _ in places) if workers.count == "auto" else workers.count
    cpus = workers.num_cpus
    if cpus is None:
        cpus = max(1, min((int(cpus / count) for count, cpus in places), default=1))
    return Placing(max(1, count), cpus, gpus)


def _on_cpus(workers: Workers, nodes: Sequence[Node]) -> Placing:
    offered = [int(node.cpus) for node in nodes if node.cpus >= 1] or [1]
    cpus = workers.num_cpus
    if workers.count == "auto":
        cpus = min(offered) if cpus is None else cpus
        return Placing(max(1, _places(offered, cpus)), cpus, 0)
    if cpus is None:
        cpus = next(
            (
                each
                for each in range(max(offered), 1, -1)
                if _places(offered, each) >= workers.count
            ),
            1,
        )
    return Placing(workers.count, cpus, 0)


def _places(offered: Sequence[int], cpus: float) -> int:
    """How many workers with so many CPUs find a place; of none at all each node takes one."""
    return sum(math.floor(each / cpus + 1e-9) if cpus else 1 for each in offered)


def check_places(placed: Placing, workers: Workers, offered: Sequence[Mapping[str, float]]) -> None:
    """ArgumentError where no machine will ever join, and those that are there cannot take all."""
    for name, each in _wanted(placed, workers).items():
        there = sum(node.get(name, 0) for node in offered)
        if placed.count * each > there:
            raise ArgumentError(
                f"{placed.count} x {each:g} {name} for the workers are more than the {there:g} of "
                "this machine; connect to a cluster (RAY_ADDRESS), or ask for less"
            )


def holds(offered: Mapping[str, float], placed: Placing, workers: Workers) -> bool:
    """Whether a machine that offers this could hold one worker, if nobody else were on it."""
    return all(
        offered.get(name, 0) >= each - 1e-9 for name, each in _wanted(placed, workers).items()
    )


def largest(offered: Sequence[Mapping[str, float]], placed: Placing, workers: Workers) -> str:
    """What the machine has that comes nearest to holding a worker, in words."""
    wanted = {name: each for name, each in _wanted(placed, workers).items() if each}
    nearest = max(
        offered,
        key=lambda node: sum(min(1.0, node.get(name, 0) / each) for name, each in wanted.items()),
        default={},
    )
    return _words({name: nearest.get(name, 0) for name in wanted})


def _wanted(placed: Placing, workers: Workers) -> dict[str, float]:
    """What each worker is to have, by Ray's names."""
    wanted = {"CPU": placed.cpus, "GPU": placed.gpus, "memory": workers.memory or 0}
    return wanted | dict(workers.resources)


def in_words(placed: Placing, workers: Workers) -> str:
    """What each worker is to have."""
    return _words({name: each for name, each in _wanted(placed, workers).items() if each})


def _words(resources: Mapping[str, float]) -> str:
    units = {"CPU": "CPUs", "GPU": "GPUs", "memory": "bytes of memory"}
    return ", ".join(f"{each:g} {units.get(name, name)}" for name, each in resources.items())


def check_device(device: str | None) -> None:
    """ArgumentError for a GPU by its number, and for what is no device."""
    if device not in (None, "cpu", "cuda"):
        raise ArgumentError(
            f"device is None, 'cpu' or 'cuda' with engine='ray', which gives out the GPUs, not "
            f"{device!r}"
        )
