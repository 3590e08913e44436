"""Sweeps over the arenas of a GPU that is played, and what a GPU that breaks leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import fake_gpu
from gpu_arenas import KINDS, arenas_of

import pythia_fast
from pythia_fast.errors import SweepError
from pythia_fast.runs import pipeline
from pythia_fast.streaming import prefetching
from pythia_fast.streaming.arenas import Arenas
from pythia_fast.streaming.prefetching import Loaded, NotLoaded
from pythia_fast.suite import Architecture

BROKEN = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_over_a_gpus_arenas_has_the_results_of_a_cpus(
    small_sweep: Callable[..., pythia_fast.SweepResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    expected = small_sweep(out=tmp_path / "cpu", dtype="float32")
    with fake_gpu(inline=True) as gpu:

        def on_gpu(shape: Architecture, *_: Any, **__: Any) -> Arenas:
            return arenas_of(gpu, shape, kind, torch.float32)

        monkeypatch.setattr(pipeline, "make_arenas", on_gpu)
        found = small_sweep(out=tmp_path / "gpu", dtype="float32")
        assert gpu.copies > len(expected.table)
    assert found.table.equals(expected.table)
    assert found.sequences.equals(expected.sequences)


class Breaking(pythia_fast.Perplexity):
    """Finds at step 4 that the GPU is broken."""

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
        if model.step == 4:
            raise BROKEN
        return dict(super().__call__(model, batch))


@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_a_cuda_error_ends_the_sweep_and_keeps_what_is_finished(
    small_sweep: Callable[..., pythia_fast.SweepResult], tmp_path: Path, on_error: str
) -> None:
    words = r"step 4 failed: AcceleratorError: .*illegal memory.* cannot use the GPU any more"
    with pytest.raises(SweepError, match=words) as raised:
        small_sweep(metrics=[Breaking()], on_error=on_error)
    assert raised.value.__cause__ is BROKEN
    kept = pythia_fast.SweepResult(tmp_path / "run")
    assert kept.table["step"].to_pylist() == [0, 1, 2]
    assert [(failure.step, failure.error) for failure in kept.failures] == [(4, "AcceleratorError")]


def test_a_cuda_error_while_loading_ends_the_sweep_too(
    small_sweep: Callable[..., pythia_fast.SweepResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = prefetching._load

    def breaking(series: Any, step: int, *arguments: Any) -> Loaded | NotLoaded:
        return NotLoaded(step, BROKEN) if step == 2 else load(series, step, *arguments)

    monkeypatch.setattr(prefetching, "_load", breaking)
    with pytest.raises(SweepError, match="step 2 failed"):
        small_sweep(on_error="skip")
    assert pythia_fast.SweepResult(tmp_path / "run").table["step"].to_pylist() == [0, 1]
