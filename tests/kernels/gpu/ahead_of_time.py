"""Compiling kernels for a GPU that is not there, by the very launchers that would start them.

    python tests/kernels/gpu/ahead_of_time.py 90

Given meta tensors, a launcher compiles (see `pythia_fast.kernels.gpu.launching`). Here triton is
told of a driver whose GPU is of the wished kind, and what it compiles is looked into: shared
memory, and the registers that NVIDIA's own assembler says it spills. It must be a process of its
own, since in that of the tests kernels are interpreted.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas

SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


class AbsentGpu:
    """What triton's compiler asks of a driver."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")


@dataclass(frozen=True)
class Compiled:
    """What became of one kernel in one configuration."""

    kernel: str
    case: str
    arch: int
    shared_bytes: int
    registers: int
    spilled_bytes: int
    wgmma: bool
    warps: int


def compiled(arch: int, cases: dict[str, Callable[[], object]]) -> Iterator[Compiled]:
    """Run each case, which launches kernels on meta tensors, and look at all that it compiles."""
    triton.runtime.driver.set_active(AbsentGpu(arch))
    made: list[Any] = []

    def listen(
        *, src: Any, metadata: Any, metadata_group: Any, times: Any, cache_hit: bool
    ) -> None:
        made.append((metadata, metadata_group))

    triton.knobs.compilation.listener = listen
    for case, launch in cases.items():
        made.clear()
        launch()
        assert made, f"{case} has compiled nothing"
        for metadata, group in made:
            (ptx,) = (Path(path) for name, path in group.items() if name.endswith(".ptx"))
            said, text = assembled(ptx, arch), ptx.read_text()
            spills, registers = SPILLS.search(said), REGISTERS.search(said)
            assert spills is not None, said
            assert registers is not None, said
            yield Compiled(
                kernel=metadata["name"],
                case=case,
                arch=arch,
                shared_bytes=metadata["shared"],
                registers=int(registers[1]),
                spilled_bytes=int(spills[1]) + int(spills[2]),
                wgmma="wgmma.mma_async" in text,
                warps=metadata["num_warps"],
            )


def assembled(ptx: Path, arch: int) -> str:
    """What ptxas says of it."""
    target = re.search(r"^\.target (\w+)", ptx.read_text(), re.MULTILINE)
    assert target is not None
    with tempfile.NamedTemporaryFile() as cubin:
        command = [get_ptxas(arch).path, "-v", "--gpu-name", target[1], str(ptx), "-o", cubin.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from cases import CASES

    for each in compiled(int(sys.argv[1]), CASES):
        print(json.dumps(asdict(each)), flush=True)
