"""How much memory a sweep takes above that of a process that has imported everything.

python memory_child.py '{"endpoint": …, "cache": …, "out": …, "steps": […], "disk_budget": …}'
"""

import json
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas  # noqa: F401  # pyarrow imports it when it makes a table
import torch

from pythia_fast.runs import sweeping
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import spec


def status_bytes(name: str) -> int:
    """A line of what Linux knows of this process."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(name))


def main() -> None:
    call = json.loads(sys.argv[1])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # alike on every machine
    torch.set_num_threads(2)
    ids = np.random.default_rng(0).integers(0, 50_000, (2, 33), dtype=np.uint16)
    series = HubSeries(
        spec("14m"), call["cache"], endpoint=call["endpoint"], disk_budget=call["disk_budget"]
    )
    before_bytes = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    with mock.patch.object(sweeping, "open_series", return_value=series):
        sweeping.sweep(
            "14m",
            call["steps"],
            tokens=ids,
            metrics=["perplexity"],
            out=call["out"],
            dtype="float32",
            progress=False,
        )
    print(json.dumps({"more_bytes": status_bytes("VmHWM") - before_bytes}))


if __name__ == "__main__":
    main()
