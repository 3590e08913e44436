"""A whole series over a network that fails, onto a disk that is too small.

154 tiny checkpoints; one answer in a hundred is spoiled, by every kind of fault that the local Hub
has: statuses, hangs, stalls, cut bodies, flipped bits, slow bodies, whole files in the place of
ranges, listings that end too early. There is room for three checkpoints.
"""

from pathlib import Path

import pytest
from comparison import Comparison, Effort
from driver import SHAPE
from soak import soak

from pythia_fast.suite import STEPS
from pythia_fast.testing import make_series


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_soak(comparison: Comparison, effort: Effort, tmp_path: Path, seed: int) -> None:
    """The results are those of an undisturbed sweep; where a step failed, the call comes again."""
    steps = STEPS[:20] if effort.name == "quick" else STEPS
    folder = make_series(tmp_path / "series", SHAPE, steps)
    soaked = soak(folder, steps, tmp_path, rate=0.01, seed=seed)
    assert soaked.rows == soaked.expected
    comparison.note(
        f"{len(steps)} checkpoints, 1% of all answers spoiled, room for three, seed {seed}",
        {
            "requests": soaked.requests,
            "spoiled": sum(soaked.spoiled.values()),
            "kinds": ", ".join(f"{kind} {n}" for kind, n in sorted(soaked.spoiled.items())),
            "failures": soaked.failures,
            "calls": soaked.calls,
            "budget_mb": soaked.budget_bytes / 1e6,
            "most_mb": soaked.most_bytes / 1e6,
            "elapsed_s": soaked.elapsed_s,
            "undisturbed_s": soaked.undisturbed_s,
        },
    )
