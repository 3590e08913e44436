"""A whole perplexity sweep against the best loop that transformers allows.

Each size has a record of its own, so that it can be measured alone.
"""

import functools
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from comparison import Comparison, Effort, Ours
from conftest import collecting
from forms import multiplied_dtypes, offered_dtypes, sweep_work
from random_series import RandomSeries
from roofline import Roofline
from transformers_peer import EXACT, Runner, best_sweep

import pythia_fast
from pythia_fast.suite import spec


@dataclass(frozen=True, slots=True)
class Form:
    """How much is swept, and in which of our data types, where they are offered."""

    checkpoints: int
    sequences: int
    tokens: int
    dtypes: tuple[str, ...]


BFLOAT16, TILES = ("bfloat16",), ("bfloat16", "split-bf16")
ALL = (*TILES, "float32")
FORMS = {
    "quick": {"70m": Form(2, 2, 256, ALL)},
    "standard": {"70m": Form(3, 2, 2048, ALL), "160m": Form(2, 2, 2048, BFLOAT16)},
    "full": {
        "70m": Form(8, 16, 2048, TILES),
        "160m": Form(8, 16, 2048, TILES),
        "410m": Form(8, 16, 2048, BFLOAT16),
    },
}
TARGETS = {"70m": 3.0, "160m": 2.5, "410m": 2.0}
MEAN_TARGET = 1e-4
"""Nats, of a checkpoint's mean loss."""
CHECKED = 2
"""Sequences of the first checkpoint whose losses are compared before anything is timed; or one
batch of the peer's, which is compiled for that."""
MOST_ERROR = {"float32": 1e-5, "split-bf16": 1e-5, "bfloat16": 1e-3}
"""Of their mean loss."""
REFERENCED = 2
"""Checkpoints of the whole form that the reference sweeps where it is not timed itself."""

Losses = npt.NDArray[np.float64]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each size of the effort's form."""
    metafunc.parametrize("size", FORMS[metafunc.config.getoption("--effort")])


@pytest.fixture
def comparison(
    request: pytest.FixtureRequest,
    size: str,
    effort: Effort,
    machine: dict[str, Any],
    roofline: Roofline,
) -> Iterator[Comparison]:
    """The comparisons of one size."""
    of_size = Comparison(f"sweep-{size}", effort, roofline)
    with collecting(request.config, of_size, machine) as collected:
        yield collected


def test_perplexity_sweep(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    random_series: RandomSeries,
    tmp_path: Path,
    size: str,
) -> None:
    """Ours beside the loop in its best setting; afterwards, the errors of all mean losses."""
    form, architecture = FORMS[effort.name][size], spec(size).architecture
    dtypes = [dtype for dtype in form.dtypes if dtype in multiplied_dtypes()] or ["float32"]
    reference = "split-bf16" if "split-bf16" in offered_dtypes() else "float32"
    series = random_series(size, form.checkpoints)
    paths = [series / f"step{step}" for step in range(form.checkpoints)]
    ids = np.random.default_rng(0).integers(0, 50_254, (form.sequences, form.tokens))
    ids_BT = torch.from_numpy(ids)
    runs = itertools.count()
    last: dict[str, Losses] = {}

    def sweep(dtype: str, checkpoints: int, sequences: int) -> Losses:
        result = pythia_fast.sweep(
            series,
            range(checkpoints),
            tokens=ids[:sequences],
            dtype=dtype,
            out=tmp_path / f"run{next(runs)}",
            progress=False,
        )
        last[dtype] = np.array(result.table["loss"].to_pylist())
        return last[dtype]

    def loop() -> None:
        last[name] = np.array(peer.sweep(paths, ids_BT))

    one = sweep(reference, 1, 1)
    np.testing.assert_allclose(one, Runner(EXACT).sweep(paths[:1], ids_BT[:1]), atol=1e-5)
    peer = best_sweep(comparison, f"transformers' loop, {size}", paths, ids_BT)
    name = f"transformers: {peer.setting}"
    checked = max(CHECKED, peer.setting.batch)
    exact = sweep(reference, 1, checked)
    started = time.perf_counter()
    np.testing.assert_allclose(peer.sweep(paths[:1], ids_BT[:checked]), exact, atol=3e-3)
    for dtype in dtypes:
        error = float(np.abs(sweep(dtype, 1, checked) - exact).max())
        assert error <= MOST_ERROR[dtype], dtype
    checked_s = time.perf_counter() - started

    case = f"{form.checkpoints} checkpoints of {size}, {form.sequences} x {form.tokens} tokens each"
    amount = (form.checkpoints, form.sequences, form.tokens)
    ours = [
        Ours(
            f"{case}, {dtype}",
            functools.partial(sweep, dtype, form.checkpoints, form.sequences),
            sweep_work(architecture, *amount, dtype),
            target={} if dtype == "float32" else {name: TARGETS[size]},
        )
        for dtype in dtypes
    ]
    comparison.run_all(
        benchmark,
        ours,
        {name: loop},
        cache="page cache warm",
        round_s=checked_s * form.checkpoints * form.sequences / checked,
        peer_work={name: sweep_work(architecture, *amount, peer.setting.dtype)},
    )
    if reference not in dtypes:
        sweep(reference, min(REFERENCED, form.checkpoints), form.sequences)
    compared = len(last[reference])
    for who in [dtype for dtype in (*dtypes, name) if dtype != reference]:
        error = float(np.abs(last[who][:compared] - last[reference]).max())
        comparison.note(
            f"{case}, {who}",
            {
                "checkpoints_compared": compared,
                "with": f"ours, {reference}",
                "mean_nll_error": error,
                "asked_of_it": MEAN_TARGET,
            },
        )
