"""Runs a small sweep again and again; in the n-th of them the n-th call of a kind fails.

    LD_PRELOAD=failing_calls.so python each_call.py '{"kind": "fsync", "endpoint": …, …}'

A process that has imported everything and started no thread forks a child for each n, which takes a
fraction of a second where a fresh interpreter takes three. The child prints one line of JSON: how
many calls it has seen, what came of the sweep, and what came of the same sweep gone on with
afterwards, with nothing failing. The last line is of the child that made fewer than n calls.
"""

import ctypes
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import stamina
from driver import sweep, values

from pythia_fast.errors import PythiaFastError

SHIM = ctypes.CDLL(None)
LEFTOVERS = ("*.tmp*", ".tmp-*", "*.partial*")


def child(n: int, work: Path, kind: str, call: dict[str, Any]) -> None:
    stamina.set_testing(True, attempts=4)  # as many attempts as ever, with no pause between them
    report: dict[str, Any] = {"n": n}
    call = {**call, "cache": str(work / "cache"), "out": str(work / "out")}
    SHIM.fail_at(kind.encode(), ctypes.c_long(n), str(work).encode())
    try:
        report["rows"] = values(sweep(**call))
    except BaseException as error:
        report["error"] = type(error).__name__
        report["promised"] = isinstance(error, PythiaFastError)
        report["words"] = str(error)
    report["seen"] = SHIM.calls_seen()
    SHIM.fail_at(b"", ctypes.c_long(0), b"")
    report["rows_afterwards"] = values(sweep(**call))
    report["leftovers"] = sorted(
        str(path.relative_to(work))
        for pattern in LEFTOVERS
        for path in (work / "out").rglob(pattern)
    )
    print(json.dumps(report), flush=True)


def main() -> None:
    request = json.loads(sys.argv[1])
    kind, root = request.pop("kind"), Path(request.pop("root"))
    first, stride = request.pop("first", 1), request.pop("stride", 1)
    SHIM.calls_seen.restype = ctypes.c_long
    assert threading.active_count() == 1, "a thread does not survive the fork"
    n = first
    while True:
        work = root / f"{kind}-{n}"
        work.mkdir()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.dup2(writing, 1)
            code = 1
            try:
                child(n, work, kind, request)
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as lines:
            text = lines.read()
        status = os.waitpid(pid, 0)[1]
        shutil.rmtree(work, ignore_errors=True)
        report = json.loads(text) if text.strip() else {"n": n, "died": status}
        print(json.dumps(report), flush=True)
        if report.get("seen", n) < n:
            return
        n += stride


if __name__ == "__main__":
    main()
