"""SIGKILL at any moment: the next call goes on, and the results are those of an undisturbed run.

A few kills here, two hundred in `make faults`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import REPO, SHAPE, sweep, values
from soak import SLACK_BYTES, weights_bytes

from pythia_fast.testing import HubServer, make_series

STEPS = (0, 1, 2, 4, 8, 16)
BUDGET = 3
"""Checkpoints that the store may hold."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_series(tmp_path_factory.mktemp("series"), SHAPE, STEPS)


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[HubServer]:
    branches = {f"step{step}": folder / f"step{step}" for step in STEPS}
    with HubServer({REPO: branches}, latency_s=0.005, bytes_per_s=1e6) as server:
        yield server


@pytest.mark.timeout(1800)
def test_killed_again_and_again(
    hub: HubServer, folder: Path, tmp_path: Path, long_form: bool
) -> None:
    undisturbed = sweep(
        endpoint=hub.url, cache=tmp_path / "cache", out=tmp_path / "out", steps=STEPS
    )
    expected = values(undisturbed)
    largest = max(weights_bytes(folder / f"step{step}") for step in STEPS)
    root = tmp_path / "killed"
    root.mkdir()
    request = {
        "kills": 200 if long_form else 10,
        "seed": 0,
        "root": str(root),
        "endpoint": hub.url,
        "steps": STEPS,
        "disk_budget": BUDGET * largest,
    }
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("kill_loop.py"), json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    kills = sum(report["moments"].values())
    print(f"{kills} kills: {report['moments']}; {report['states']}; {report['most_bytes']:,} bytes")
    assert kills == request["kills"]
    moments = {"at random", "downloading", "verifying", "computing", "publishing"}
    assert report["moments"].keys() == moments
    assert report["states"].keys() == {"no part published", "some parts published"}
    for ended in report["finished"]:
        assert "error" not in ended, ended
        assert ended["rows"] == expected
        assert ended["leftovers"] == []
    assert report["looks"] > 0
    assert report["most_bytes"] <= request["disk_budget"] + SLACK_BYTES
