"""The benchmark's clock and its records, which a rehearsal has none of."""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
import torch
from on_gpu.clock import EventClock


def test_a_theme_leaves_its_record(tmp_path: Path):
    command = [sys.executable, gpu.__file__, "--theme", "ceilings", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.iterdir()
    theme, name, _ = path.stem.split("_")
    kept = json.loads(path.read_text())
    assert theme == kept["theme"] == "gpu-ceilings"
    assert name.replace("-", " ") in kept["machine"]["gpu"].lower().replace("-", " ")
    assert {"driver", "triton", "torch", "cuda"} <= set(kept["machine"])
    peaks = kept["roofline"]["peaks"]
    assert peaks["float16_product_flop_per_s"] > 1e13
    assert peaks["device_copy_byte_per_s"] > 10 * peaks["pinned_to_device_byte_per_s"] > 1e10


def test_events_agree_with_a_known_time(cuda):
    """A wait of so many cycles, beside one that is twice as long; a replay costs the same."""
    clock = EventClock(cuda)
    calls, launched = {}, set()
    for name, cycles in (("once", 4_000_000), ("twice", 8_000_000)):
        calls[name], how = clock.ready(lambda cycles=cycles: torch.cuda._sleep(cycles))
        launched.add(how)
    assert launched == {"graph"}
    times = clock.rounds(calls, 9)
    ratio = sorted(times["twice"])[4] / sorted(times["once"])[4]
    assert ratio == pytest.approx(2, rel=0.1)


def test_a_call_that_looks_at_a_number_is_launched_as_it_is(cuda):
    numbers = torch.ones(8, device=cuda)
    _, how = EventClock(cuda).ready(lambda: float(numbers.sum()))
    assert how == "eager"
    _, how = EventClock(cuda).ready(lambda: numbers.sum())
    assert how == "graph"
