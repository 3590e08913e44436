"""A whole series over a network that fails, onto a disk that is too small: how it ends."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver import REPO, sweep, values

from pythia_fast.runs import SweepResult
from pythia_fast.testing import HubServer

ROOM = 3
"""Checkpoints that the disk budget is for."""
SLACK_BYTES = 8 * 4096
"""A few blocks of the file system: files that are begun may end in the middle of one."""
HANG_S = 1.0
MOST_CALLS = 5
"""A step may fail by right: a listing that is spoiled four times running, a file corrupt twice.

Then the same call is made again.
"""

_WEIGHTS = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Soaked:
    """How a soak went; `most_bytes` is what weights took of the disk at most."""

    rows: Sequence[Mapping[str, Any]]
    expected: Sequence[Mapping[str, Any]]
    failures: int
    calls: int
    spoiled: Mapping[str, int]
    requests: int
    most_bytes: int
    budget_bytes: int
    elapsed_s: float
    undisturbed_s: float


def soak(folder: Path, steps: Sequence[int], work: Path, *, rate: float, seed: int) -> Soaked:
    """Sweep `steps` of `folder`, undisturbed and then with `rate` of all answers spoiled."""
    branches = {f"step{step}": folder / f"step{step}" for step in steps}
    largest = max(weights_bytes(folder) for folder in branches.values())
    budget_bytes = ROOM * largest
    with HubServer({REPO: branches}, redirect=True) as hub:
        began_s = time.monotonic()
        result = sweep(endpoint=hub.url, cache=work / "calm", out=work / "calm-out", steps=steps)
        undisturbed_s = time.monotonic() - began_s
        expected = values(result)
    with HubServer({REPO: branches}, redirect=True).in_process() as hub:
        hub.disturb(rate, seed, hang_s=HANG_S)
        watch = Watch(work / "cache")
        began_s = time.monotonic()
        with watch:
            results = list(_until_all_is_done(hub.url, work, steps, budget_bytes))
        elapsed_s = time.monotonic() - began_s
        return Soaked(
            rows=values(results[-1]),
            expected=expected,
            failures=sum(len(result.failures) for result in results),
            calls=len(results),
            spoiled=hub.spoiled,
            requests=len(hub.requests),
            most_bytes=watch.most_bytes,
            budget_bytes=budget_bytes,
            elapsed_s=elapsed_s,
            undisturbed_s=undisturbed_s,
        )


def _until_all_is_done(
    endpoint: str, work: Path, steps: Sequence[int], budget_bytes: int
) -> Iterator[SweepResult]:
    for _ in range(MOST_CALLS):
        result = sweep(
            endpoint=endpoint,
            cache=work / "cache",
            out=work / "out",
            steps=steps,
            disk_budget=budget_bytes,
            on_error="skip",
        )
        yield result
        if not result.failures:
            return


class Watch:
    """While entered, how much a store's weights take at most, looked at a hundred times a second.

    What is looked at is a lower bound of what was there at one moment, so that a file which takes
    the place of another between two looks is not counted beside it.
    """

    def __init__(self, cache: Path) -> None:
        self.most_bytes = 0
        self.looks = 0
        self._cache = cache
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        before = taken(self._cache)
        while not self._end.wait(0.01):
            after = taken(self._cache)
            there = sum(min(before[file], after[file]) for file in before.keys() & after.keys())
            self.most_bytes = max(self.most_bytes, there)
            self.looks += bool(there)
            before = after


def taken(cache: Path) -> dict[tuple[str, int], int]:
    """What weights in a store take on the disk, whole or begun, by digest and inode.

    Configs, listings, records and leases are no weights: they are small, and in no budget.
    """
    found = {}
    for folder in ("blobs", "partial"):
        for path in cache.rglob(f"{folder}/*"):
            if _WEIGHTS.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # others may remove it
                    status = path.lstat()
                    found[path.name, status.st_ino] = 512 * status.st_blocks
    return found


def weights_bytes(folder: Path) -> int:
    """What a checkpoint's weights take on the disk."""
    return sum(512 * path.stat().st_blocks for path in folder.iterdir() if path.stem != "config")
