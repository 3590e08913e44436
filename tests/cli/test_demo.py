import json
import signal
import subprocess
import sys
import time

import pytest

from pythia_fast.demo import Recipe, run_demo

SMALL = Recipe(
    steps=80,
    batch_rows=2,
    tokens=64,
    repetitions=(0, 64),
    canaries_each=1,
    decay_steps=40,
    swept_rows=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo"
    run_demo(path, recipe=SMALL, progress=False, say=lambda _: None)
    return path


def test_a_demo_that_is_there_is_told_again(run, folder):
    result = run("demo", "--folder", folder)
    assert "is there, trained for 80 steps" in result.stderr
    assert "perplexity" in result.stdout
    assert "texts planted 64 times end memorized: 100%" in result.stdout


def test_in_json_standard_output_holds_nothing_else(run, folder):
    found = json.loads(run("demo", "--folder", folder, "--json").stdout)
    assert found["found"]
    assert found["trained_steps"] == 80
    assert found["steps"][-1]["memorized"] == {"0": 0.0, "64": 1.0}
    assert all(promise["kept"] for promise in found["promises"])


def test_a_demo_that_does_not_keep_its_promises_ends_with_4(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pythia_fast", "demo", "--seconds", "0.001"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "THE DEMO FAILED" in done.stdout
    assert "ran out of time and stopped at step 1 of 600" in done.stdout
    assert (tmp_path / "demo" / "demo.json").exists()


def test_an_interrupt_while_training_ends_with_130_and_leaves_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "pythia_fast", "demo"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        give_up = time.monotonic() + 60
        while not list(tmp_path.rglob("step1")) and time.monotonic() < give_up:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr.splitlines()[-1] == "pythia-fast: interrupted"
    assert list(tmp_path.iterdir()) == []
