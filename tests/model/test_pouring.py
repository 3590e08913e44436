"""An arena of the host, poured into a GPU's layer by layer while it computes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_gpu import FakeGpu, fake_gpu

from pythia_fast.errors import ArgumentError
from pythia_fast.model import Weights
from pythia_fast.model.ring import Ring
from pythia_fast.series import LocalSeries
from pythia_fast.suite import Architecture

SEEDS = range(3)


@pytest.fixture(scope="module")
def checkpoints(tiny: Architecture, tiny_series: Path) -> dict[int, torch.Tensor]:
    """What a CPU's arena holds after each step."""
    found, weights, series = {}, Weights(tiny, dtype=torch.float16), LocalSeries(tiny_series)
    for step in (1, 2, 4):
        weights.load(series.open(step))
        found[step] = weights.flat.clone()
    return found


def arenas(gpu: FakeGpu, shape: Architecture) -> tuple[Weights, Weights]:
    """One of the GPU, and one of the host."""
    on_gpu = Weights(shape, dtype=torch.float16, ring=Ring(gpu, slot_bytes=1 << 16))
    return on_gpu, Weights(shape, dtype=torch.float16, pinned_by=gpu)


def copy_of(gpu: FakeGpu, weights: Weights) -> Callable[[], torch.Tensor]:
    """Let the computing stream copy the arena; the result is there when the stream has done so."""
    seen: list[torch.Tensor] = []
    gpu.compute(lambda: seen.append(weights.flat.clone()))
    return lambda: seen[0]


def copy_by_layers(gpu: FakeGpu, weights: Weights) -> list[torch.Tensor]:
    """As a forward pass does: each part of the arena is read when it has been waited for."""
    seen: list[torch.Tensor] = []
    for i, (begin, end) in enumerate(weights.layout.parts):
        weights.await_layer(i - 1)
        gpu.compute(lambda begin=begin, end=end: seen.append(weights.flat[begin:end].clone()))
    return seen


@pytest.mark.parametrize("seed", SEEDS)
def test_a_forward_pass_finds_each_layer_when_it_has_waited_for_it(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor], seed: int
) -> None:
    with fake_gpu(seed, copy_s=8e-3, compute_s=1e-3) as gpu:
        on_gpu, host = arenas(gpu, tiny)
        host.load(LocalSeries(tiny_series).open(1))
        on_gpu.pour(host)
        seen = copy_by_layers(gpu, on_gpu)
        gpu.finish()
        assert torch.equal(torch.cat(seen), checkpoints[1])
        assert on_gpu.generation == 1


def test_layers_are_computed_with_before_the_last_have_come(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor]
) -> None:
    with fake_gpu() as gpu:
        on_gpu, host = arenas(gpu, tiny)
        assert on_gpu.arrived
        host.load(LocalSeries(tiny_series).open(1))
        gpu.copying.hold_after = 1
        on_gpu.pour(host)
        begin, end = on_gpu.layout.parts[0]
        on_gpu.await_layer(-1)
        embedding: list[torch.Tensor] = []
        gpu.compute(lambda: embedding.append(on_gpu.flat[begin:end].clone()))
        gpu.computed().synchronize()
        assert torch.equal(embedding[0], checkpoints[1][begin:end])
        assert gpu.copying.under_way == len(on_gpu.layout.parts) - 1
        assert not on_gpu.arrived
        on_gpu.await_layer(tiny.layers)
        seen = copy_of(gpu, on_gpu)
        gpu.copying.goes_on.set()
        gpu.finish()
        assert on_gpu.arrived
        assert torch.equal(seen(), checkpoints[1])


