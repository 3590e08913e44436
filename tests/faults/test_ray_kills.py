"""SIGKILL to any part of a Ray cluster: the results are those of the local engine.

Nothing is lost, and nothing is computed again but what the killed had in work.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_nodes import (
    IDS,
    STEPS,
    Logged,
    Nodes,
    calls,
    check_calls,
    check_same,
    kill,
    leftovers,
    meanwhile,
    parts,
    wait,
)

import pythia_fast
from pythia_fast.errors import SweepError, SweepInterruptedError
from pythia_fast.runs.dispatching.dispatch import RETRIES

PAUSE_S = 0.2
"""How long a step takes at least, so that both workers get some and a kill hits one."""


def swept(
    nodes: Nodes, series: Path, out: Path, log: Path, **changes: Any
) -> pythia_fast.SweepResult:
    arguments: dict[str, Any] = {"metrics": ("perplexity", Logged(log, pause_s=PAUSE_S))}
    arguments |= {"tokens": IDS, "out": out, "dtype": "float32", "progress": False}
    arguments |= {"engine": "ray", "workers": nodes.workers()}
    return pythia_fast.sweep(series, **arguments | changes)


def driver(
    nodes: Nodes, series: Path, out: Path, log: Path, workers: int
) -> "subprocess.Popen[str]":
    """The same sweep as a process."""
    script = Path(__file__).with_name("ray_driver.py")
    paths = (nodes.address, series, out, log, log.with_name("gate"))
    return subprocess.Popen(
        [sys.executable, script, *map(str, paths), str(PAUSE_S), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(3600)
def test_workers_are_killed(
    nodes: Nodes,
    series: Path,
    alone: pythia_fast.SweepResult,
    tmp_path: Path,
    long_form: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of them while they compute; in the long form dozens, at any moment.

    There every other sweep has a run folder that the workers do not see.
    """
    chance = random.Random(0)
    monkeypatch.chdir(tmp_path)
    all_killed = 0
    for number in range(14 if long_form else 1):
        out, log = tmp_path / f"run{number}", tmp_path / f"log{number}"
        killed: list[int] = []
        seen: dict[str, tuple[int, int]] = {}

        def murder(
            out: Path = out,
            log: Path = log,
            killed: list[int] = killed,
            seen: dict[str, tuple[int, int]] = seen,
        ) -> None:
            for after in (2, 5, 8) if long_form else (2, 6):
                wait(lambda: len(calls(log)) >= after)  # noqa: B023 - it is over before the next
                if long_form:
                    time.sleep(chance.uniform(0, 1.5 * PAUSE_S))
                seen.update(parts(out))
                killed.append(calls(log)[-1][0])
                kill(killed[-1])

        with meanwhile(murder):
            result = swept(
                nodes, series, Path("/proc/self/cwd", out.name) if number % 2 else out, log
            )
        check_same(result, alone)
        check_calls(log, STEPS, killed)
        assert seen.items() <= parts(out).items()  # the very files
        assert not result.failures
        finished = parts(out)
        check_same(swept(nodes, series, out, log, engine="local", workers=None), alone)
        assert parts(out) == finished
        assert leftovers(out) == []  # a killed worker may leave half a file, for the next to remove
        all_killed += len(set(killed))
    assert all_killed >= (30 if long_form else 2)


@pytest.mark.timeout(600)
def test_a_node_is_killed_and_another_joins(
    nodes: Nodes, series: Path, alone: pythia_fast.SweepResult, tmp_path: Path
) -> None:
    out, log, gate = tmp_path / "run", tmp_path / "log", tmp_path / "gate"
    gate.touch()
    killed: list[int] = []

    def murder() -> None:
        wait(lambda: len({pid for pid, _ in calls(log)}) == 2)
        gate.unlink()
        wait(lambda: len(calls(log)) > 3)
        killed.extend(nodes.kill(nodes.nodes[0]))
        nodes.add()

    with meanwhile(murder):
        metrics = ("perplexity", Logged(log, pause_s=PAUSE_S, gate=gate))
        result = swept(nodes, series, out, log, metrics=metrics)
    check_same(result, alone)
    assert {pid for pid, _ in calls(log)} & set(killed)
    check_calls(log, STEPS, killed)


