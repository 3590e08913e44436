"""Two processes do one sweep, in one run folder and with one store, at the same time."""

import json
import subprocess
import sys
from pathlib import Path

from driver import REPO, SHAPE, sweep, values
from soak import SLACK_BYTES, Watch, weights_bytes

from pythia_fast.testing import HubServer, make_series

STEPS = (0, 1, 2, 4, 8, 16, 32, 64)


def test_one_run_folder_and_one_store(tmp_path: Path) -> None:
    folder = make_series(tmp_path / "series", SHAPE, STEPS)
    branches = {f"step{step}": folder / f"step{step}" for step in STEPS}
    budget_bytes = 3 * max(weights_bytes(step) for step in branches.values())
    with HubServer({REPO: branches}, latency_s=0.01, bytes_per_s=2e6) as hub:
        call = {"endpoint": hub.url, "steps": STEPS, "disk_budget": budget_bytes}
        together = {"cache": str(tmp_path / "cache"), "out": str(tmp_path / "out")}
        command = [sys.executable, Path(__file__).with_name("driver.py")]
        with Watch(tmp_path / "cache") as watch:
            both = [
                subprocess.Popen(
                    [*command, json.dumps(call | together)], stdout=subprocess.PIPE, text=True
                )
                for _ in range(2)
            ]
            answers = [json.loads(process.communicate()[0]) for process in both]
        expected = values(sweep(cache=tmp_path / "alone", out=tmp_path / "alone-out", **call))
    assert answers == [expected, expected]
    assert 0 < watch.most_bytes <= budget_bytes + SLACK_BYTES
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]


BESIDE = """
import json, pathlib, sys, time
import numpy as np
import pythia_fast

call = json.loads(sys.argv[1])
log, other = pathlib.Path(call["log"]), pathlib.Path(call["other"])

class Slow:
    name = "slow"

    def __call__(self, model, batch):
        time.sleep(0.25)
        with log.open("a") as file:
            file.write(f"{model.step}\\n")
        return {"found": batch.rows_B + model.step}

log.touch()
while not other.exists():
    time.sleep(0.01)
pythia_fast.sweep(
    call["model"], tokens=np.arange(8).reshape(1, 8), metrics=[Slow()], out=call["out"],
    progress=False, device="cpu", dtype="float32",
)
"""


def test_who_comes_later_begins_elsewhere(tmp_path: Path) -> None:
    """Nobody coordinates them, and still hardly a step is computed by both."""
    series = make_series(tmp_path / "series", SHAPE, range(0, 24_000, 1000))
    logs = [tmp_path / "a", tmp_path / "b"]
    processes = []
    for log, other in (logs, logs[::-1]):
        call = {"model": str(series), "out": str(tmp_path / "out")}
        call |= {"log": str(log), "other": str(other)}
        processes.append(subprocess.Popen([sys.executable, "-c", BESIDE, json.dumps(call)]))
    assert [process.wait() for process in processes] == [0, 0]
    computed = [[int(step) for step in log.read_text().split()] for log in logs]
    assert {*computed[0], *computed[1]} == set(range(0, 24_000, 1000))
    assert min(map(len, computed)) >= 6
    assert sum(map(len, computed)) <= 24 + 6
