"""The Slurm script: its options are ones that Slurm knows, and an array of its tasks is a sweep.

A stand-in for `sbatch` runs the tasks of an array side by side, as processes on this machine.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pythia_fast
from pythia_fast.tokens import write_tokens

SCRIPT = Path(__file__).resolve().parents[2] / "examples/slurm.sh"
ROOT = SCRIPT.parents[1]
TASKS = 3

SBATCH = """
import os, re, shlex, subprocess, sys
from pathlib import Path

log = Path(os.environ["LOG"])
with log.open("a") as file:
    print(shlex.join(sys.argv[1:]), file=file)
given = [word for word in sys.argv[1:] if word.startswith("--")]
options = dict(word[2:].partition("=")[::2] for word in given)
if "wrap" in options:
    done = subprocess.run(["bash", "-c", options["wrap"]], stdout=subprocess.PIPE, text=True)
    log.with_name("status").write_text(f"{done.returncode}\\n{done.stdout}")
    print("12")
else:
    script = next(word for word in sys.argv[1:] if word.endswith("slurm.sh"))
    command = ["bash", *sys.argv[sys.argv.index(script):]]
    of_array = {"COUNT": TASKS, "MIN": 1, "MAX": TASKS, "STEP": 1}
    tasks = []
    for task in range(1, TASKS + 1):
        here = {f"SLURM_ARRAY_TASK_{name}": str(x) for name, x in (of_array | {"ID": task}).items()}
        with log.with_name(f"task-{task}").open("w") as output:
            own = os.environ | here | {"SLURM_ARRAY_JOB_ID": "11"}
            tasks.append(subprocess.Popen(command, env=own, stdout=output, stderr=output))
    codes = [task.wait() for task in tasks]
    log.with_name("codes").write_text(" ".join(map(str, codes)))
    print("11;cluster")
"""
COMMAND = "import sys; from pythia_fast.__main__ import main; sys.exit(main())"


def test_bash_can_read_it() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_its_options_are_slurm_s_and_stand_before_the_first_command() -> None:
    lines = SCRIPT.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    commands = [place for place, line in enumerate(lines) if line and not line.startswith("#")]
    options = {}
    for place, line in enumerate(lines):
        if not line.startswith("#SBATCH"):
            continue
        assert place < commands[0], "Slurm reads none after the first command"
        match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
        assert match, line
        assert match[1] not in options
        options[match[1]] = match[2]
    patterns = {  # as `man sbatch` has them
        "job-name": r"[\w-]+",
        "array": r"\d+-\d+(:\d+)?(%\d+)?",
        "nodes": r"\d+(-\d+)?",
        "ntasks": r"\d+",
        "gres": r"gpu(:\w+)?:\d+",
        "cpus-per-task": r"\d+",
        "mem": r"\d+[KMGT]?",
        "time": r"(\d+-)?\d\d:\d\d:\d\d",
        "requeue": None,
        "output": r"%x-%A_%a\.log",
    }
    assert set(options) == set(patterns)
    for name, pattern in patterns.items():
        value = options[name]
        assert value is None if pattern is None else re.fullmatch(pattern, value or ""), name
    assert options["ntasks"] == options["nodes"] == "1"


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a login node: `sbatch` and `pythia-fast` are there, and no Slurm job."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"sbatch": f"TASKS = {TASKS}\n{SBATCH}", "pythia-fast": COMMAND}.items():
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SLURM_")}
    return kept | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(scratch),
        "LOG": str(tmp_path / "log"),
        "OMP_NUM_THREADS": "1",
    }


def submit(cluster: dict[str, str], *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = ["bash", SCRIPT, *map(str, arguments)]
    return subprocess.run(command, env=cluster, capture_output=True, text=True, check=False)


def test_its_tasks_side_by_side_make_a_sweep(
    cluster: dict[str, str], tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path
) -> None:
    """One step cannot be had: that is told, also by exit codes, and all others are done."""
    series = Path(shutil.copytree(tiny_series, tmp_path / "tiny"))
    for file in (series / "step4").glob("*model*"):
        file.write_bytes(b"broken")
    write_tokens(tmp_path / "train", tiny_ids)
    run = tmp_path / "my runs/tiny"
    options = ("--tokens", tmp_path / "train", "--metrics", "perplexity,memorization")
    done = submit(cluster, run, series, *options, "--dtype", "float32")
    told = "\n".join((tmp_path / f"task-{task}").read_text() for task in range(1, TASKS + 1))
    assert done.returncode == 0, done.stderr + told
    assert f"submitted as 11; pythia-fast status {run}" in done.stderr
    assert all(f"share {task}/3: 2 of 6 steps" in told for task in range(1, TASKS + 1))
    assert sorted((tmp_path / "codes").read_text().split()) == ["0", "0", "4"], told
    code, head, counted, _, failed, *_ = (tmp_path / "status").read_text().splitlines()
    assert (code, head) == ("4", f"{run}: sweep of tiny")
    assert counted.endswith("5 of 6 steps done, 1 failed")
    assert "failed: step 4: " in failed
    array, after = (tmp_path / "log").read_text().splitlines()
    assert array.startswith(f"--parsable {SCRIPT} ")
    assert "--dependency=afterany:11 " in after
    alone = pythia_fast.sweep(
        series,
        tokens=tmp_path / "train",
        metrics=["perplexity", "memorization"],
        out=tmp_path / "alone",
        dtype="float32",
        on_error="skip",
        progress=False,
    )
    together = pythia_fast.SweepResult(run)
    assert together.table.to_pylist() == alone.table.to_pylist()
    assert together.sequences.equals(alone.sequences)
    assert together.failures == alone.failures


@pytest.mark.parametrize("code", [0, 4])
def test_a_task_s_code_is_the_sweep_s_though_the_cache_cannot_be_cleared(
    cluster: dict[str, str], tmp_path: Path, code: int
) -> None:
    stub = f'#!/bin/bash\necho "$1" >> "$LOG"\n[[ $1 == sweep ]] && exit {code}\nexit 3\n'
    (tmp_path / "bin/pythia-fast").write_text(stub)
    done = submit(cluster | {"SLURM_ARRAY_TASK_ID": "1"}, tmp_path / "run", "70m")
    assert done.returncode == code
    assert (tmp_path / "log").read_text().split() == ["sweep", "cache"]


def test_without_a_model_it_says_how_it_is_used(cluster: dict[str, str], tmp_path: Path) -> None:
    done = submit(cluster, tmp_path / "run")
    assert done.returncode == 2
    assert "usage: bash" in done.stderr
    assert not (tmp_path / "log").exists()
