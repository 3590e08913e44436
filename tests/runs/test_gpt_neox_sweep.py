"""A sweep over GPT-NeoX's own checkpoints gives what one over the Hub's layout gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pythia_fast.suite import Architecture
from pythia_fast.testing import make_gpt_neox_series


@pytest.mark.parametrize(("ranks", "layout"), [(1, "layers"), (2, "ranks"), (4, "layers")])
def test_results_are_the_same(
    small_sweep, tiny: Architecture, tmp_path: Path, ranks: int, layout: Any
) -> None:
    steps = (0, 1, 2, 4, 8, 16)
    expected = small_sweep().to_pandas()
    folder = make_gpt_neox_series(
        tmp_path / "neox", tiny, steps, seed=7, model_parallel=ranks, layout=layout
    )
    found = small_sweep(model=folder, out=tmp_path / "neox-run").to_pandas()
    assert list(found["step"]) == list(expected["step"])
    values = [name for name in found.columns if found[name].dtype == np.float64]
    values += [name for name in found.columns if found[name].dtype == np.float32]
    assert values
    for name in values:
        assert np.array_equal(found[name], expected[name], equal_nan=True)
