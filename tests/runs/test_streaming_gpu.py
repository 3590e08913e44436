"""Checkpoints flow to a GPU while it computes; what flows is tried on one that takes its time."""

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import FakeGpu, fake_gpu

import pythia_fast
from pythia_fast.errors import ArgumentError, PinnedMemoryError, SweepError
from pythia_fast.model import Precision, Weights
from pythia_fast.model.ring import Ring
from pythia_fast.runs import pipeline, prefetching, streaming
from pythia_fast.runs.prefetching import Loaded, NotLoaded, prefetch
from pythia_fast.runs.streaming import Arenas, make_arenas
from pythia_fast.series import LocalSeries
from pythia_fast.suite import Architecture, spec

STEPS = (0, 1, 2, 4, 8, 16)
HALF = Precision("float16", torch.float16, None)
CUDA = torch.device("cuda")
GB = 10**9
BROKEN = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.fixture(scope="module")
def checkpoints(tiny: Architecture, tiny_series: Path) -> dict[int, torch.Tensor]:
    """What a CPU's arena holds after each step."""
    found, weights, series = {}, Weights(tiny, dtype=torch.float16), LocalSeries(tiny_series)
    for step in STEPS:
        weights.load(series.open(step))
        found[step] = weights.flat.clone()
    return found


def arenas_of(
    gpu: FakeGpu, shape: Architecture, kind: str, dtype: torch.dtype = torch.float16
) -> Arenas:
    """Those of a GPU with room for two or for one, then with one or two of the host, or none."""
    ring = Ring(gpu, slot_bytes=1 << 15)
    on_gpu = [Weights(shape, dtype=dtype, ring=ring) for _ in range(2)]
    host = [Weights(shape, dtype=dtype, pinned_by=gpu) for _ in range(2)]
    return {
        "two": Arenas(tuple(on_gpu)),
        "one": Arenas((on_gpu[0],)),
        "one and one of the host": Arenas((host[0],), on_gpu[0]),
        "one and two of the host": Arenas(tuple(host), on_gpu[0]),
    }[kind]


KINDS = ("two", "one", "one and one of the host", "one and two of the host")


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
        assert gpu.copies > len(STEPS)
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


