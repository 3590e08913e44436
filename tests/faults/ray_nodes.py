"""A Ray cluster of several nodes on this machine, for tests, which may kill any part of it.

It has a folder and ports of its own, and nobody finds it who is not given its address. Only
processes that it has started are killed.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import pytest

import pythia_fast
from pythia_fast.metrics import Batch
from pythia_fast.model import Model
from pythia_fast.runs.workers import Workers
from pythia_fast.testing import tiny_suite

PATIENCE_S = 120.0

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
IDS = np.random.default_rng(0).integers(0, 260, (8, 65), dtype=np.uint16)

_SYSTEM = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 6,
}
"""A node that is gone is noticed within seconds."""


class Logged:
    """A metric that writes into a file which step is computed by which process.

    It takes `pause_s` each time and waits as long as there is a file `gate`; at a step of `deadly`
    its process is killed.
    """

    name = "logged"
    settings: Mapping[str, Any] = {}

    def __init__(
        self,
        log: Path,
        *,
        pause_s: float = 0.0,
        deadly: Sequence[int] = (),
        gate: Path | None = None,
    ) -> None:
        self._log, self._pause_s, self._deadly, self._gate = log, pause_s, tuple(deadly), gate

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, Any]:
        """The numbers of the rows."""
        step = model.checkpoint.step
        with self._log.open("ab", 0) as log:  # one write, appended as a whole
            log.write(f"{os.getpid()} {step}\n".encode())
        if step in self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._pause_s)
        while self._gate is not None and self._gate.exists():
            time.sleep(0.01)
        return {"row": batch.rows_B.astype(np.float64)}


def calls(log: Path) -> list[tuple[int, int]]:
    """Who (pid) has computed which step, in order."""
    if not log.exists():
        return []
    lines = log.read_text().splitlines()
    return [(int(pid), int(step)) for pid, step in (line.split() for line in lines)]


def check_calls(log: Path, steps: Sequence[int], killed: Sequence[int] = ()) -> None:
    """Every step was computed, and again only what a killed process had in work.

    That is the step that it computed, and the one before, whose results it was writing.
    """
    made = calls(log)
    assert {step for _, step in made} == set(steps)
    lost = Counter(pid for pid, step in made if (pid, step) != _last_of(made, step))
    assert lost.keys() <= set(killed), "a step was computed again that nobody had in work"
    assert all(times <= 2 for times in lost.values()), lost


def _last_of(made: Sequence[tuple[int, int]], step: int) -> tuple[int, int]:
    return next(each for each in reversed(made) if each[1] == step)


def parts(out: Path) -> dict[str, tuple[int, int]]:
    """The finished parts: of each file which it is, and when it was written."""
    found = {}
    for path in sorted(out.glob("**/*.parquet")):
        with suppress(FileNotFoundError):
            stat = path.stat()
            found[str(path.relative_to(out))] = (stat.st_ino, stat.st_mtime_ns)
    return found


def leftovers(out: Path) -> list[str]:
    """What no finished run folder holds: files that are half written, and who works there."""
    return sorted(
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.is_file() and (path.name.startswith(".") or path.parent.name == "working")
    )


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread; what goes wrong there is raised at the end."""
    errors: list[BaseException] = []

    def go() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        if errors:
            raise errors[0]


def wait(there: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Wait for what another process does, but not for ever."""
    end_s = time.monotonic() + patience_s
    while not there():
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.01)


def kill(pid: int) -> None:
    """SIGKILL; a process that is gone already is none."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Nodes:
    """The cluster: a head without CPUs, to which drivers connect, and nodes that come and go."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="pfr"))  # short, for the sockets in it
        self._patch = pytest.MonkeyPatch()
        self._cluster: Any = None
        self.nodes: list[Any] = []

    def __enter__(self) -> "Nodes":
        self._patch.setenv("RAY_TMPDIR", str(self._home))
        self._patch.delenv("RAY_ADDRESS", raising=False)
        from ray.cluster_utils import Cluster

        by_value()
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": _SYSTEM},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cluster.shutdown()
        self._patch.undo()
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def address(self) -> str:
        """For `Workers(address=…)`."""
        return str(self._cluster.address)

    def add(self, cpus: int = 1) -> Any:
        """One node more; from any thread."""
        here = threading.current_thread() is threading.main_thread()
        self._cluster._shutdown_at_exit = here  # Ray sets a signal's handler for that
        self.nodes.append(self._cluster.add_node(num_cpus=cpus))
        return self.nodes[-1]

    def kill(self, node: Any) -> list[int]:
        """SIGKILL to all processes of a node, which were these."""
        self.nodes.remove(node)
        pids = []
        for started in node.live_processes():
            process = psutil.Process(started[1].pid)
            pids += [each.pid for each in (process, *process.children(recursive=True))]
        for pid in pids:
            kill(pid)
        self._cluster.remove_node(node, allow_graceful=False)
        return pids

    def workers(self, count: int = 2, **more: Any) -> Workers:
        """So many workers with a CPU each."""
        return Workers(count=count, num_cpus=1, address=self.address, **more)


def by_value() -> None:
    """Let workers have `Logged` although they do not find this module."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster with two nodes, each of which has a CPU."""
    pytest.importorskip("ray")
    with Nodes() as cluster:
        cluster.add()
        cluster.add()
        yield cluster


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The steps `STEPS`. Not to be written to."""
    return tiny_suite(tmp_path_factory.mktemp("ray") / "tiny", steps=STEPS)


def check_same(one: pythia_fast.SweepResult, other: pythia_fast.SweepResult) -> None:
    """Two results are equal to the last bit."""
    for mine, its in ((one.table, other.table), (one.sequences, other.sequences)):
        assert mine.column_names == its.column_names
        for row, expected in zip(mine.to_pylist(), its.to_pylist(), strict=True):
            assert row == expected


@pytest.fixture(scope="session")
def alone(series: Path, tmp_path_factory: pytest.TempPathFactory) -> pythia_fast.SweepResult:
    """What the local engine finds."""
    folder = tmp_path_factory.mktemp("alone")
    metrics = ("perplexity", Logged(folder / "log"))
    return pythia_fast.sweep(
        series, tokens=IDS, metrics=metrics, out=folder / "run", dtype="float32", progress=False
    )
