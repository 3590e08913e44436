"""A whole perplexity sweep against the loop that everyone writes."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison import Comparison
from transformers import GPTNeoXForCausalLM

import pythia_fast

STEPS, SEQUENCES, TOKENS = 8, 8, 2048


@pytest.fixture(scope="module")
def ids() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 50_254, (SEQUENCES, TOKENS))


def transformers_loop(
    series: Path, ids: torch.Tensor, dtype: torch.dtype, batch: int
) -> list[float]:
    """One `from_pretrained` a checkpoint, SDPA attention, the loss from the model itself."""
    losses = []
    for step in range(STEPS):
        model = GPTNeoXForCausalLM.from_pretrained(
            series / f"step{step}", dtype=dtype, attn_implementation="sdpa"
        ).eval()
        with torch.inference_mode():
            parts = [model(part, labels=part).loss.item() for part in ids.split(batch)]
        losses.append(float(np.mean(parts)))
    return losses


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_perplexity_sweep(
    benchmark: Any,
    comparison: Comparison,
    series_70m: Path,
    ids: np.ndarray[Any, Any],
    tmp_path: Path,
    dtype: str,
) -> None:
    """Ours in `dtype` against the loop in the data type and batch size that suit it best."""
    ids_BT = torch.from_numpy(ids)
    runs = iter(range(1_000_000))

    def ours() -> list[float]:
        result = pythia_fast.sweep(
            series_70m, tokens=ids, dtype=dtype, out=tmp_path / str(next(runs)), progress=False
        )
        return [float(loss) for loss in result.table["loss"].to_pylist()]

    exact = transformers_loop(series_70m, ids_BT, torch.float32, 1)
    np.testing.assert_allclose(ours(), exact, atol=1e-5 if dtype == "float32" else 1e-3)
    name, peer = best_peer(series_70m, ids_BT)
    comparison.run(
        benchmark,
        f"{STEPS} checkpoints of 70m, {SEQUENCES} x {TOKENS} tokens each, {dtype}",
        ours,
        {name: peer},
        rounds=5,
        cache="page cache warm",
    )


@functools.cache
def best_peer(series: Path, ids: torch.Tensor) -> tuple[str, Callable[[], list[float]]]:
    """The fastest of the loop's settings: both data types, one or four sequences at once."""
    timed = []
    for dtype in (torch.bfloat16, torch.float32):
        for batch in (1, 4):
            loop = functools.partial(transformers_loop, series, ids, dtype, batch)
            started = time.perf_counter()
            loop()
            name = f"from_pretrained loop, sdpa, {str(dtype).removeprefix('torch.')}, batch {batch}"
            timed.append((time.perf_counter() - started, name, loop))
    return min(timed, key=lambda setting: setting[0])[1:]
