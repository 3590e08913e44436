"""Four processes and one store: nothing comes over the network twice, and the budget holds."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from driver import REPO, SHAPE, sweep, values
from soak import SLACK_BYTES, Watch, weights_bytes

from pythia_fast.series.lookahead import WITHOUT_BUDGET
from pythia_fast.testing import HubServer, make_series

STEPS = (0, 1, 2, 4, 8, 16, 32, 64)
WORKERS = 4
_WEIGHTS = re.compile(r"/resolve/(?P<commit>[0-9a-f]{40})/(?P<file>.+\.(?:safetensors|bin))")


@pytest.fixture
def branches(tmp_path: Path) -> Mapping[str, Path]:
    folder = make_series(tmp_path / "series", SHAPE, STEPS)
    return {f"step{step}": folder / f"step{step}" for step in STEPS}


@pytest.fixture
def hub(branches: Mapping[str, Path]) -> Iterator[HubServer]:
    with HubServer({REPO: branches}, latency_s=0.01, bytes_per_s=2e6) as server:
        yield server


def downloads(hub: HubServer) -> Counter[tuple[str, str]]:
    """How often each file with weights was given, by its commit and name."""
    found: Counter[tuple[str, str]] = Counter()
    for request in hub.requests:
        match = _WEIGHTS.search(request.path)
        if match is not None and request.method == "GET" and request.status in (200, 206):
            found[match["commit"], match["file"]] += 1
    return found


def together(
    calls: Sequence[Mapping[str, Any]], kill_first_when: Callable[[], bool] | None = None
) -> list[list[dict[str, Any]]]:
    """What processes answer that do these sweeps side by side; not the first if it is killed."""
    command = [sys.executable, Path(__file__).with_name("driver.py")]
    with ExitStack() as stack:
        processes = []
        for call in calls:
            process = subprocess.Popen(
                [*command, json.dumps(call)], stdout=subprocess.PIPE, text=True
            )
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        if kill_first_when is not None:
            while not kill_first_when():
                time.sleep(0.01)
            processes[0].kill()
            processes.pop(0).communicate()
        answers = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes)
    return list(map(json.loads, answers))


def test_what_one_downloads_no_other_does(hub: HubServer, tmp_path: Path) -> None:
    """All four want all of them, so that each step is wanted by all at about the same time."""
    call = {"endpoint": hub.url, "cache": str(tmp_path / "cache"), "steps": STEPS}
    answers = together([call | {"out": str(tmp_path / f"out{n}")} for n in range(WORKERS)])
    files = downloads(hub)
    assert len({commit for commit, _ in files}) == len(STEPS)
    assert set(files.values()) == {1}, "each file came once, for all four"
    alone = {"cache": tmp_path / "alone", "out": tmp_path / "alone-out"}
    assert answers == [values(sweep(**call | alone))] * WORKERS


def test_a_budget_for_all_four(
    hub: HubServer, branches: Mapping[str, Path], tmp_path: Path
) -> None:
    """Two steps each, of one run: room for five of the eight checkpoints is enough for all."""
    budget_bytes = 5 * max(map(weights_bytes, branches.values()))
    call = {
        "endpoint": hub.url,
        "cache": str(tmp_path / "cache"),
        "out": str(tmp_path / "out"),
        "disk_budget": budget_bytes,
    }
    with Watch(tmp_path / "cache") as watch:
        answers = together([call | {"steps": STEPS[n::WORKERS]} for n in range(WORKERS)])
    assert 0 < watch.most_bytes <= budget_bytes + SLACK_BYTES
    assert set(downloads(hub).values()) == {1}
    alone = {"cache": tmp_path / "alone", "out": tmp_path / "alone-out", "steps": STEPS}
    expected = values(sweep(**call | alone))
    found = [row for answer in answers for row in answer]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]


def test_one_of_four_is_killed_while_all_download(hub: HubServer, tmp_path: Path) -> None:
    """What it had claimed is taken over: the other three end, and only that comes again."""
    call = {"endpoint": hub.url, "cache": str(tmp_path / "cache"), "steps": STEPS}
    calls = [call | {"out": str(tmp_path / f"out{n}")} for n in range(WORKERS)]
    answers = together(calls, kill_first_when=lambda: len(downloads(hub)) >= 2)
    alone = {"cache": tmp_path / "alone", "out": tmp_path / "alone-out"}
    counted = downloads(hub)
    assert answers == [values(sweep(**call | alone))] * (WORKERS - 1)
    assert len(counted) == len(STEPS)
    again = counted.total() - len(STEPS)
    assert again <= WITHOUT_BUDGET, "no more than one process has under way"
