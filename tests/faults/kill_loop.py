"""Kills a sweep again and again, at any moment, and lets it go on each time.

    python kill_loop.py '{"kills": 200, "seed": 0, "endpoint": …, "root": …, "steps": […], …}'

A process that has imported everything and started no thread forks the sweeps. Every fifth kill
comes after a random while; for the others the sweep itself says that it is at a certain moment, and
stands still there, so that it is met however fast the machine is. What is printed is one line of
JSON: how many were killed, at which moments, what had been published by then, and what came of
every run that was allowed to end. A run that ends before its kill is followed by one in a new
folder, with the same store or an empty one.
"""

import collections
import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from driver import sweep, values
from soak import Watch

from pythia_fast.hub.arrival import Arrival
from pythia_fast.hub.partial import PartialFile
from pythia_fast.runs import pipeline

LONGEST_S = 60.0
"""A sweep that takes longer hangs."""
MOMENTS = ("at random", "downloading", "verifying", "computing", "publishing")


def main() -> None:
    request = json.loads(sys.argv[1])
    root, kills = Path(request["root"]), request["kills"]
    chance = random.Random(request["seed"])
    cache = root / "cache"
    call = {"endpoint": request["endpoint"], "cache": str(cache)}
    call |= {"steps": request["steps"], "disk_budget": request["disk_budget"]}
    moments: collections.Counter[str] = collections.Counter()
    states: collections.Counter[str] = collections.Counter()
    finished: list[dict[str, Any]] = []
    most_bytes = looks = 0
    began_s = time.monotonic()
    _run(call | {"out": str(root / "warm-up")}, LONGEST_S, Watch(cache))
    whole_s = time.monotonic() - began_s
    shutil.rmtree(cache)
    while (killed := moments.total()) < kills:
        out = root / f"out-{len(finished)}"
        moment = MOMENTS[killed % len(MOMENTS)]
        limit_s = chance.uniform(0, 1.1 * whole_s) if moment == "at random" else LONGEST_S
        watch = Watch(cache)
        ended = _run(call | {"out": str(out)}, limit_s, watch, moment, chance.randint(1, 3))
        most_bytes, looks = max(most_bytes, watch.most_bytes), looks + watch.looks
        if ended is None:
            moments[moment] += 1
            parts = any(out.glob("parts/*/*.parquet"))
            states["some parts published" if parts else "no part published"] += 1
            continue
        finished.append(ended | {"leftovers": _leftovers(out)})
        if len(finished) % 2:
            shutil.rmtree(cache)  # downloads are to be killed too
    out = root / f"out-{len(finished)}"
    ended = _run(call | {"out": str(out)}, LONGEST_S, Watch(cache))
    assert ended is not None, "the last sweep hangs"
    finished.append(ended | {"leftovers": _leftovers(out)})
    report = {"moments": moments, "states": states, "most_bytes": most_bytes, "looks": looks}
    print(json.dumps(report | {"finished": finished}))


def _run(
    call: dict[str, Any], limit_s: float, watch: Watch, moment: str = "", nth: int = 1
) -> dict[str, Any] | None:
    """The sweep's end; None if it was killed, at the moment's `nth` time or after `limit_s`."""
    assert threading.active_count() == 1, "a thread does not survive the fork"
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _stand_still(moment, nth, writing, Path(call["out"]))
        try:
            ended = {"rows": values(sweep(**call))}
        except BaseException as error:
            ended = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(ended).encode())
        os._exit(0)
    os.close(writing)
    killer = threading.Timer(limit_s, os.kill, (pid, signal.SIGKILL))
    with watch, os.fdopen(reading) as pipe:
        killer.start()
        text = pipe.read(1)
        if text == REACHED:
            os.kill(pid, signal.SIGKILL)
        text += pipe.read()
        killer.cancel()
        killer.join()
    os.waitpid(pid, 0)
    return json.loads(text) if text and not text.startswith(REACHED) else None


REACHED = "!"


def _stand_still(moment: str, nth: int, pipe: int, out: Path) -> None:
    """Let the thread that comes to the moment for the `nth` time say so, and go no farther."""
    times = itertools.count(1)

    def reached() -> None:
        if next(times) == nth:
            os.write(pipe, REACHED.encode())
            time.sleep(2 * LONGEST_S)

    def after(owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def then(*arguments: Any, **named: Any) -> Any:
            found = real(*arguments, **named)
            reached()
            return found

        setattr(owner, name, then)

    def sync(file: int) -> None:
        """A part is written, and has not got its name yet."""
        real_sync(file)
        if Path(f"/proc/self/fd/{file}").readlink().is_relative_to(out / "parts"):
            reached()

    real_sync = os.fsync
    if moment == "downloading":
        after(PartialFile, "write")
    elif moment == "verifying":
        after(Arrival, "_hash")  # of the whole file, which has not got its name yet
    elif moment == "computing":
        after(pipeline, "measure")
    elif moment == "publishing":
        os.fsync = sync


def _leftovers(out: Path) -> list[str]:
    named = ("run.json", ".parquet", ".json")
    return sorted(
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.is_file() and (path.name.startswith(".") or not path.name.endswith(named))
    )


if __name__ == "__main__":
    main()