@pytest.mark.timeout(600)
def test_the_driver_is_killed_then_interrupted_then_goes_on(
    nodes: Nodes,
    series: Path,
    alone: pythia_fast.SweepResult,
    tmp_path: Path,
    interrupted: Callable[[Callable[[], bool]], AbstractContextManager[None]],
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with driver(nodes, series, out, log, workers=2) as process:
        wait(lambda: len(calls(log)) >= 3 or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        process.kill()
    workers = {pid for pid, _ in calls(log)}
    wait(lambda: not any(psutil.pid_exists(pid) for pid in workers))  # nobody computes on
    before, made, gate = parts(out), len(calls(log)), tmp_path / "gate"

    def is_time() -> bool:
        """Once some steps more are begun; the sweep stands still then."""
        if len(calls(log)) >= made + 3:
            gate.touch()
        return gate.exists()

    metrics = ("perplexity", Logged(log, pause_s=PAUSE_S, gate=gate))
    with (
        pytest.raises(SweepInterruptedError, match=r"of 12 steps are finished and kept in"),
        interrupted(is_time),
    ):
        swept(nodes, series, out, log, metrics=metrics)
    gate.unlink()
    made_then = {pid for pid, _ in calls(log)}
    result = swept(nodes, series, out, log)
    check_same(result, alone)
    check_calls(log, STEPS, sorted(made_then))
    assert before.items() <= parts(out).items()
    assert leftovers(out) == []


@pytest.mark.timeout(600)
def test_two_drivers_do_one_sweep_and_one_is_killed(
    nodes: Nodes, series: Path, alone: pythia_fast.SweepResult, tmp_path: Path
) -> None:
    out, log, other_log = tmp_path / "run", tmp_path / "log", tmp_path / "other"
    gate = tmp_path / "gate"
    gate.touch()
    with driver(nodes, series, out, other_log, workers=1) as process:

        def murder() -> None:
            wait(lambda: (calls(log) and calls(other_log)) or process.poll() is not None)
            assert process.poll() is None, process.communicate()[0]
            gate.unlink()
            wait(lambda: len(calls(other_log)) >= 2)
            process.kill()

        with meanwhile(murder):
            metrics = ("perplexity", Logged(log, pause_s=PAUSE_S, gate=gate))
            result = swept(nodes, series, out, log, metrics=metrics, workers=nodes.workers(1))
        assert process.wait() == -signal.SIGKILL
    check_same(result, alone)
    check_calls(log, sorted({step for _, step in calls(log)}))
    first, other = ({step for _, step in calls(made)} for made in (log, other_log))
    assert first | other == set(STEPS)
    assert len(first & other) <= 4  # what the killed one had in work, and where the two have met


@pytest.mark.timeout(600)
def test_steps_that_kill_and_steps_that_are_damaged_fail_alone(
    nodes: Nodes, series: Path, alone: pythia_fast.SweepResult, tmp_path: Path
) -> None:
    spoiled = Path(shutil.copytree(series, tmp_path / "tiny"))
    (weights,) = (spoiled / "step64").glob("*model*")
    weights.write_bytes(weights.read_bytes()[:1000])
    out, log = tmp_path / "run", tmp_path / "log"
    metrics = ("perplexity", Logged(log, pause_s=PAUSE_S, deadly=(8,)))
    result = swept(nodes, spoiled, out, log, metrics=metrics, on_error="skip")
    assert {failure.step: failure.error for failure in result.failures} == {
        8: "WorkerError",
        64: "TruncatedFileError",
    }
    deaths = [step for _, step in calls(log)].count(8)
    assert RETRIES + 1 <= deaths <= RETRIES + 2  # the first time others may have been in hand too
    good = [step for step in STEPS if step not in (8, 64)]
    made = [step for _, step in calls(log)]
    assert set(made) == {*good, 8}
    assert all(made.count(step) <= 2 for step in good)
    rows = [row for row in result.table.to_pylist() if row["step"] in good]
    assert rows == [row for row in alone.table.to_pylist() if row["step"] in good]
    with pytest.raises(SweepError, match="cannot be had: step 64"):
        swept(nodes, spoiled, out, tmp_path / "again", steps=[64, 4])
