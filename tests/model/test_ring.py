"""Arenas loaded through the ring are what a CPU's are, to the last bit, however slots and time."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import FakeGpu, fake_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, PinnedMemoryError, ReadError, WeightsError
from pythia_fast.model import Weights, ring
from pythia_fast.model.parameters import Layout
from pythia_fast.model.ring import Ring, pieces
from pythia_fast.series import LocalSeries
from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series

ODD = Architecture(
    layers=2, width=12, heads=2, vocab_rows=37, intermediate=36, rotary_dims=2, max_positions=16
)
"""Rows that no slot is a multiple of, and gaps after most tensors."""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> LocalSeries:
    """Steps 0, 1 and 2, of both formats."""
    folder = tmp_path_factory.mktemp("ring") / "odd"
    return LocalSeries(make_series(folder, ODD, (0, 1, 2), seed=3))


def on_device(gpu: FakeGpu, dtype: torch.dtype, slot_bytes: int, slots: int = 3) -> Weights:
    """An arena in which nothing has been loaded yet: it is full of NaN."""
    weights = Weights(ODD, dtype=dtype, ring=Ring(gpu, slot_bytes=slot_bytes, slots=slots))
    weights.flat.fill_(torch.nan)
    return weights


def of_cpu(series: LocalSeries, step: int, dtype: torch.dtype = torch.float16) -> Weights:
    weights = Weights(ODD, dtype=dtype)
    weights.load(series.open(step))
    return weights


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@settings(deadline=None, max_examples=40)
@given(
    layers=st.integers(1, 3),
    width=st.integers(1, 9),
    intermediate=st.integers(1, 40),
    vocab_rows=st.integers(1, 30),
    itemsize=st.sampled_from((2, 4)),
    most=st.integers(1, 400),
)
def test_pieces_hold_every_element_once(
    layers: int, width: int, intermediate: int, vocab_rows: int, itemsize: int, most: int
) -> None:
    """Each value of a tensor comes from its own place in the file to its own in the arena."""
    architecture = Architecture(
        layers=layers,
        width=width,
        heads=1,
        vocab_rows=vocab_rows,
        intermediate=intermediate,
        rotary_dims=0,
    )
    layout = Layout(architecture, itemsize)
    expected = torch.full((layout.numel, 2), -1)  # (tensor, its value)
    for tensor, place in enumerate(layout.places.values()):
        size = (place.rows, place.columns)
        values = torch.arange(place.rows * place.columns).view(size)
        for i, numbers in enumerate((torch.full(size, tensor), values)):
            strides = (2 * place.stride, 2)
            expected.as_strided(size, strides, 2 * place.offset + i).copy_(numbers)
    for layer, (*_, at) in enumerate(layout.sums):
        expected[at : at + width, 0] = -2 - layer
        expected[at : at + width, 1] = torch.arange(width)
    found = torch.full((layout.numel, 2), -9)
    for piece in pieces(layout, most):
        assert piece.end - piece.begin <= most
        here = torch.full((piece.end - piece.begin, 2), -9)
        for block in piece.blocks:
            for row in range(block.rows):
                first = block.first + row * block.columns
                at = block.offset + row * block.stride
                assert (here[at : at + block.columns] == -9).all()
                here[at : at + block.columns, 0] = block.tensor
                here[at : at + block.columns, 1] = torch.arange(first, first + block.columns)
        for layer, first, at, count in piece.sums:
            assert (here[at : at + count] == -9).all()
            here[at : at + count, 0] = -2 - layer
            here[at : at + count, 1] = torch.arange(first, first + count)
        for at, count in piece.gaps:
            assert (here[at : at + count] == -9).all()
            here[at : at + count] = -1
        found[piece.begin : piece.end] = here
    assert torch.equal(found, expected)


@settings(deadline=None, max_examples=25)
@given(
    slot_bytes=st.one_of(st.integers(1, 8), st.integers(8, 400)).map(lambda n: 64 * n),
    slots=st.integers(1, 5),
    dtype=st.sampled_from((torch.float16, torch.bfloat16, torch.float32)),
    step=st.sampled_from((0, 1, 2)),
    seed=st.integers(0, 9),
)
def test_a_load_is_a_cpus_to_the_last_bit(
    series: LocalSeries, slot_bytes: int, slots: int, dtype: torch.dtype, step: int, seed: int
) -> None:
    """From slots smaller than a row of a matrix to one that is larger than the arena."""
    with fake_gpu(seed) as gpu:
        weights = on_device(gpu, dtype, slot_bytes, slots)
        address = weights.flat.data_ptr()
        report = weights.load(series.open(step))
        expected = of_cpu(series, step, dtype)
        assert same_bits(weights.flat, expected.flat)
        assert report.read_bytes == 2 * ODD.parameters
        assert 0 < report.copy_s <= report.elapsed_s
        assert (weights.generation, weights.flat.data_ptr()) == (1, address)


@pytest.mark.parametrize("slot_bytes", [64, 1024, 1 << 16])
def test_what_is_not_finite_is_counted_over_all_pieces(
    tmp_path: Path, series: LocalSeries, slot_bytes: int
) -> None:
    folder = make_series(tmp_path / "odd", ODD, (1,), seed=3) / "step1"
    (file,) = [path for path in folder.iterdir() if "model" in path.name]
    data = bytearray(file.read_bytes())
    data[-3000:-1000] = b"\xff" * 2000  # float16's NaN
    file.write_bytes(data)
    checkpoint = LocalSeries(folder.parent).open(1)
    expected = Weights(ODD, dtype=torch.float16)
    counts = expected.load(checkpoint).nonfinite
    assert sum(counts.values()) == 1000
    with fake_gpu() as gpu:
        weights = on_device(gpu, torch.float16, slot_bytes)
        assert weights.load(checkpoint).nonfinite == counts
        assert same_bits(weights.flat, expected.flat)


@pytest.fixture
def failing_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """`failing_read(n, error)`: the n-th read from now on fails, and only that."""

    def install(n: int, error: BaseException) -> None:
        calls, read = iter(range(1 << 30)), ring.read_tensors

        def failing(*arguments: Any) -> Sequence[int]:
            found = read(*arguments)
            if next(calls) == n:
                raise error
            return found

        monkeypatch.setattr(ring, "read_tensors", failing)

    return install


@pytest.mark.parametrize("error", [ReadError(5, "broken disk"), KeyboardInterrupt()])
@pytest.mark.parametrize("n", [0, 1, 2, 6, 9])
def test_a_load_that_ends_early_leaves_nan_and_no_copy(
    series: LocalSeries,
    failing_read: Callable[[int, BaseException], None],
    n: int,
    error: BaseException,
) -> None:
    with fake_gpu(n, copy_s=3e-3) as gpu:
        weights = on_device(gpu, torch.float16, 1024, slots=8)
        weights.load(series.open(0))
        before, generation = gpu.copies, weights.generation
        failing_read(n, error)
        with pytest.raises(type(error)):
            weights.load(series.open(1))
        assert gpu.copying.under_way == 0
        assert gpu.copies - before == max(0, n - 1)
        assert weights.flat.isnan().all()
        assert weights.generation == generation + 1
        weights.load(series.open(2))
        assert same_bits(weights.flat, of_cpu(series, 2).flat)


def test_a_ring_that_fails_has_no_copy_under_way(
    series: LocalSeries, failing_read: Callable[[int, BaseException], None]
) -> None:
    """Whatever its caller does then: others may fill its slots at once."""
    with fake_gpu(copy_s=3e-3) as gpu:
        weights = on_device(gpu, torch.float16, 1024, slots=8)
        tensors = series.open(1).tensors
        ranges = [tensors[name] for name in weights.layout.places]
        failing_read(6, ReadError(5, "broken disk"))
        with pytest.raises(ReadError):
            weights._ring.load(ranges, weights.layout, weights.flat, 1, None)
        assert (gpu.copies, gpu.copying.under_way) == (5, 0)


def test_what_another_thread_does_with_the_arena_goes_before_the_nan(
    series: LocalSeries, failing_read: Callable[[int, BaseException], None]
) -> None:
    with fake_gpu() as gpu:
        weights = on_device(gpu, torch.float16, 1024)
        weights.load(series.open(0))
        seen: list[torch.Tensor] = []
        gpu.compute(lambda: seen.append(weights.flat.clone()))
        failing_read(0, ReadError(5, "broken disk"))
        with pytest.raises(ReadError):
            weights.load(series.open(1))
        gpu.finish()
        assert same_bits(seen[0], of_cpu(series, 0).flat)


@pytest.mark.parametrize("given_after", [False, True])
def test_nothing_is_overwritten_that_is_still_computed_with(
    series: LocalSeries, given_after: bool
) -> None:
    with fake_gpu(copy_s=1e-5) as gpu:
        weights = on_device(gpu, torch.float16, 2048)
        seen: list[torch.Tensor] = []
        for step in (0, 1, 2, 0):
            after = weights.last_use() if given_after else None
            weights.load(series.open(step), after=after)
            gpu.compute(lambda: seen.append(weights.flat.clone()))
        gpu.finish()
        for step, flat in zip((0, 1, 2, 0), seen, strict=True):
            assert same_bits(flat, of_cpu(series, step).flat), step


def test_another_arena_is_loaded_while_one_is_computed_with(series: LocalSeries) -> None:
    """What a load waits for is the last use of its own arena."""
    with fake_gpu() as gpu:
        one = on_device(gpu, torch.float16, 2048)
        other = Weights(ODD, dtype=torch.float16, ring=one._ring)
        after = other.last_use()
        assert after is not None
        after.synchronize()
        gpu.computing.goes_on.clear()
        gpu.compute(lambda: None)
        other.load(series.open(1), after=after)
        assert gpu.computing.under_way == 1
        assert same_bits(other.flat, of_cpu(series, 1).flat)


@pytest.mark.parametrize("seed", range(3))
def test_two_arenas_share_a_ring(series: LocalSeries, seed: int) -> None:
    with fake_gpu(seed) as gpu:
        one = on_device(gpu, torch.float16, 512)
        other = Weights(ODD, dtype=torch.float32, ring=one._ring)

        def load(weights: Weights, step: int) -> None:
            weights.load(series.open(step), threads=1)

        threads = [
            threading.Thread(target=load, args=(each, step))
            for each, step in ((one, 1), (other, 2))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert same_bits(one.flat, of_cpu(series, 1).flat)
        assert same_bits(other.flat, of_cpu(series, 2, torch.float32).flat)


def test_another_architecture_is_refused_before_anything_is_written(series: LocalSeries) -> None:
    with fake_gpu() as gpu:
        shape = replace(ODD, intermediate=24)
        weights = Weights(shape, ring=Ring(gpu, slot_bytes=1024))
        with pytest.raises(WeightsError, match="resident model"):
            weights.load(series.open(1))
        gpu.finish()
        assert gpu.copies == 0
        assert weights.flat.count_nonzero() == 0
        assert weights.generation == 0


def test_a_gpu_that_breaks_ends_the_load(
    series: LocalSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_gpu() as gpu:
        weights = on_device(gpu, torch.float16, 1024)
        copy = gpu.copy

        def breaking(*arguments: Any) -> None:
            copy(*arguments)
            gpu.broken = gpu.copies == 3

        monkeypatch.setattr(gpu, "copy", breaking)
        with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
            weights.load(series.open(1))


@pytest.mark.parametrize(
    ("lockable", "slot_bytes"), [(1 << 30, 8 << 20), (31 << 20, 4 << 20), (4 << 20, 1 << 20)]
)
def test_less_is_pinned_where_the_system_gives_less(
    series: LocalSeries, caplog: pytest.LogCaptureFixture, lockable: int, slot_bytes: int
) -> None:
    with fake_gpu(lockable=lockable) as gpu, caplog.at_level(logging.WARNING):
        small = Ring(gpu, slot_bytes=8 << 20)
        assert small.slot_bytes == slot_bytes
        assert ("could be pinned" in caplog.text) == (slot_bytes < 8 << 20)
        weights = Weights(ODD, dtype=torch.float16, ring=small)
        weights.load(series.open(1))
        assert same_bits(weights.flat, of_cpu(series, 1).flat)


def test_where_nothing_can_be_pinned_there_is_no_ring() -> None:
    with fake_gpu(lockable=(4 << 20) - 1) as gpu, pytest.raises(PinnedMemoryError):
        Ring(gpu)


@pytest.mark.parametrize("asked", [{"slot_bytes": 0}, {"slot_bytes": 100}, {"slots": 0}], ids=str)
def test_a_ring_of_nothing_is_refused(asked: dict[str, int]) -> None:
    with fake_gpu() as gpu, pytest.raises(ArgumentError, match="multiple of 64"):
        Ring(gpu, **asked)
