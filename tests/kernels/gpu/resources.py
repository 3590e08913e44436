"""All kernels compiled for all chips, side by side, and a table of what they need.

python tests/kernels/gpu/resources.py
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTED = (80, 86, 90, 100)
ARCHS = (*TESTED, 120)
AT_ONCE = 2  # each process takes some 300 MB


class Compiling:
    """What the process of each chip prints, as it comes."""

    def __init__(self, cases: Mapping[int, Sequence[str]], folder: Path) -> None:
        self.cases, self.folder = cases, folder
        self.found = {
            (arch, case): Future[list[dict[str, Any]]]()
            for arch, of_arch in cases.items()
            for case in of_arch
        }
        self.unread = {arch: Future[list[str]]() for arch in cases}
        self.running: list[subprocess.Popen[str]] = []

    def run(self, arch: int) -> None:
        """Compile a chip's cases; whatever never came has the process's last words."""
        environment = os.environ | {"TRITON_CACHE_DIR": str(self.folder / str(arch))}
        environment.pop("TRITON_INTERPRET", None)
        errors = self.folder / f"{arch}.txt"
        program = Path(__file__).with_name("ahead_of_time.py")
        command = [sys.executable, str(program), str(arch), *self.cases[arch]]
        with errors.open("w") as to:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=to, text=True, env=environment
            )
        self.running.append(process)
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                if "unread" in said:
                    self.unread[arch].set_result(said["unread"])
                elif isinstance(said["found"], str):
                    self.found[arch, said["case"]].set_exception(AssertionError(said["found"]))
                else:
                    self.found[arch, said["case"]].set_result(said["found"])
        mine = [future for (chip, _), future in self.found.items() if chip == arch]
        for future in [*mine, self.unread[arch]]:
            if not future.done():
                future.set_exception(AssertionError(errors.read_text()[-4000:]))


@contextmanager
def compiling(cases: Mapping[int, Sequence[str]]) -> Iterator[Compiling]:
    """The processes of all chips, each with its cases, in this order, `AT_ONCE` at a time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as threads:
        everything = Compiling(cases, Path(folder))
        for arch in cases:
            threads.submit(everything.run, arch)
        try:
            yield everything
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for process in everything.running:
                process.kill()


def main() -> None:
    """Print the table."""
    from cases import CASES

    print(
        f"{'kernel':28} {'chip':>4} {'warps':>5} {'registers':>9} {'spilled':>7} {'shared':>7}",
        end="",
    )
    print(" wgmma  first case")
    with compiling({arch: list(CASES) for arch in ARCHS}) as everything:
        for (arch, case), future in everything.found.items():
            for it in future.result():
                print(
                    f"{it['kernel']:28} {arch:4} {it['warps']:5} {it['registers']:9} "
                    f"{it['spilled_bytes']:7} {it['shared_bytes']:7} "
                    f"{'yes' if it['wgmma'] else 'no':6} {case}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
