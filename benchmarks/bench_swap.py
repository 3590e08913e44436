"""A checkpoint from the page cache into the resident arena, and how long the model waits for it."""

import statistics
import time
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison import Comparison
from random_series import RandomSeries
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.model import Weights
from pythia_fast.series import open_series
from pythia_fast.series.write import CheckpointFormat
from pythia_fast.suite import Architecture

FORMATS: dict[str, CheckpointFormat] = {"safetensors": "safetensors", "pytorch_model.bin": "torch"}
STEPS = range(4)
"""They are read by turns, as in a sweep: a file that was read just before would lie in the
processor's cache."""

CHECKPOINTS, SEQUENCES, TOKENS = 5, 8, 2049
"""Of the sweep."""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_swap(
    benchmark: Any,
    comparison: Comparison,
    random_series: RandomSeries,
    shape_of_70m: Architecture,
    dtype: str,
    format: str,
) -> None:
    """In float16 `from_pretrained` copies nothing of a safetensors file: it maps it."""
    kind: torch.dtype = getattr(torch, dtype)
    folder = random_series("70m", len(STEPS), FORMATS[format])
    series = open_series(folder)
    weights = Weights(shape_of_70m, dtype=kind)
    source = torch.ones(weights.flat.nbytes, dtype=torch.uint8)
    target = torch.zeros_like(source)
    our_turn, their_turn = cycle(STEPS), cycle(STEPS)

    def swap() -> None:
        weights.load(series.open(next(our_turn)))

    def from_pretrained() -> GPTNeoXForCausalLM:
        return GPTNeoXForCausalLM.from_pretrained(folder / f"step{next(their_turn)}", dtype=kind)

    def memcpy() -> None:
        target.copy_(source)

    for _ in STEPS:
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
        target={"memcpy of the arena's bytes": 0.9},
        cache="page cache warm, another step each time",
    )


class Clocked(pythia_fast.Perplexity):
    """Perplexity that notes when the model begins and ends to compute."""

    __slots__ = ()

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> Any:
        """The same, on the clock."""
        begin_s = time.perf_counter()
        columns = super().__call__(model, batch)
        CALLS.append((model.step, begin_s, time.perf_counter()))
        return columns


CALLS: list[tuple[int | None, float, float]] = []


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_idle_between_checkpoints(
    comparison: Comparison, random_series: RandomSeries, tmp_path: Path, dtype: str
) -> None:
    """A whole sweep: reading, hashing and writing have to fit beside the arithmetic.

    In bfloat16, where there is least of that.
    """
    series = random_series("70m", CHECKPOINTS)
    ids_BT = np.random.default_rng(0).integers(0, 50_277, (SEQUENCES, TOKENS), dtype=np.uint16)
    expected: dict[int, float] = {}
    alone_s = []
    for step, model in pythia_fast.stream(series, [0, 1, 2], dtype=dtype):
        time.sleep(1)  # until the next checkpoint is read
        begin_s = time.perf_counter()
        expected[step] = float(model.nll(ids_BT).double().mean())
        alone_s.append(time.perf_counter() - begin_s)

    CALLS.clear()
    result = pythia_fast.sweep(
        series,
        range(CHECKPOINTS),
        tokens=ids_BT,
        metrics=[Clocked()],
        dtype=dtype,
        out=tmp_path,
        progress=False,
    )
    rows = {row["step"]: row["loss"] for row in result.table.to_pylist()}
    for step, loss in expected.items():
        assert rows[step] == pytest.approx(loss, rel=1e-9)
    steps = sorted({step for step, _, _ in CALLS})
    assert steps == list(range(CHECKPOINTS))
    begin_s = {n: min(begin for step, begin, _ in CALLS if step == n) for n in steps}
    end_s = {n: max(end for step, _, end in CALLS if step == n) for n in steps}
    idle_s = [begin_s[b] - end_s[a] for a, b in pairwise(steps)]
    share = [(begin_s[b] - end_s[a]) / (begin_s[b] - begin_s[a]) for a, b in pairwise(steps)]
    beside_s = [end_s[n] - begin_s[n] for n in steps[:-1]]
    comparison.note(
        f"70m, {SEQUENCES} x {TOKENS - 1} tokens a step, {dtype}: between two checkpoints",
        {
            "idle_median_s": statistics.median(idle_s),
            "idle_max_s": max(idle_s),
            "idle_share_median": statistics.median(share),
            "idle_share_max": max(share),
            "idle_share_target": 0.02,
            "step_alone_s": statistics.median(alone_s),
            "step_while_reading_and_hashing_s": statistics.median(beside_s),
            "cpu_of_reading_and_hashing_s": _background_s(series, dtype),
        },
    )


def _background_s(folder: Path, dtype: str) -> float:
    """Processor time that one thread takes to read and to hash a checkpoint."""
    series = open_series(folder)
    weights = Weights(series.spec.architecture, dtype=getattr(torch, dtype))
    spent_s = []
    for step in STEPS:
        begin_s = time.thread_time()
        checkpoint = series.open(step)
        weights.load(checkpoint, threads=1)
        assert len(checkpoint.weights_sha256) == 64
        spent_s.append(time.thread_time() - begin_s)
    return statistics.median(spent_s)
