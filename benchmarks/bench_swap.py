"""A checkpoint from the page cache into the resident arena."""

from pathlib import Path
from typing import Any

import pytest
import torch
from comparison import Comparison
from transformers import GPTNeoXForCausalLM

from pythia_fast.model import Weights
from pythia_fast.series import open_series
from pythia_fast.suite import Architecture

FORMATS = {"safetensors": 2, "pytorch_model.bin": 3}
"""The steps of the series that have these files."""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_swap(
    benchmark: Any,
    comparison: Comparison,
    series_70m: Path,
    shape_of_70m: Architecture,
    dtype: str,
    format: str,
) -> None:
    """In float16 `from_pretrained` copies nothing of a safetensors file: it maps it."""
    kind: torch.dtype = getattr(torch, dtype)
    series, step = open_series(series_70m), FORMATS[format]
    weights = Weights(shape_of_70m, dtype=kind)
    source = torch.zeros(weights.flat.nbytes, dtype=torch.uint8)
    target = torch.zeros_like(source)

    def swap() -> None:
        weights.load(series.open(step))

    def from_pretrained() -> GPTNeoXForCausalLM:
        return GPTNeoXForCausalLM.from_pretrained(series_70m / f"step{step}", dtype=kind)

    def memcpy() -> None:
        target.copy_(source)

    swap()
    theirs = from_pretrained().state_dict()
    theirs["embed_out.weight"] = theirs.pop("lm_head.weight")
    for name, tensor in weights.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    comparison.run(
        benchmark,
        f"70m, float16 {format} to {dtype} arena",
        swap,
        {"from_pretrained": from_pretrained, "memcpy of the arena's bytes": memcpy},
        rounds=15,
        cache="page cache warm",
    )