@pytest.mark.parametrize("name", ["views", "layers", "embed_VD", "final_norm", "unembed_VD"])
def test_who_does_not_know_of_pouring_waits_for_all(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor], name: str
) -> None:
    with fake_gpu(copy_s=8e-3, compute_s=1e-4) as gpu:
        on_gpu, host = arenas(gpu, tiny)
        host.load(LocalSeries(tiny_series).open(1))
        on_gpu.pour(host)
        getattr(on_gpu, name)
        seen = copy_of(gpu, on_gpu)
        gpu.finish()
        assert torch.equal(seen(), checkpoints[1])


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_computed_with_is_not_poured_over(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor], seed: int
) -> None:
    """And a host's arena is not loaded again before it has been poured."""
    series = LocalSeries(tiny_series)
    with fake_gpu(seed, copy_s=2e-3, compute_s=2e-2) as gpu:
        on_gpu, host = arenas(gpu, tiny)
        seen = []
        for step in (1, 2, 4, 1):
            host.load(series.open(step))
            on_gpu.pour(host)
            on_gpu.await_layer(tiny.layers)
            seen.append(copy_of(gpu, on_gpu))
        gpu.finish()
        for step, flat in zip((1, 2, 4, 1), seen, strict=True):
            assert torch.equal(flat(), checkpoints[step]), step


def test_a_load_by_another_way_comes_after_what_was_poured(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor]
) -> None:
    series = LocalSeries(tiny_series)
    with fake_gpu(copy_s=5e-3) as gpu:
        on_gpu, host = arenas(gpu, tiny)
        host.load(series.open(1))
        on_gpu.pour(host)
        on_gpu.load(series.open(2))
        assert on_gpu.arrived
        assert torch.equal(on_gpu.flat, checkpoints[2])


def test_arenas_that_differ_are_not_poured(tiny: Architecture) -> None:
    with fake_gpu() as gpu:
        on_gpu, host = arenas(gpu, tiny)
        for other in (
            Weights(tiny, dtype=torch.float32, pinned_by=gpu),
            Weights(tiny, dtype=torch.bfloat16, pinned_by=gpu),
            Weights(replace(tiny, layers=1), dtype=torch.float16, pinned_by=gpu),
        ):
            with pytest.raises(ArgumentError, match="cannot be poured"):
                on_gpu.pour(other)
        in_pages = Weights(tiny, dtype=torch.float16)
        for target, source in ((on_gpu, in_pages), (in_pages, host), (on_gpu, on_gpu)):
            with pytest.raises(ArgumentError, match="only pinned memory"):
                target.pour(source)
        assert gpu.copies == 0
        assert on_gpu.generation == 0


def test_the_fake_gpu_shows_that_copying_does_not_wait(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor]
) -> None:
    """Else nothing above would mean anything."""
    series = LocalSeries(tiny_series)
    with fake_gpu(without=frozenset({"copy_after"})) as gpu:
        on_gpu, host = arenas(gpu, tiny)
        host.load(series.open(1))
        on_gpu.pour(host)
        on_gpu.await_layer(tiny.layers)
        gpu.finish()
        gpu.computing.goes_on.clear()
        seen = copy_of(gpu, on_gpu)
        host.load(series.open(2))
        on_gpu.pour(host)
        gpu.copied().synchronize()
        gpu.computing.goes_on.set()
        gpu.finish()
        assert torch.equal(seen(), checkpoints[2])


def test_the_fake_gpu_shows_that_computing_does_not_wait(
    tiny: Architecture, tiny_series: Path, checkpoints: dict[int, torch.Tensor]
) -> None:
    with fake_gpu(without=frozenset({"compute_after"})) as gpu:
        on_gpu, host = arenas(gpu, tiny)
        host.load(LocalSeries(tiny_series).open(1))
        gpu.copying.goes_on.clear()
        on_gpu.pour(host)
        on_gpu.await_layer(tiny.layers)
        seen = copy_of(gpu, on_gpu)
        gpu.computed().synchronize()
        gpu.copying.goes_on.set()
        gpu.finish()
        assert not torch.equal(seen(), checkpoints[1])
        assert torch.equal(on_gpu.flat, checkpoints[1])
