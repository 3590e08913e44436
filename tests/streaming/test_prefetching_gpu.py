"""Checkpoints flow to a GPU while it computes; what flows is tried on one that takes its time."""

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import FakeGpu, fake_gpu
from gpu_arenas import KINDS, arenas_of

from pythia_fast.model import Weights
from pythia_fast.series import LocalSeries
from pythia_fast.streaming.prefetching import Loaded, NotLoaded, prefetch
from pythia_fast.suite import Architecture

STEPS = (0, 1, 2, 4, 8, 16)


@pytest.fixture(scope="module")
def checkpoints(tiny: Architecture, tiny_series: Path) -> dict[int, torch.Tensor]:
    """What a CPU's arena holds after each step."""
    found, weights, series = {}, Weights(tiny, dtype=torch.float16), LocalSeries(tiny_series)
    for step in STEPS:
        weights.load(series.open(step))
        found[step] = weights.flat.clone()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("slow", ["copies", "computing"])
def test_each_step_is_computed_with_its_own_weights(
    tiny: Architecture,
    tiny_series: Path,
    checkpoints: dict[int, torch.Tensor],
    kind: str,
    seed: int,
    slow: str,
) -> None:
    """The thread that computes never waits for the GPU: only events keep the steps apart."""
    copy_s, compute_s = (2e-3, 2e-4) if slow == "copies" else (1e-4, 5e-3)
    with fake_gpu(seed, copy_s=copy_s, compute_s=compute_s) as gpu:
        arenas = arenas_of(gpu, tiny, kind)
        seen: dict[int, list[torch.Tensor]] = {}
        for loaded in prefetch(
            *(LocalSeries(tiny_series), deque(STEPS), arenas.loading),
            hashed=False,
            poured_into=arenas.poured_into,
        ):
            assert isinstance(loaded, Loaded)
            if arenas.poured_into is not None:
                assert loaded.weights is arenas.resident
            of_step = seen.setdefault(loaded.step, [])
            for _ in range(2):
                compute(gpu, loaded.weights, of_step)
        gpu.finish()
        for step in STEPS:
            first, second = torch.cat(seen[step]).chunk(2)
            assert torch.equal(first, checkpoints[step]), step
            assert torch.equal(second, checkpoints[step]), step


def compute(gpu: FakeGpu, weights: Weights, seen: list[torch.Tensor]) -> None:
    """Let the GPU look at the weights, layer by layer."""
    for i, (begin, end) in enumerate(weights.layout.parts):
        weights.await_layer(i - 1)
        part = weights.flat[begin:end]
        gpu.compute(lambda part=part: seen.append(part.clone()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_cannot_be_loaded_is_left_out(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor], kind: str
) -> None:
    class Failing(LocalSeries):
        def open(self, step: int) -> Any:
            if step in (0, 2, 16):
                raise FileNotFoundError(step)
            return super().open(step)

    with fake_gpu() as gpu:
        arenas = arenas_of(gpu, tiny, kind)
        found, seen = [], {}
        for each in prefetch(
            *(Failing(tiny_series), deque(STEPS), arenas.loading),
            hashed=False,
            poured_into=arenas.poured_into,
        ):
            if isinstance(each, NotLoaded):
                found.append(each.step)
            else:
                compute(gpu, each.weights, seen.setdefault(each.step, []))
        gpu.finish()
        assert found == [0, 2, 16]
        for step, parts in seen.items():
            assert torch.equal(torch.cat(parts), checkpoints[step])
        assert list(seen) == [1, 4, 8]


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_that_breaks_is_told_of_the_steps_that_follow(
    tiny: Architecture, tiny_series: Path, kind: str
) -> None:
    """Whoever meets it, the thread that loads or the one that computes: nothing hangs."""
    with fake_gpu() as gpu:
        arenas = arenas_of(gpu, tiny, kind)
        loaded, errors = [], []
        for each in prefetch(
            *(LocalSeries(tiny_series), deque(STEPS), arenas.loading),
            hashed=False,
            poured_into=arenas.poured_into,
        ):
            if isinstance(each, Loaded):
                loaded.append(each.step)
                gpu.broken = each.step == 1
            else:
                errors.append(each.error)
        assert loaded[:2] == [0, 1]
        assert len(loaded) <= 3  # one may have been there already
        assert len(errors) == len(STEPS) - len(loaded)
        assert all(isinstance(error, torch.AcceleratorError) for error in errors)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_left_early_leaves_arenas_that_can_be_used(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor], kind: str
) -> None:
    series = LocalSeries(tiny_series)
    with fake_gpu() as gpu:
        arenas = arenas_of(gpu, tiny, kind)
        for leave_at in (0, 1, 4):
            coming = prefetch(
                *(series, deque(STEPS), arenas.loading),
                hashed=False,
                poured_into=arenas.poured_into,
            )
            seen: list[torch.Tensor] = []
            for loaded in coming:
                if loaded.step == leave_at:
                    compute(gpu, loaded.weights, seen)
                    break
            coming.close()
            gpu.finish()
            assert torch.equal(torch.cat(seen), checkpoints[leave_at])
