"""Runs a small sweep again and again; the n-th call of a kind fails, each time a later one.

    LD_PRELOAD=failing_calls.so python each_call.py '{"kind": "fsync", "apart": 3, …}'

A process that has imported everything and started no thread forks a child for each n, which takes a
fraction of a second where a fresh interpreter takes three; the next n is `apart` more. The child
prints one line of JSON: how many calls it has seen, what came of the sweep, and what came of the
same sweep gone on with afterwards, with nothing failing. The last line is of the child that made
fewer than n calls.
"""

import contextlib
import ctypes
import importlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import stamina
from driver import sweep, values

from pythia_fast.errors import HubError, PythiaFastError, ReadError, SweepError, WriteError
from pythia_fast.hub import download
from pythia_fast.series import fetching

SHIM = ctypes.CDLL(None)
ON_FILES = (WriteError, ReadError)
PROMISED = {"write": ON_FILES, "fsync": ON_FILES, "rename": ON_FILES, "network": (HubError,)}
LEFTOVERS = ("*.tmp*", ".tmp-*", "*.partial*")


def child(n: int, work: Path, kind: str, call: dict[str, Any]) -> None:
    stamina.set_testing(True, attempts=4)  # as many attempts as ever, with no pause between them
    download.FIRST_WAIT_S = download.LONGEST_WAIT_S = fetching.FULL_PAUSE_S = 0.01
    report: dict[str, Any] = {"n": n}
    call = {**call, "cache": str(work / "cache"), "out": str(work / "out")}
    SHIM.fail_at(kind.encode(), ctypes.c_long(n), str(work).encode())
    try:
        report["rows"] = values(sweep(**call))
    except BaseException as error:
        report["error"] = type(error).__name__
        report["promised"] = _is_promised(error, PROMISED[kind])
        report["words"] = " <- ".join(repr(each) for each in _chain(error))
    report["seen"] = SHIM.calls_seen()
    SHIM.fail_at(b"", ctypes.c_long(0), b"")
    report["rows_afterwards"] = values(sweep(**call))
    report["leftovers"] = sorted(
        str(path.relative_to(work))
        for pattern in LEFTOVERS
        for path in (work / "out").rglob(pattern)
    )
    print(json.dumps(report), flush=True)


def _is_promised(error: BaseException, kinds: tuple[type[PythiaFastError], ...]) -> bool:
    """Whether it is one of ours, and the first of ours in what it was raised from is of `kinds`.

    A SweepError alone says nothing: a sweep makes one of whatever goes wrong.
    """
    ours = [each for each in _chain(error) if isinstance(each, PythiaFastError)]
    causes = [each for each in ours if not isinstance(each, SweepError)]
    return isinstance(error, PythiaFastError) and bool(causes) and isinstance(causes[-1], kinds)


def _chain(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None and error not in found:  # one may have become its own cause
        found.append(error)
        error = error.__cause__
    return found


def main() -> None:
    request = json.loads(sys.argv[1])
    kind, root, apart = request.pop("kind"), Path(request.pop("root")), request.pop("apart")
    SHIM.calls_seen.restype = ctypes.c_long
    _import_what_a_sweep_imports(root / "warm-up", request)
    assert threading.active_count() == 1, "a thread does not survive the fork"
    n = 1
    while True:
        work = root / f"{kind}-{n}"
        work.mkdir()
        text, status = _forked(partial(child, n, work, kind, request))
        shutil.rmtree(work, ignore_errors=True)
        report = json.loads(text) if text.strip() else {"n": n, "died": status}
        print(json.dumps(report), flush=True)
        if report.get("seen", n) < n:
            return
        n += apart


def _import_what_a_sweep_imports(work: Path, call: dict[str, Any]) -> None:
    """So that the children need not, each for itself."""

    def tell() -> None:
        sweep(**call, cache=work / "cache", out=work / "out")
        print(json.dumps([*sys.modules]), flush=True)

    text, _ = _forked(tell)
    for name in json.loads(text):
        with contextlib.suppress(ImportError):  # some make modules of their own, by other names
            importlib.import_module(name)


def _forked(work: Callable[[], None]) -> tuple[str, int]:
    """What it prints in a process of its own, and how that ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.dup2(writing, 1)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as lines:
        text = lines.read()
    return text, os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    main()
