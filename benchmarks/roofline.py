"""What the machine can do at most, and how near a measured time comes to it.

The peaks are measured by roofline.cpp with as many threads as torch has: no product of a library,
so no lower bound, but what the instructions themselves give on this machine on this day.
"""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch

SOURCE = Path(__file__).with_name("roofline.cpp")
COMPILE = (os.environ.get("CXX", "g++"), "-std=c++20", "-O3", "-march=native", "-pthread")
BUFFER_BYTES = 1 << 30
"""Beyond any cache that a core has to itself."""
ROUND_S = 0.2

BFLOAT16 = ("amx_bfloat16_flop_per_s", "avx512_bfloat16_flop_per_s", "fma_float32_flop_per_s")
"""Where bfloat16 products can run: the fastest that the machine has is their peak."""
FLOAT32 = ("fma_float32_flop_per_s",)


@dataclass(frozen=True, slots=True)
class Work:
    """The arithmetic that one call must do, and the bytes that must come from or go to memory.

    `dtype` is that of the products: "split-bf16" runs on the bfloat16 units, its `flops` are those
    of the product asked for and not of its three parts.
    """

    flops: float = 0.0
    bytes: float = 0.0
    dtype: str = "bfloat16"


@dataclass(frozen=True, slots=True)
class Roofline:
    """Measured peaks, in flop/s and byte/s, with all of torch's threads."""

    peaks: Mapping[str, float]
    threads: int
    MEMORY: ClassVar[str] = "memory_read"

    def peak(self, dtype: str) -> tuple[str, float]:
        """The name and the rate of the fastest unit for products in `dtype`."""
        names = FLOAT32 if dtype == "float32" else BFLOAT16
        name = max((n for n in names if n in self.peaks), key=lambda n: self.peaks[n])
        return name.removesuffix("_flop_per_s"), self.peaks[name]

    def least_s(self, work: Work) -> float:
        """No machine with these peaks is faster: the slower of arithmetic and memory."""
        return max(work.flops / self.peak(work.dtype)[1], self._by_memory_s(work))

    def describe(self, work: Work, elapsed_s: float) -> dict[str, float | str]:
        """What was reached in `elapsed_s`: the rates, the roof in force and the share of it."""
        unit, peak = self.peak(work.dtype)
        by_memory = self._by_memory_s(work) > work.flops / peak
        roof = (self.MEMORY if by_memory else unit).replace("_", " ")
        reached: dict[str, float | str] = {"roof": roof}
        if work.flops:
            reached["gflop_per_s"] = work.flops / elapsed_s / 1e9
        if work.bytes:
            reached["gb_per_s"] = work.bytes / elapsed_s / 1e9
        return reached | {"share_of_roof": self.least_s(work) / elapsed_s}

    def _by_memory_s(self, work: Work) -> float:
        return work.bytes / self.peaks[f"{self.MEMORY}_byte_per_s"]

    def as_json(self) -> dict[str, object]:
        """The peaks for a results file."""
        return asdict(self)


def measure_roofline(folder: Path) -> Roofline:
    """Compile roofline.cpp into `folder`, unless it is there, and run it: about eight seconds."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(COMPILE).encode()).hexdigest()[:12]
    program = folder / f"roofline-{digest}"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([*COMPILE, str(SOURCE), "-o", str(program)], check=True)
    threads = torch.get_num_threads()
    command = [str(program), str(threads), str(ROUND_S), str(BUFFER_BYTES)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Roofline(parse(printed), threads)


def parse(printed: str) -> dict[str, float]:
    """`name value` lines as a dict."""
    return {name: float(value) for name, value in map(str.split, printed.splitlines())}