class Room:
    """How much is free, where; and arenas that take it without being there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, gpu: float, host: float) -> None:
        self.free = {"cuda": int(gpu * GB), "cpu": int(host * GB)}
        self.lockable = self.free["cpu"]
        self.streams = object()
        room = self

        class Arena:
            def __init__(
                self,
                architecture: Architecture,
                *,
                dtype: torch.dtype,
                device: torch.device | str = "cpu",
                pinned_by: object = None,
            ) -> None:
                nbytes = streaming.Layout(architecture, dtype.itemsize).numel * dtype.itemsize
                self.is_host = pinned_by is not None
                if self.is_host:
                    assert pinned_by is room.streams
                    if nbytes > room.lockable:
                        raise PinnedMemoryError("no more")
                    room.lockable -= nbytes
                kind = "cpu" if self.is_host else torch.device(device).type
                room.free[kind] -= nbytes
                assert room.free[kind] >= 0

        monkeypatch.setattr(streaming, "Weights", Arena)
        monkeypatch.setattr(streaming, "streams_of", lambda device: self.streams)
        monkeypatch.setattr(streaming, "free_bytes", lambda device: self.free[device.type])


def kind_of(arenas: Arenas) -> str:
    of_host = [arena.is_host for arena in arenas.loading]
    if arenas.poured_into is None:
        assert not any(of_host)
        return f"{len(of_host)} of the GPU"
    assert all(of_host)
    assert not arenas.poured_into.is_host
    assert arenas.resident is arenas.poured_into
    return f"1 of the GPU, {len(of_host)} of the host"


@pytest.mark.parametrize(
    ("size", "gpu", "host", "kind"),
    [
        ("12b", 80, 200, "2 of the GPU"),
        ("12b", 40, 200, "1 of the GPU, 2 of the host"),
        ("12b", 40, 64, "1 of the GPU, 1 of the host"),
        ("12b", 40, 30, "1 of the GPU"),
        ("6.9b", 40, 200, "2 of the GPU"),
        ("6.9b", 24, 64, "1 of the GPU, 1 of the host"),
        ("6.9b", 24, 128, "1 of the GPU, 2 of the host"),
        ("2.8b", 24, 64, "2 of the GPU"),
        ("70m", 24, 16, "2 of the GPU"),
    ],
)
def test_which_arenas_fit_where(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    size: str,
    gpu: float,
    host: float,
    kind: str,
) -> None:
    Room(monkeypatch, gpu=gpu, host=host)
    architecture = spec(size).architecture
    with caplog.at_level(logging.INFO, logger="pythia_fast"):
        assert kind_of(make_arenas(architecture, 154, HALF, CUDA)) == kind
    assert ("take turns" in caplog.text) == (kind == "1 of the GPU")
    assert ("layer by layer" in caplog.text) == ("of the host" in kind)


@pytest.mark.parametrize(
    ("size", "gpu", "steps", "cores", "kind"),
    [
        ("70m", 80, 154, 16, "5 of the GPU"),
        ("70m", 80, 154, 8, "4 of the GPU"),
        ("70m", 80, 154, 2, "2 of the GPU"),
        ("70m", 80, 3, 16, "3 of the GPU"),
        ("1b", 80, 154, 16, "3 of the GPU"),
        ("2.8b", 80, 154, 16, "2 of the GPU"),
    ],
)
def test_of_small_models_several_are_loaded_at_once(
    monkeypatch: pytest.MonkeyPatch, size: str, gpu: float, steps: int, cores: int, kind: str
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    Room(monkeypatch, gpu=gpu, host=200)
    assert kind_of(make_arenas(spec(size).architecture, steps, HALF, CUDA)) == kind


def test_a_part_of_the_memory_is_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an 80 GB card that two share, and of a host that two share."""
    architecture = spec("12b").architecture
    Room(monkeypatch, gpu=80, host=200)
    assert kind_of(make_arenas(architecture, 9, HALF, CUDA, share=0.5)) == (
        "1 of the GPU, 1 of the host"
    )


def test_one_step_takes_one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    Room(monkeypatch, gpu=40, host=200)
    assert kind_of(make_arenas(spec("12b").architecture, 1, HALF, CUDA)) == "1 of the GPU"


def test_a_model_that_no_gpu_of_this_size_holds_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Room(monkeypatch, gpu=23, host=200)
    with pytest.raises(ArgumentError, match=r"23\.7 GB in float16, and cuda has 23 GB free"):
        make_arenas(spec("12b").architecture, 1, HALF, CUDA)


@pytest.mark.parametrize(
    ("lockable", "kind"), [(30, "1 of the GPU, 1 of the host"), (20, "1 of the GPU")]
)
def test_memory_that_cannot_be_pinned_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lockable: int, kind: str
) -> None:
    Room(monkeypatch, gpu=40, host=200).lockable = lockable * GB
    assert kind_of(make_arenas(spec("12b").architecture, 154, HALF, CUDA)) == kind
    assert "no more" in caplog.text


def test_what_torch_keeps_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 24 * GB)
    assert streaming.free_bytes(CUDA) == 46 * GB


@pytest.mark.parametrize(
    ("limit", "free"), [("3000000000", 1_500_000_000), ("max", None), ("1000000000", 0)]
)
def test_a_containers_memory_is_less_than_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, free: int | None
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("2000000000")
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 500000000\nfile 9\n")
    whole = streaming.free_bytes(torch.device("cpu"))
    monkeypatch.setattr(streaming, "CGROUP", tmp_path)
    found = streaming.free_bytes(torch.device("cpu"))
    if free is None:
        assert abs(found - whole) < 2 << 30
    else:
        assert found == free
