"""The small cases run: on a GPU for compute-sanitizer (`make sanitize-gpu`), here interpreted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.usefixtures("kernel_device")
def test_all_small_cases_are_right():
    script = Path(__file__).with_name("small_cases.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 30
