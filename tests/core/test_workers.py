"""The threads that the compiled module keeps: shared by callers, renewed after a fork."""

import os
import threading

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
