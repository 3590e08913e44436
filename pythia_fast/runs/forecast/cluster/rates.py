"""How fast the machines of a cluster are taken to be: as given, as this one is, or as assumed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.model import resolve_precision
from pythia_fast.model.devices import resolve_device
from pythia_fast.runs.forecast import rates
from pythia_fast.runs.forecast.cluster.planned import PlannedRate, Source
from pythia_fast.runs.forecast.cluster.work import ClusterWork
from pythia_fast.suite import Architecture

GPU_FLOP_PER_S = 0.4 * 989e12
"""What is assumed of a GPU that is not here: 40% of the 989 TFLOP/s, dense and in 16 bits, of the
data sheets of NVIDIA's H100 and H200. Nothing of this package has been timed on one."""


def target_of(device: str | torch.device | None) -> tuple[torch.device, bool]:
    """What is computed on, and whether there is such a device here. ArgumentError."""
    try:
        return resolve_device(device), True
    except ArgumentError:
        if device is None or torch.cuda.is_available() or not _is_gpu(device):
            raise
        return torch.device("cuda"), False


def _is_gpu(device: str | torch.device) -> bool:
    try:
        return torch.device(device).type == "cuda"
    except RuntimeError:  # there is no such device anywhere
        return False


def rates_of(
    work: Sequence[ClusterWork],
    network: float | None,
    node_network: float | None,
    read: float | None,
    verify: float | None,
    *,
    here: bool,
) -> dict[str, PlannedRate]:
    """All rates in bytes a second by their names in `Cluster`.

    Those not given are measured. Of machines `here` is not like, the cores and the disks are not
    known: these have no limit then, and one core is assumed to be like one of this machine.
    """
    measured: Source = "measured here" if here else "assumed"
    of_core: Source = "given"
    node_verify = None
    if verify is None:
        verify, of_core = rates.sha256_bytes_per_s(), measured
        if here:
            node_verify = verify * (os.cpu_count() or 1)
    found = {
        "network": PlannedRate("all", network, "given"),
        "node_network": PlannedRate("a node", node_network, "given"),
        "verify": PlannedRate("a file", verify, of_core),
        "node_verify": PlannedRate("a node", node_verify, of_core),
    }
    if read is not None:
        return found | {"read": PlannedRate("a node", read, "given")}
    first = next((each for each in work if each.steps), None)
    if here and first is not None:
        read = rates.read_bytes_per_s(first.series, first.steps[0].step)
    return found | {"read": PlannedRate("a node", read, measured)}


def compute_of(
    work: Sequence[ClusterWork],
    device: torch.device,
    dtype: str | torch.dtype,
    given: float | None,
    workers_per_node: int,
    *,
    here: bool,
) -> tuple[list[float], Source]:
    """Operations a second of one worker, for each model. ArgumentError for no such dtype.

    Measured with a worker's part of the threads, where several compute on the cores of a node.
    """
    precisions = [resolve_precision(dtype, device, each.spec.architecture) for each in work]
    if given is not None:
        return [given] * len(work), "given"
    if not here:
        return [GPU_FLOP_PER_S] * len(work), "assumed"
    known: dict[tuple[Architecture, int], float] = {}
    with _part_of_threads(workers_per_node if device.type == "cpu" else 1):
        for each, precision in zip(work, precisions, strict=True):
            key = each.spec.architecture, each.positions
            if key not in known:
                known[key] = rates.compute_flop_per_s(key[0], precision, device, key[1])
    return [known[each.spec.architecture, each.positions] for each in work], "measured here"


@contextmanager
def _part_of_threads(parts: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // parts))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
