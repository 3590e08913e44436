"""Peak memory of a sweep, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import torch
from comparison import Comparison
from forms import ITEM_BYTES, offered_dtypes
from random_series import RandomSeries

from pythia_fast.model.packed import packed_bytes
from pythia_fast.model.precision import resolve_precision
from pythia_fast.suite import Architecture

SWEEP = """
import sys
import numpy as np
import pythia_fast
ids = np.random.default_rng(0).integers(0, 50_254, (8, 2048))
pythia_fast.sweep(
    sys.argv[1], range(3), tokens=ids, dtype=sys.argv[2], out=sys.argv[3], progress=False
)
for line in open("/proc/self/status"):  # not ru_maxrss: a child inherits its parent's
    if line.startswith("VmHWM:"):
        print(int(line.split()[1]) * 1024)
"""


def test_peak_memory(
    comparison: Comparison, random_series: RandomSeries, shape_of_70m: Architecture, tmp_path: Path
) -> None:
    """Two checkpoints in the resident data type, the packed copy and 500 MB are enough."""
    series = random_series("70m", 3)
    for dtype in offered_dtypes():
        command = [sys.executable, "-c", SWEEP, str(series), dtype, str(tmp_path / dtype)]
        peak_bytes = int(subprocess.run(command, check=True, capture_output=True).stdout)
        checkpoint_bytes = shape_of_70m.parameters * ITEM_BYTES[dtype]
        arithmetic = resolve_precision(dtype, torch.device("cpu")).arithmetic
        packed = packed_bytes(shape_of_70m, arithmetic)
        beyond = peak_bytes - 2 * checkpoint_bytes
        numbers = {
            "peak_mb": peak_bytes / 1e6,
            "checkpoint_mb": checkpoint_bytes / 1e6,
            "packed_mb": packed / 1e6,
            "beyond_two_checkpoints_mb": beyond / 1e6,
        }
        comparison.note(f"3 checkpoints of 70m, 8 x 2048 tokens, {dtype}", numbers)
        assert beyond <= packed + 500e6, dtype
