"""What a sweep would take on a cluster, before there is one: time, bytes, disk, the bottleneck."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import Metric, resolve
from pythia_fast.model import resolve_precision
from pythia_fast.quantities import parse_bytes, parse_bytes_per_s, parse_flop_per_s
from pythia_fast.runs.dispatching.dispatch import Task
from pythia_fast.runs.forecast.cluster.planned import (
    ClusterForecast,
    ClusterRow,
    PlannedModel,
    PlannedRate,
    PlannedTime,
)
from pythia_fast.runs.forecast.cluster.rates import compute_of, rates_of, target_of
from pythia_fast.runs.forecast.cluster.work import ClusterWork, cluster_work
from pythia_fast.runs.forecast.simulation import Cluster, SimulatedStep, simulate
from pythia_fast.runs.plan import sequences_argument
from pythia_fast.series import names_of
from pythia_fast.suite import Steps
from pythia_fast.tokens import TokenDataset, TokenSource

CURVE = tuple(2**power for power in range(11))
"""The numbers of workers that are simulated: 1 to 1024."""

MOST_WORKERS = 10_000
"""More than there are steps: they would only make the simulation slow."""

GPUS_PER_NODE = 8

# What everything takes beside the work. Only STEP_S is from a measurement of the whole.

SURVEY_STEP_S = 0.025
"""The Hub is asked once for each step, which takes about 0.2 s, eight at a time."""
START_S = 5.0
"""A worker's process: its imports take 3 s of a core, and a GPU's context comes on top."""
MODEL_S = 1.0
"""Arenas, and a model on them."""
ASK_S = 0.3
"""The Hub's redirect to a file, and the first byte of it from elsewhere."""
STEP_S = 0.006
"""Planning, results and progress took 5.3 ms of each of 154 steps (docs/measured.md)."""
PUBLISH_S = 0.05
"""A step's results, flushed to a disk that other machines see too."""
MESSAGE_S = 0.01
"""From worker to driver and back."""


def plan_cluster(
    models: str | Path | Iterable[str | Path],
    steps: Steps = "all",
    *,
    tokens: TokenDataset | TokenSource | None = None,
    sequences: int | slice | Literal["seen", "unseen"] = 512,
    metrics: str | Metric | Sequence[str | Metric] = ("perplexity",),
    workers: int = 1,
    workers_per_node: int | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    network: float | str | None = None,
    node_network: float | str | None = None,
    compute: float | str | None = None,
    read: float | str | None = None,
    verify: float | str | None = None,
    disk_budget: int | str | None = None,
    cache_dir: str | Path | None = None,
) -> ClusterForecast:
    """What the sweep with these arguments would take on a cluster, for 1 to 1024 workers.

        forecast = pythia_fast.plan_cluster("all", workers=8, device="cuda", network="1GB/s")
        forecast.asked.total_s, forecast.asked.bottleneck, forecast.stops_helping

    The models of the suite are planned on paper: the Hub is not asked. Two bytes a parameter are
    downloaded, and masks are made beside these. What is known of steps with the same weights, and
    of missing ones, is considered; what is on this machine already is not. Folders are looked into.
    Then the sweep is simulated, with the dispatcher that hands out the steps of a real one.

    What it leaves out: two checkpoints are taken to fit into a worker's memory. What has just been
    downloaded is read from memory, and that it is written to the disk is not simulated. Of the
    training data on the Hub each node fetches the rows that are looked at, once for each data set:
    with "seen" that is up to 600 GB, `data_bytes`, and in no time or rate here. The times for
    starting a worker, asking the Hub, publishing and messages are assumed; `overheads` says so.

    Args:
        models: a name of the suite, a folder, several of them, or "all", the suite's sixteen.
        steps: as for `sweep`.
        tokens: as for `plan`.
        sequences: as for `plan`.
        metrics: as for `plan`.
        workers: how many are asked for, at most 10,000.
        workers_per_node: how many share a node's network and disk; 8 with GPUs, 1 without.
        dtype: as for `sweep`.
        device: what the workers compute on; by default as here. Of a GPU that is not here the rate
            is assumed, unless `compute` gives it.
        network: bytes a second that all workers can download together, such as "1GB/s".
        node_network: bytes a second that those of one node can.
        compute: operations a second of one worker, such as "400TFLOP/s". By default measured here,
            on CPUs with a worker's part of the threads of a node like this one.
        read: bytes a second from a node's disk; by default measured here. Where `device` is not
            here, neither are the disks, and they have no limit.
        verify: bytes a second of sha256 on one core, of which each file of a download has its own;
            by default measured here, and assumed of cores elsewhere.
        disk_budget: the most that downloads may take on each node. Without it used ones are kept
            while the disk has room.
        cache_dir: where downloads would go; the disk there is measured.

    Raises:
        UnknownModelError, UnknownStepError, ArgumentError: as `sweep` does; also where something
            is to be downloaded and no `network` is given.
    """
    _check_count("workers", workers)
    target, here = target_of(device)
    if workers_per_node is None:
        workers_per_node = GPUS_PER_NODE if target.type == "cuda" else 1
    _check_count("workers_per_node", workers_per_node)
    flop_per_s = None if compute is None else parse_flop_per_s(compute)
    budget_bytes = None if disk_budget is None else parse_bytes(disk_budget)
    network, node_network, read, verify = (
        None if value is None else parse_bytes_per_s(value)
        for value in (network, node_network, read, verify)
    )
    work = cluster_work(
        *(names_of(models)[0], steps),
        tokens=tokens,
        sequences=sequences_argument(sequences),
        metrics=resolve(metrics),
        cache_dir=cache_dir,
    )
    if network is None and any(each.download_bytes for each in work):
        raise ArgumentError(
            "checkpoints are to be downloaded, and nobody knows how fast the cluster's network is: "
            "give `network` (--network), such as '1GB/s'"
        )
    _check_budget(work, budget_bytes)
    cluster_rates = rates_of(work, network, node_network, read, verify, here=here)
    computed, source = compute_of(work, target, dtype, flop_per_s, workers_per_node, here=here)
    cluster = _cluster(work, cluster_rates, workers_per_node, budget_bytes)
    simulated = [
        SimulatedStep(
            Task(place, step.step, float(step.flops)),
            *(step.download_bytes, step.load_bytes, step.flops / flop_per_s),
            *(step.file_bytes, step.files),
        )
        for place, (each, flop_per_s) in enumerate(zip(work, computed, strict=True))
        for step in each.steps
    ]
    rows = _rows(simulated, cluster, {*CURVE, workers})
    return ClusterForecast(
        models=tuple(map(_planned, work, computed)),
        workers_per_node=workers_per_node,
        device=str(target),
        dtype=resolve_precision(dtype, target).name,
        compute_source=source,
        rates=cluster_rates,
        overheads={
            each.name: PlannedTime(
                getattr(cluster, each.name),
                "measured before" if each.name == "step_s" else "assumed",
            )
            for each in fields(cluster)
            if each.name.endswith("_s")
        },
        data_bytes=max((each.data_bytes for each in work), default=0),
        disk_budget_bytes=cluster.disk_budget_bytes,
        asked=rows[workers],
        curve=tuple(rows[count] for count in CURVE),
    )


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} is a positive number, not {value!r}")
    if value > MOST_WORKERS:
        raise ArgumentError(f"{name} is {MOST_WORKERS:,} or less, not {value:,}")


