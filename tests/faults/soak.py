"""A whole series over a network that fails, onto a disk that is too small: how it ends."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver import REPO, sweep, values

from pythia_fast.testing import HubServer

ROOM = 3
"""Checkpoints that the disk budget is for."""
SMALL_BYTES = 2**16
"""Of each checkpoint what is no weights: config, listing, record; and the leases."""
HANG_S = 1.0


@dataclass(frozen=True)
class Soaked:
    """How a soak went; `most_bytes` is what the store took at its largest."""

    rows: Sequence[Mapping[str, Any]]
    expected: Sequence[Mapping[str, Any]]
    failures: int
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
            result = sweep(
                endpoint=hub.url,
                cache=work / "cache",
                out=work / "out",
                steps=steps,
                disk_budget=budget_bytes,
                on_error="skip",
            )
        elapsed_s = time.monotonic() - began_s
        return Soaked(
            rows=values(result),
            expected=expected,
            failures=len(result.failures),
            spoiled=hub.spoiled,
            requests=len(hub.requests),
            most_bytes=watch.most_bytes,
            budget_bytes=budget_bytes,
            elapsed_s=elapsed_s,
            undisturbed_s=undisturbed_s,
        )


class Watch:
    """While entered, how much a folder takes at most, looked at twenty times a second."""

    def __init__(self, folder: Path) -> None:
        self.most_bytes = 0
        self._folder = folder
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.05):
            self.most_bytes = max(self.most_bytes, allocated_bytes(self._folder))


def allocated_bytes(folder: Path) -> int:
    """What the files below a folder take on the disk, while others may remove them."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += 512 * path.lstat().st_blocks if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def weights_bytes(folder: Path) -> int:
    """What a checkpoint's weights take on the disk."""
    return sum(512 * path.stat().st_blocks for path in folder.iterdir() if path.stem != "config")
