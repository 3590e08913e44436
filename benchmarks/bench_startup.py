"""How long a user waits for the package itself: imports and the command line, as whole processes.

Each is timed from the start of a fresh Python to its end, with all files in the page cache.
"""

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comparison import Comparison, Effort, Ours

COMMAND = str(Path(sysconfig.get_path("scripts")) / "pythia-fast")
TARGET_S = 0.3
ROUND_S = 1.2
ROUND_WITH_PEERS_S = 7.0

IMPORT = "import pythia_fast"
SUITE = "import pythia_fast; pythia_fast.models(), pythia_fast.checkpoints('12b')"
ARGUMENTS = (
    *(["--help"], ["--version"]),
    *([command, "--help"] for command in ("sweep", "models", "generate", "view", "demo")),
    *(["models"], ["models", "12b"], ["sweep", "no-such-model"], ["sweep", "--no-such-option"]),
)


def process(*words: str, exit_code: int = 0) -> Callable[[], None]:
    """A call that runs a process and wants this exit code of it."""

    def run() -> None:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == exit_code, done.stderr

    return run


def python(program: str) -> Callable[[], None]:
    return process(sys.executable, "-c", program)


def exit_code(arguments: list[str]) -> int:
    """What the command line promises for each of `ARGUMENTS`."""
    return {"no-such-model": 3, "--no-such-option": 2}.get(arguments[-1], 0)


def test_the_command_line(benchmark: Any, comparison: Comparison, effort: Effort) -> None:
    """All of it beside a Python that does nothing."""
    numbers = {"target_s": TARGET_S}
    ours = [Ours(IMPORT, python(IMPORT), numbers=numbers)]
    ours += [Ours("pythia_fast.models(), checkpoints()", python(SUITE), numbers=numbers)]
    for arguments in ARGUMENTS:
        call = process(COMMAND, *arguments, exit_code=exit_code(arguments))
        ours.append(Ours(f"pythia-fast {' '.join(arguments)}", call, numbers=numbers))
    comparison.run_all(
        benchmark,
        ours,
        {"python -c pass": python("pass")},
        cache="page cache warm",
        rounds=effort.rounds(ROUND_S),
    )


def test_imports(benchmark: Any, comparison: Comparison, effort: Effort) -> None:
    """`import pythia_fast`, and what must be imported to sweep, beside torch and transformers."""
    ready = f"{IMPORT}; pythia_fast.sweep"
    modelling = "from transformers import GPTNeoXForCausalLM"
    comparison.run_all(
        benchmark,
        [Ours(IMPORT, python(IMPORT), numbers={"target_s": TARGET_S}), Ours(ready, python(ready))],
        {name: python(name) for name in ("import torch", f"import torch; {modelling}")},
        cache="page cache warm",
        rounds=effort.rounds(ROUND_WITH_PEERS_S),
    )
