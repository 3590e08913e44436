"""Everything that is asked of a GPU, measured on the one that is here, in one command.

    python benchmarks/gpu.py                                  # all themes, at most 8 minutes
    python benchmarks/gpu.py --theme attention,mlp --minutes 3
    python benchmarks/gpu.py --rehearse                       # tiny, on the CPU; nothing is kept

Each theme checks answers before it takes times, has a process of its own, which ends when its part
of the time is over, and writes its rows as they come into benchmarks/results, as
gpu-<theme>_<gpu>_<date>.json. It makes its own weights, and needs what the package needs and
transformers.
"""

import argparse
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from on_gpu.folders import remove_series_of

if TYPE_CHECKING:
    from on_gpu.bench import Bench

THEMES = {
    "ceilings": 12.0,
    "attention": 50.0,
    "cross-entropy": 25.0,
    "mlp": 60.0,
    "perplexity": 130.0,
    "memorization": 60.0,
    "swap": 35.0,
    "deterministic": 25.0,
}
"""And about how many seconds each takes on an H100: the shares of the time that there is."""
MINUTES = 8.0
STARTING_S = 8.0
"""Of a theme's time: Python, torch, CUDA, and the end."""


def main(arguments: list[str]) -> int:
    """The exit status: 1 if a theme was wrong, failed or was stopped."""
    asked = _parser().parse_args(arguments)
    chosen = list(THEMES) if asked.theme is None else asked.theme.split(",")
    if unknown := set(chosen) - set(THEMES):
        sys.exit(f"no theme {', '.join(sorted(unknown))}; there are {', '.join(THEMES)}")
    if asked.seconds is not None:
        return run_theme(chosen[0], asked.seconds, rehearsal=asked.rehearse, folder=asked.folder)
    end_s, failed = time.monotonic() + 60 * asked.minutes, []
    for number, theme in enumerate(chosen):
        rest = sum(THEMES[other] for other in chosen[number:])
        seconds = (end_s - time.monotonic()) * THEMES[theme] / rest
        if not _in_a_process(theme, seconds, asked):
            failed.append(theme)
    if failed:
        print(f"\nNot all is well in: {', '.join(failed)}")
    return int(bool(failed))


def run_theme(theme: str, seconds: float, *, rehearsal: bool, folder: Path | None) -> int:
    """One theme in this process: the exit status."""
    import torch
    from comparison import Comparison
    from on_gpu.bench import Bench
    from on_gpu.ceilings import measure_ceilings
    from on_gpu.machine import describe_gpu, gpu_name
    from record import RESULTS, save

    device = torch.device("cpu" if rehearsal else "cuda")
    machine, name = describe_gpu(device), "" if rehearsal else gpu_name(device)
    command = f"python benchmarks/gpu.py --theme {theme}"

    def keep(collected: Comparison) -> None:
        if not rehearsal:
            save(collected, folder or RESULTS, name, machine, command)

    roofline = measure_ceilings(device)
    bench = Bench(f"gpu-{theme}", device, roofline, seconds=seconds, keep=keep)
    try:
        importlib.import_module(f"on_gpu.{theme.replace('-', '_')}").run(bench)
    finally:
        _show(theme, bench, rehearsal=rehearsal)
    return int(bool(bench.failures))


def _show(theme: str, bench: "Bench", *, rehearsal: bool) -> None:
    """The tables, as far as they came."""
    from tables import rows

    print(f"\n## {theme}{', a rehearsal: the times mean nothing' if rehearsal else ''}\n")
    for ceiling, rate in bench.roofline.peaks.items() if bench.roofline else ():
        unit, scale = ("TFLOP/s", 1e12) if ceiling.endswith("flop_per_s") else ("GB/s", 1e9)
        print(f"- {ceiling.rsplit('_', 3)[0].replace('_', ' ')}: {rate / scale:,.1f} {unit}")
    print(f"\n{rows(bench.rows, bench.calibration)}")
    if bench.failures:
        print(f"\nfailed: {', '.join(bench.failures)}")


def _in_a_process(theme: str, seconds: float, asked: argparse.Namespace) -> bool:
    """Whether the theme went well. A GPU's context that is lost there is not lost to the others."""
    command = [sys.executable, __file__, "--theme", theme]
    command += ["--seconds", f"{max(seconds - STARTING_S, 1.0):.0f}"]
    command += ["--rehearse"] if asked.rehearse else []
    command += ["--folder", str(asked.folder)] if asked.folder else []
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if asked.rehearse else {})
    print(f"\n# {theme}, at most {seconds:.0f} s", flush=True)
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait(max(seconds, 1.0)) == 0
        except subprocess.TimeoutExpired:
            print(f"{theme} was stopped when its time was over; what it had measured is kept")
            return False
        finally:
            process.kill()
            process.wait()
            remove_series_of(process.pid)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--theme", help=f"some of {','.join(THEMES)}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the most that all take")
    parser.add_argument("--folder", type=Path, help="where results go instead")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU, nothing kept")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
