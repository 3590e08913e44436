"""A sweep on a Ray cluster as a process of its own, which a test may kill.

python tests/faults/ray_driver.py ADDRESS SERIES OUT LOG GATE PAUSE_S WORKERS
"""

import sys
from pathlib import Path

from ray_nodes import IDS, Logged, by_value

import pythia_fast
from pythia_fast.runs.workers import Workers

if __name__ == "__main__":
    address, series, out, log, gate, pause_s, workers = sys.argv[1:]
    by_value()
    pythia_fast.sweep(
        series,
        tokens=IDS,
        metrics=("perplexity", Logged(Path(log), pause_s=float(pause_s), gate=Path(gate))),
        out=out,
        dtype="float32",
        progress=False,
        engine="ray",
        workers=Workers(count=int(workers), num_cpus=1, address=address),
    )
