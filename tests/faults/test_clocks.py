"""Nothing relies on flock, or on the times of files: network file systems keep neither promise."""

import fcntl
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from driver import REPO, SHAPE, sweep, values
from soak import weights_bytes

from pythia_fast.runs import pipeline
from pythia_fast.testing import HubServer, make_series

STEPS = (0, 1, 2, 4, 8, 16)
TIMES_S = (0, 4_102_444_800)
"""The years 1970 and 2100."""


def test_no_locks_and_nonsense_for_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_series(tmp_path / "series", SHAPE, STEPS)
    branches = {f"step{step}": folder / f"step{step}" for step in STEPS}
    budget_bytes = 3 * max(weights_bytes(step) for step in branches.values())
    measure = pipeline.measure
    changed = 0
    with HubServer({REPO: branches}) as hub:

        def values_of(where: str, out: str, steps: Sequence[int]) -> list[dict[str, Any]]:
            cache = tmp_path / where
            return values(
                sweep(
                    endpoint=hub.url,
                    cache=cache,
                    out=tmp_path / out,
                    steps=steps,
                    disk_budget=budget_bytes,
                )
            )

        def refuse(*_: Any) -> None:
            raise OSError("No locks available")

        def measured(*arguments: Any, **named: Any) -> Any:
            nonlocal changed
            for place in ("cache", "out", "again"):
                changed += set_times(tmp_path / place)
            return measure(*arguments, **named)

        expected = values_of("calm", "calm-out", STEPS)
        for name in ("flock", "lockf"):
            monkeypatch.setattr(fcntl, name, refuse)
        monkeypatch.setattr(pipeline, "measure", measured)
        half = values_of("cache", "out", STEPS[:3])
        assert half == [row for row in expected if row["step"] in STEPS[:3]]
        set_times(tmp_path / "out")
        assert values_of("cache", "out", STEPS) == expected
        set_times(tmp_path / "cache")
        assert values_of("cache", "again", STEPS) == expected
    assert changed > 100


def set_times(folder: Path) -> int:
    """Each file is of 1970 or 2100 in turn; how many there were."""
    count = 0
    for path, time_s in zip(sorted(folder.rglob("*")), itertools.cycle(TIMES_S), strict=False):
        try:
            os.utime(path, (time_s, time_s), follow_symlinks=False)
        except FileNotFoundError:  # evicted, or published meanwhile
            continue
        count += 1
    return count
