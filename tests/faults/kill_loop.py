"""Kills a sweep again and again, at any moment, and lets it go on each time.

    python kill_loop.py '{"kills": 200, "seed": 0, "endpoint": …, "root": …, "steps": […], …}'

A process that has imported everything and started no thread forks the sweeps. What is printed is
one line of JSON: how many were killed, in which states the kills found the files, and what came of
every run that was allowed to end. A run that ends before its kill is followed by one in a new
folder, with the same store.
"""

import collections
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from driver import sweep, values
from soak import allocated_bytes

LONGEST_S = 60.0
"""A sweep that takes longer hangs."""


def main() -> None:
    request = json.loads(sys.argv[1])
    root, kills = Path(request["root"]), request["kills"]
    chance = random.Random(request["seed"])
    call = {"endpoint": request["endpoint"], "cache": str(root / "cache")}
    call |= {"steps": request["steps"], "disk_budget": request["disk_budget"]}
    assert threading.active_count() == 1, "a thread does not survive the fork"
    states: collections.Counter[str] = collections.Counter()
    finished: list[dict[str, Any]] = []
    most_bytes = killed = 0
    whole_s = _run(call | {"out": str(root / "warm-up")}, LONGEST_S)[1]
    shutil.rmtree(root / "cache")
    while killed < kills:
        out = root / f"out-{len(finished)}"
        ended, _ = _run(call | {"out": str(out)}, chance.uniform(0, 1.1 * whole_s))
        most_bytes = max(most_bytes, allocated_bytes(root / "cache"))
        if ended is None:
            killed += 1
            states.update(_states(root / "cache", out))
            continue
        finished.append(ended | {"leftovers": _leftovers(out)})
        if len(finished) % 2:
            shutil.rmtree(root / "cache")  # downloads are to be killed too
    out = root / f"out-{len(finished)}"
    ended, _ = _run(call | {"out": str(out)}, LONGEST_S)
    assert ended is not None, "the last sweep hangs"
    finished.append(ended | {"leftovers": _leftovers(out)})
    report = {"killed": killed, "states": states, "most_bytes": most_bytes, "finished": finished}
    print(json.dumps(report))


def _run(call: dict[str, Any], limit_s: float) -> tuple[dict[str, Any] | None, float]:
    """The sweep's end, or None if it was killed after `limit_s`; and how long it took."""
    began_s = time.monotonic()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            ended = {"rows": values(sweep(**call))}
        except BaseException as error:
            ended = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(ended).encode())
        os._exit(0)
    os.close(writing)
    killer = threading.Timer(limit_s, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    killer.cancel()
    killer.join()  # no thread is to be there at the next fork
    os.waitpid(pid, 0)
    return (json.loads(text) if text else None), time.monotonic() - began_s


def _states(cache: Path, out: Path) -> list[str]:
    """What the kill has found half done."""
    found = []
    if any(cache.rglob("partial/*")):
        found.append("downloading")
    if out.exists() and _leftovers(out):
        found.append("publishing")
    parts = len(list(out.glob("parts/*/*.parquet"))) if out.exists() else 0
    found.append("some parts published" if parts else "no part published")
    return found


def _leftovers(out: Path) -> list[str]:
    named = ("run.json", ".parquet", ".json")
    return sorted(
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.is_file() and (path.name.startswith(".") or not path.name.endswith(named))
    )


if __name__ == "__main__":
    main()