def _check_budget(work: Sequence[ClusterWork], budget_bytes: int | None) -> None:
    """ArgumentError if not even one checkpoint fits: the sweep could not begin."""
    for each in work:
        needed = max((step.file_bytes for step in each.steps if step.download_bytes), default=0)
        if budget_bytes is not None and needed > budget_bytes:
            raise ArgumentError(
                f"a disk budget of {budget_bytes:,} bytes is too small: each checkpoint of "
                f"{each.spec.name} takes {needed:,}"
            )


def _cluster(
    work: Sequence[ClusterWork],
    known: Mapping[str, PlannedRate],
    workers_per_node: int,
    budget_bytes: int | None,
) -> Cluster:
    listed = sum(each.asked for each in work if each.spec.repo is not None)
    return Cluster(
        workers_per_node=workers_per_node,
        network=known["network"].value,
        node_network=known["node_network"].value,
        verify=known["verify"].value,
        node_verify=known["node_verify"].value,
        read=known["read"].value,
        disk_budget_bytes=budget_bytes,
        begin_s=SURVEY_STEP_S * listed,
        start_s=START_S,
        model_s=MODEL_S,
        ask_s=ASK_S,
        step_s=STEP_S,
        publish_s=PUBLISH_S,
        message_s=MESSAGE_S,
    )


def _rows(
    steps: Sequence[SimulatedStep], cluster: Cluster, counts: Iterable[int]
) -> dict[int, ClusterRow]:
    """The sweep on so many workers each."""
    found = {count: simulate(steps, replace(cluster, workers=count)) for count in {1, *counts}}
    alone_s, budget = found[1].total_s, cluster.disk_budget_bytes
    rows = {}
    for count, played in found.items():
        speedup = alone_s / played.total_s if played.total_s else 1.0
        rows[count] = ClusterRow(
            workers=count,
            nodes=-(-count // cluster.workers_per_node),
            total_s=played.total_s,
            speedup=speedup,
            efficiency=speedup / count,
            worker_hours=played.total_s * count / 3600,
            bottleneck=played.bottleneck,
            busy=played.busy,
            spent=played.spent,
            download_bytes=played.download_bytes,
            disk_bytes=played.disk_bytes,
            kept_bytes=played.kept_bytes if budget is None else min(played.kept_bytes, budget),
        )
    return rows


def _planned(work: ClusterWork, compute_flop_per_s: float) -> PlannedModel:
    return PlannedModel(
        name=work.spec.name,
        source=work.source,
        steps=work.asked,
        loads=len(work.steps),
        missing=tuple(work.missing),
        download_bytes=work.download_bytes,
        load_bytes=sum(step.load_bytes for step in work.steps),
        flops=sum(step.flops for step in work.steps),
        compute_flop_per_s=compute_flop_per_s,
        reasons=work.missing,
    )
