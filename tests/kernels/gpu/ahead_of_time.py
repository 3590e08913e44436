"""Compiling kernels for a GPU that is not there, by the very launchers that would start them.

    python tests/kernels/gpu/ahead_of_time.py 90 [CASE …]

Given meta tensors, a launcher compiles (see `pythia_fast.kernels.gpu.launching`). Here triton is
told of a driver whose GPU is of the wished kind, and what it compiles is looked into: shared
memory, and what NVIDIA's own assembler says of registers and spills. It must be a process of its
own, since in that of the tests kernels are interpreted. It prints a line of JSON per case, and then
one of what no case has used; `make kernels` prints all of it as a table.
"""

import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from pythia_fast.kernels import gpu
from pythia_fast.kernels.gpu.chips import Chip, lookup

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
    shared_bytes: int
    registers: int
    spilled_bytes: int
    wgmma: bool
    serialized: bool  # one warp group's product waits for the other's: ptxas's word for slow
    warps: int


def compiled(
    arch: int, cases: dict[str, Callable[[], object]]
) -> Iterator[tuple[str, list[Compiled] | str]]:
    """Run each case, which launches kernels on meta tensors, and look at all that it compiles.

    What an earlier case has compiled is not compiled again. The traceback of a case that fails.
    """
    triton.runtime.driver.set_active(AbsentGpu(arch))
    made: list[Compiled] = []
    said = StringIO()  # by the assembler

    def listen(
        *, src: Any, metadata: Any, metadata_group: Any, times: Any, cache_hit: bool
    ) -> None:
        made.append(looked_into(metadata, metadata_group, said.getvalue()))
        said.seek(0)
        said.truncate()

    triton.knobs.compilation.listener = listen
    triton.knobs.nvidia.dump_ptxas_log = True
    for case, launch in cases.items():
        made.clear()
        try:
            with redirect_stdout(said):
                launch()
            yield case, list(made)
        except Exception:
            yield case, traceback.format_exc()


def looked_into(metadata: dict[str, Any], group: dict[str, str], said: str) -> Compiled:
    (ptx,) = (Path(path) for name, path in group.items() if name.endswith(".ptx"))
    text = ptx.read_text()
    spills, registers = SPILLS.search(said), REGISTERS.search(said)
    assert spills is not None, said
    assert registers is not None, said
    return Compiled(
        kernel=metadata["name"],
        shared_bytes=metadata["shared"],
        registers=int(registers[1]),
        spilled_bytes=int(spills[1]) + int(spills[2]),
        wgmma="wgmma.mma_async" in text,
        serialized="are serialized" in said,
        warps=metadata["num_warps"],
    )


class Configurations:
    """Those of one chip in all modules of kernels, and whether anything reads them."""

    def __init__(self, arch: int) -> None:
        self.named: dict[int, str] = {}
        self.read: set[int] = set()
        for module in iter_modules(gpu.__path__, gpu.__name__ + "."):
            for name, configs in vars(import_module(module.name)).items():
                if name.endswith("CONFIGS"):
                    where = f"{module.name.removeprefix(gpu.__name__ + '.')}.{name}"
                    self._watch(where, lookup(configs, Chip((arch // 10, arch % 10), 132)))

    def unread(self) -> list[str]:
        return [where for key, where in self.named.items() if key not in self.read]

    def _watch(self, where: str, config: Any) -> None:
        """Follow dicts and tuples down to what has fields, and note whose fields are read."""
        if isinstance(config, Mapping | tuple):
            parts = config.items() if isinstance(config, Mapping) else enumerate(config)
            for key, part in parts:
                self._watch(f"{where}[{key}]", part)
            return
        if isinstance(config, int):  # of the chip's one configuration: whoever looks it up has it
            return
        assert is_dataclass(config), f"{where} is neither fields nor a dict or tuple of such"
        self.named[id(config)] = where
        read, names = self.read, {field.name for field in fields(config)}

        def reading(self: object, name: str) -> Any:
            if name in names:
                read.add(id(self))
            return object.__getattribute__(self, name)

        type(config).__getattribute__ = reading  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from cases import CASES

    arch, chosen = int(sys.argv[1]), sys.argv[2:] or CASES
    configurations = Configurations(arch)
    for case, found in compiled(arch, {case: CASES[case] for case in chosen}):
        said = found if isinstance(found, str) else [asdict(each) for each in found]
        print(json.dumps({"case": case, "found": said}), flush=True)
    print(json.dumps({"unread": configurations.unread()}), flush=True)
