"""Whichever write, fsync, rename or network call fails: right results, or a right error."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import REPO, SHAPE, sweep, values

from pythia_fast.testing import HubServer, make_series

HERE = Path(__file__).parent
STEPS = (0, 1, 2)
KINDS = ("write", "fsync", "rename", "network")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("shim") / "failing_calls.so"
    source = HERE / "failing_calls.c"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", built, source, "-ldl"], check=True)
    return built


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """Step 1 has the weights of step 0, as in every model of the suite."""
    folder = make_series(tmp_path_factory.mktemp("series"), SHAPE, (0, 2), formats=("torch",))
    branches = {"step0": "step0", "step1": "step0", "step2": "step2"}
    repository = {branch: folder / step for branch, step in branches.items()}
    with HubServer({REPO: repository}, redirect=True) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_the_nth_call_fails(
    hub: HubServer, shim: Path, kind: str, tmp_path: Path, long_form: bool
) -> None:
    """Of every call in the long form, else of every third."""
    apart = 1 if long_form else 3
    undisturbed = sweep(
        endpoint=hub.url, cache=tmp_path / "cache", out=tmp_path / "out", steps=STEPS
    )
    expected = values(undisturbed)
    request = {
        "kind": kind,
        "root": str(tmp_path),
        "endpoint": hub.url,
        "steps": STEPS,
        "apart": apart,
    }
    done = subprocess.run(
        [sys.executable, HERE / "each_call.py", json.dumps(request)],
        env=os.environ | {"LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["n"] for report in reports] == [*range(1, reports[-1]["n"] + 1, apart)]
    assert reports[-1]["n"] > 10, "hardly a call was counted"
    for report in reports:
        assert "died" not in report, (report, done.stderr)
        if "error" in report:
            assert report["promised"], report
        else:
            assert report["rows"] == expected, report
        assert report["rows_afterwards"] == expected, report
        assert report["leftovers"] == [], report
    assert reports[-1]["seen"] < reports[-1]["n"]
    print(f"{kind}: {len(reports) - 1} calls, {sum('error' in each for each in reports)} errors")
    if kind != "network":  # what the network does wrong is asked for again
        assert any("error" in report for report in reports), "no failure arrived"
