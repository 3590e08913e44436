"""The threads that the compiled module keeps: shared by callers, renewed after a fork."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from pythia_fast.core import TokenStore


def store_of(rows: int) -> TokenStore:
    bounds = np.arange(rows + 1, dtype=np.int64) * 64
    return TokenStore.in_memory(np.arange(rows * 64, dtype=np.int32), bounds)


def gathered(store: TokenStore, threads: int) -> np.ndarray:
    rows = np.arange(len(store))[::-1].astype(np.int64)
    out = np.empty((len(store), 64), dtype=np.int64)
    store.gather(rows, 0, 64, out, threads)
    return out


def test_many_callers_at_once() -> None:
    store = store_of(5000)
    expected = gathered(store, 1)
    results: list[np.ndarray] = []

    def call() -> None:
        results.extend(gathered(store, threads) for threads in (1, 2, 3, 7, 64))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 40
    assert all(np.array_equal(result, expected) for result in results)


def test_a_forked_child_has_threads_of_its_own() -> None:
    store = store_of(5000)
    expected = gathered(store, 4)
    child = os.fork()
    if child == 0:  # nothing of pytest's may run here
        same = np.array_equal(gathered(store, 4), expected)
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def cores_of_all_threads() -> set[str]:
    """Where this process's threads may run, as Linux says it."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found |= {
                line.split()[1]
                for line in (task / "status").read_text().splitlines()
                if line.startswith("Cpus_allowed_list")
            }
    return found


def wait_until_all_may_go_anywhere() -> None:
    """One may still be waking, for work that is done."""
    deadline_s = time.monotonic() + 60
    while len(cores_of_all_threads()) != 1:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_threads_that_slept_work_and_may_go_anywhere_again() -> None:
    """They are woken on another core than the caller's, but are not kept from it."""
    store = store_of(5000)
    expected = gathered(store, 1)
    wait_until_all_may_go_anywhere()
    before = cores_of_all_threads()
    for pause_s in (0, 1e-5, 1e-4, 1e-3, 1e-2) * 4:
        time.sleep(pause_s)
        assert np.array_equal(gathered(store, 3), expected)
    wait_until_all_may_go_anywhere()
    assert cores_of_all_threads() == before


ONE_CORE = """
import os, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
from pythia_fast.core import TokenStore

ids = np.arange(5000 * 64, dtype=np.int32)
store = TokenStore.in_memory(ids, np.arange(5001, dtype=np.int64) * 64)
for _ in range(10):
    out = np.zeros((5000, 64), np.int64)
    store.gather(np.arange(5000), 0, 64, out, 2)
    assert np.array_equal(out.ravel(), ids)
    time.sleep(0.001)
assert len(os.sched_getaffinity(0)) == 1
"""


def test_more_threads_than_cores() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_CORE], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
