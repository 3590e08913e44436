"""A sweep takes no more memory than two checkpoints and a constant, however many there are."""

import json
import subprocess
import sys
from pathlib import Path

from pythia_fast.suite import spec
from pythia_fast.testing import HubServer, make_series

STEPS = (0, 1, 2, 4, 8, 16)
CONSTANT_BYTES = 96 * 2**20
"""For two threads: activations, buffers of network and reader, and what is imported late."""


def test_two_checkpoints_and_a_constant(tmp_path: Path) -> None:
    model = spec("14m")
    folder = make_series(tmp_path / "series", model.architecture, STEPS, formats=("torch",))
    branches = {f"step{step}": folder / f"step{step}" for step in STEPS}
    stored_bytes = max((path / "pytorch_model.bin").stat().st_size for path in branches.values())
    resident_bytes = 4 * model.architecture.parameters  # in float32
    most_bytes = 2 * resident_bytes + CONSTANT_BYTES
    assert most_bytes < len(STEPS) * resident_bytes, "one that keeps all would not be noticed"
    with HubServer({model.repo: branches}) as hub:
        call = {
            "endpoint": hub.url,
            "cache": str(tmp_path / "cache"),
            "out": str(tmp_path / "out"),
            "steps": STEPS,
            "disk_budget": 3 * stored_bytes,
        }
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("memory_child.py"), json.dumps(call)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    more_bytes = json.loads(done.stdout)["more_bytes"]
    print(
        f"{more_bytes / 1e6:.0f} MB for {len(STEPS)} checkpoints of {resident_bytes / 1e6:.0f} MB"
    )
    assert more_bytes <= most_bytes
