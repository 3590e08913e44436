"""A process may end while threads of Python's are inside the compiled module."""

import subprocess
import sys

import pytest

# As the interpreter ends, it lets no other thread have the GIL again: each of these wants it.
DAEMONS = """
import threading, time
import numpy as np
from pythia_fast.core import CpuEngine, TokenStore

memory = np.zeros(1 << 18, np.float32)
x = memory[-memory.ctypes.data % 64 // 4 :][: 4 * 512 * 16]
engine = CpuEngine("float32")
store = TokenStore.in_memory(np.arange(64, dtype=np.int32), np.array([0, 64]))


def kernels():
    to = x.copy()
    while True:
        engine.unpack(x, to, 4, 512, THREADS)


def rows():
    rows, out = np.zeros(64, np.int64), np.empty((64, 64), np.int64)
    while True:
        store.gather(rows, 0, 64, out, THREADS)


def refused():
    while True:
        try:
            store.gather(np.array([9]), 0, 64, np.empty((1, 64), np.int64), THREADS)
        except IndexError:
            pass


for target in (kernels, rows, refused):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.01)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_daemon_threads_in_the_module_do_not_disturb_the_end(threads: int) -> None:
    for _ in range(6):
        done = subprocess.run(
            [sys.executable, "-c", DAEMONS.replace("THREADS", str(threads))],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
