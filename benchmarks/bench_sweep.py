"""A whole perplexity sweep against the best loop that transformers allows."""

import functools
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from comparison import Comparison, Effort, Ours
from conftest import MakeSeries
from forms import offered_dtypes, sweep_work
from transformers_peer import EXACT, Runner, best_sweep

import pythia_fast
from pythia_fast.suite import spec

# (checkpoints, sequences, tokens of each) by effort and size.
FORMS = {
    "quick": {"70m": (2, 1, 256)},
    "standard": {"70m": (3, 2, 2048), "160m": (2, 2, 2048), "410m": (2, 1, 2048)},
    "full": {"70m": (8, 16, 2048), "160m": (8, 16, 2048), "410m": (8, 16, 2048)},
}
TARGETS = {"70m": 3.0, "160m": 2.5, "410m": 2.0}
CHECKED = 2
"""Checkpoints whose mean losses are compared, before all are timed."""
MOST_ERROR = {"float32": 1e-5, "split-bf16": 1e-5, "bfloat16": 1e-3}
"""Of a checkpoint's mean loss, against float32."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each size of the effort's form."""
    metafunc.parametrize("size", FORMS[metafunc.config.getoption("--effort")])


def test_perplexity_sweep(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    random_series: MakeSeries,
    tmp_path: Path,
    size: str,
) -> None:
    """Ours in every data type beside the loop in its best setting."""
    form = FORMS[effort.name][size]
    checkpoints, sequences, tokens = form
    series = random_series(size, checkpoints)
    paths = [series / f"step{step}" for step in range(checkpoints)]
    ids = np.random.default_rng(0).integers(0, 50_254, (sequences, tokens))
    ids_BT = torch.from_numpy(ids)
    runs = itertools.count()

    def sweep(dtype: str, steps: range | str = "all") -> npt.NDArray[np.float64]:
        out = tmp_path / f"run{next(runs)}"
        result = pythia_fast.sweep(series, steps, tokens=ids, dtype=dtype, out=out, progress=False)
        return np.array(result.table["loss"].to_pylist())

    one = pythia_fast.load(series, 0, dtype="float32").nll(ids[:1]).double().mean()
    np.testing.assert_allclose(one, Runner(EXACT).sweep(paths[:1], ids_BT[:1])[0], atol=1e-5)
    exact = sweep("float32", range(CHECKED))
    peer = best_sweep(comparison, f"transformers' loop, {size}", paths, ids_BT)
    name = f"transformers: {peer.setting}"
    started = time.perf_counter()
    np.testing.assert_allclose(peer.sweep(paths[:CHECKED], ids_BT), exact, atol=3e-3)
    case = f"{checkpoints} checkpoints of {size}, {sequences} x {tokens} tokens each"
    ours = []
    for dtype in offered_dtypes():
        if dtype == "float32" and effort.name == "full":
            continue  # hours; the standard form times it
        error = float(np.abs(sweep(dtype, range(CHECKED)) - exact).max())
        assert error <= MOST_ERROR[dtype], dtype
        ours.append(
            Ours(
                f"{case}, {dtype}",
                functools.partial(sweep, dtype),
                sweep_work(spec(size).architecture, *form, dtype),
                target={} if dtype == "float32" else {name: TARGETS[size]},
                numbers={"largest_error_of_a_mean_nll": error},
            )
        )
    checked_s = time.perf_counter() - started
    comparison.run_all(
        benchmark,
        ours,
        {name: lambda: peer.sweep(paths, ids_BT)},
        cache="page cache warm",
        round_s=checked_s * checkpoints / CHECKED,
        peer_work={name: sweep_work(spec(size).architecture, *form, peer.setting.dtype)},
    )
