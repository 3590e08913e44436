"""A whole perplexity sweep against the loop that everyone writes."""

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
    """Ours in `dtype` against the loop in both data types and with several batch sizes."""
    ids_BT = torch.from_numpy(ids)
    runs = iter(range(1_000_000))

    def ours() -> list[float]:
        result = pythia_fast.sweep(
            series_70m, tokens=ids, dtype=dtype, out=tmp_path / str(next(runs)), progress=False
        )
        return [float(loss) for loss in result.table["loss"].to_pylist()]

    exact = transformers_loop(series_70m, ids_BT, torch.float32, 1)
    np.testing.assert_allclose(ours(), exact, atol=1e-5 if dtype == "float32" else 1e-3)
    peers = {
        f"from_pretrained loop, {name}, batch {batch}": (
            lambda kind=kind, batch=batch: transformers_loop(series_70m, ids_BT, kind, batch)
        )
        for name, kind in (("bfloat16", torch.bfloat16), ("float32", torch.float32))
        for batch in (1, 4)
    }
    comparison.run(
        benchmark,
        f"{STEPS} checkpoints of 70m, {SEQUENCES} x {TOKENS} tokens each, {dtype}",
        ours,
        peers,
        rounds=3,
        cache="page cache warm",
    )
