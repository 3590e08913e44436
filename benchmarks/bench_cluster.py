"""Ray's workers beside one process: what a second one brings, what the engine costs.

A cluster of this machine is started once, before anything is timed. Every sweep then connects to
it, as a user's would, starts its workers, and ends them. Everything has one thread for computing.

The metric is the package's perplexity, and writes down when each of its batches began and ended.
From that come the start (from the call to the first batch) and the steady part (from there to the
end of the last one), which is what an hour's sweep consists of. Where the machine's speed
drifts, the part of it that lies between the batches still says what the engine costs.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import stamped
import torch
from comparison import Comparison, Effort
from local_hub import speak_to
from random_series import RandomSeries
from ray.cluster_utils import Cluster

import pythia_fast
from pythia_fast.runs.forecast.cluster.planned import ClusterRow
from pythia_fast.suite import STEPS, spec
from pythia_fast.testing import HubServer, make_series

SIZE = "70m"
OTHER = "31m"
THREADS = 2
NETWORK_BYTES_PER_S = 30e6
TOKENS = 64
BATCH_TOKENS = 32 * TOKENS
"""What the cores' caches hold: of larger batches two workers at a time slow each other down."""
TARGET_SIMULATED_PERCENT = 20.0
TARGET_TWO, TARGET_ENGINE, TARGET_START_S = 1.8, 1 / 1.03, 5.0
FORMS = {"quick": (2, 4), "standard": (6, 32), "full": (24, 32)}
"""Checkpoints and sequences, by effort; of an odd number one worker of two has one more."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One sweep: until its first batch, from there to the end of its last, and the whole call.

    `between_percent` is the part of the steady time in which a worker computes no batch, its end
    included, in which it has nothing more to do.
    """

    start_s: float
    steady_s: float
    whole_s: float
    between_percent: float
    result: pythia_fast.SweepResult


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of this machine, with a CPU for each thread."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": THREADS})
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("heavier", [1, 4, 8])
def test_workers_beside_one_process(
    heavier: int,
    comparison: Comparison,
    effort: Effort,
    random_series: RandomSeries,
    address: str,
    tmp_path: Path,
) -> None:
    """In turn: this process, a worker, two workers, each with one thread.

    What is loaded and hashed takes a worker's time from the other core, which a single one has to
    itself: the second brings the less, the less there is to compute of each checkpoint. `heavier`
    sweeps have so many times the sequences, over as many times fewer checkpoints.
    """
    checkpoints, sequences = FORMS[effort.name]
    checkpoints, sequences = 2 * -(-checkpoints // (2 * heavier)), sequences * heavier
    series = random_series(SIZE, checkpoints)
    vocabulary = spec(SIZE).architecture.vocab_rows
    ids = np.random.default_rng(0).integers(0, vocabulary, (sequences, TOKENS), dtype=np.uint16)
    runs = count()

    def sweep(workers: pythia_fast.Workers | None) -> Timed:
        folder = tmp_path / f"run{next(runs)}"
        stamps = tmp_path / f"{folder.name}.stamps"
        began = time.time()
        result = pythia_fast.sweep(
            series,
            range(checkpoints),
            tokens=ids,
            batch_tokens=BATCH_TOKENS,
            metrics=[stamped.Stamped(str(stamps))],
            out=folder,
            engine="local" if workers is None else "ray",
            workers=workers,
            progress=False,
        )
        whole_s = time.time() - began
        times = np.loadtxt(stamps, ndmin=2)
        first, last = times[:, 0].min(), times[:, 1].max()
        available_s = (last - first) * (1 if workers is None else workers.count)
        between = 1 - (times[:, 1] - times[:, 0]).sum() / available_s
        return Timed(first - began, last - first, whole_s, 100 * between, result)

    def on(workers: int) -> Callable[[], Timed]:
        wanted = pythia_fast.Workers(count=workers, num_cpus=1, address=address)
        return lambda: sweep(wanted)

    ray.cloudpickle.register_pickle_by_value(stamped)  # workers have no such module
    ways = {
        "this process": lambda: sweep(None),
        "1 worker": on(1),
        "2 workers": on(2),
    }
    rounds = {"quick": 1, "standard": 3, "full": 2}[effort.name]
    torch.set_num_threads(1)
    seen: dict[str, list[Timed]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seen[name].append(way())
    losses = {name: timed[-1].result.sequences["nll"].to_pylist() for name, timed in seen.items()}
    expected = losses.pop("this process")
    assert all(found == expected for found in losses.values()), "the engines disagree"

    case = f"{checkpoints} checkpoints of {SIZE}'s shape, {sequences} x {TOKENS} tokens"
    for name, timed in seen.items():
        comparison.note(
            f"{case}: {name}",
            {
                "rounds": rounds,
                "whole_median_s": statistics.median(each.whole_s for each in timed),
                "start_median_s": statistics.median(each.start_s for each in timed),
                "start_target_s": TARGET_START_S,
                "steady_median_s": statistics.median(each.steady_s for each in timed),
                "steady_min_s": min(each.steady_s for each in timed),
                "steady_max_s": max(each.steady_s for each in timed),
                "between_median_percent": statistics.median(each.between_percent for each in timed),
            },
        )
    for what, one, other, target in (
        ("a second worker, steady", "1 worker", "2 workers", {"target_ratio": TARGET_TWO}),
        ("the engine, steady", "this process", "1 worker", {"target_ratio": TARGET_ENGINE}),
    ):
        ratios = [
            ones.steady_s / others.steady_s
            for ones, others in zip(seen[one], seen[other], strict=True)
        ]
        comparison.note(
            f"{case}: {what}: {one} / {other}",
            {
                "ratio_median": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                **target,
            },
        )
    torch.set_num_threads(THREADS)


def test_simulated_beside_real(
    comparison: Comparison,
    effort: Effort,
    random_series: RandomSeries,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `plan_cluster` says, with this machine's rates, and what the same sweeps then take.

    It is asked before and after each, since the machine's speed drifts, and the mean is compared.
    """
    checkpoints, sequences = FORMS[effort.name]
    series = random_series(SIZE, checkpoints)
    other = make_series(tmp_path / OTHER, spec(OTHER).architecture, range(checkpoints))
    steps = STEPS[-checkpoints:]  # of these no two are known to have the same weights
    branches = {f"step{step}": series / f"step{n}" for n, step in enumerate(steps)}
    ids = np.random.default_rng(0).integers(0, 50_000, (sequences, TOKENS), dtype=np.uint16)
    runs = count()
    torch.set_num_threads(1)

    def both(case: str, model: Any, steps: Any, workers: int, network: float | None) -> None:
        common = {"tokens": ids, "sequences": sequences}

        def simulated() -> ClusterRow:
            return pythia_fast.plan_cluster(
                *(model, steps),
                workers=workers,
                workers_per_node=workers,
                network=network,
                cache_dir=tmp_path / "nothing here",
                **common,
            ).asked

        before = simulated()
        began = time.perf_counter()
        pythia_fast.sweep(
            model,
            steps,
            out=tmp_path / f"out{next(runs)}",
            engine="ray",
            workers=pythia_fast.Workers(
                count=workers,
                num_cpus=1,
                address=address,
                runtime_env={"env_vars": {"HF_HUB_OFFLINE": "0"}},  # this Hub is here
            ),
            progress=False,
            cache_dir=tmp_path / f"cache{next(runs)}",
            **common,
        )
        real_s = time.perf_counter() - began
        simulated_s = (before.total_s + simulated().total_s) / 2
        comparison.note(
            f"{case}: {checkpoints} checkpoints of a model, {sequences} x {TOKENS} tokens",
            {
                "simulated_s": simulated_s,
                "real_s": real_s,
                "off_by_percent": 100 * (simulated_s / real_s - 1),
                "target_percent": TARGET_SIMULATED_PERCENT,
                "bottleneck": before.bottleneck,
            },
        )

    every = range(checkpoints)
    both("a folder, 1 worker", series, every, 1, None)
    both("a folder, 2 workers", series, every, 2, None)
    both("two folders, 2 workers", [series, other], every, 2, None)
    with HubServer(
        {spec(SIZE).repo: branches}, total_bytes_per_s=NETWORK_BYTES_PER_S
    ).in_process() as hub:
        speak_to(hub.url, monkeypatch)
        name = f"a Hub with {NETWORK_BYTES_PER_S / 1e6:.0f} MB/s, 2 workers"
        both(name, SIZE, steps, 2, NETWORK_BYTES_PER_S)
    torch.set_num_threads(THREADS)
