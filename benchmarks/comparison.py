"""Comparisons: our function and its peers in turn, in one process, on one machine.

Each round runs every peer once and then ours, so that a change of the machine's speed meets all of
them alike. What is reported is the median of the rounds' ratios, peer's time over ours.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


class Comparison:
    """Collects the rows of one theme."""

    def __init__(self, theme: str) -> None:
        self.theme = theme
        self.rows: list[dict[str, Any]] = []

    def run(
        self,
        benchmark: Any,
        case: str,
        ours: Callable[[], object],
        peers: Mapping[str, Callable[[], object]],
        *,
        rounds: int,
        cache: str,
    ) -> dict[str, float]:
        """Time `ours` beside its `peers`; returns each peer's ratio (above 1: ours is faster)."""
        peer_s: dict[str, list[float]] = {name: [] for name in peers}

        def run_peers() -> None:
            for name, peer in peers.items():
                started = time.perf_counter()
                peer()
                peer_s[name].append(time.perf_counter() - started)

        benchmark.pedantic(ours, setup=run_peers, rounds=rounds, warmup_rounds=1, iterations=1)
        ours_s = list(benchmark.stats.stats.data)
        ratios = {}
        for name, all_s in peer_s.items():
            timed_s = all_s[-len(ours_s) :]
            pairs = sorted(theirs / own for theirs, own in zip(timed_s, ours_s, strict=True))
            ratios[name] = statistics.median(pairs)
            row = {
                "case": case,
                "peer": name,
                "ours_median_s": statistics.median(ours_s),
                "peer_median_s": statistics.median(timed_s),
                "ratio_median": ratios[name],
                "ratio_min": pairs[0],
                "ratio_max": pairs[-1],
                "rounds": rounds,
                "cache": cache,
            }
            self.rows.append(row)
            benchmark.extra_info[f"ratio to {name}"] = round(ratios[name], 3)
        return ratios

    def note(self, case: str, numbers: Mapping[str, float]) -> None:
        """A row that is no comparison of times, such as memory."""
        self.rows.append({"case": case, **numbers})


def describe_machine() -> dict[str, Any]:
    """The hardware and the versions that a figure belongs to."""
    cpu = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    packages = ("pythia-fast", "torch", "transformers", "numpy", "safetensors", "pyarrow")
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
