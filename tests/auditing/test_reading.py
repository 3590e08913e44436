"""What is kept of a tensor, beside torch's and hashlib's word on the same bytes."""

import hashlib
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.auditing import reading
from pythia_fast.auditing.reading import Tensor, read_checkpoint, read_tensor
from pythia_fast.core import File
from pythia_fast.series import LocalSeries, read_safetensors, write_safetensors
from pythia_fast.testing import tiny_suite

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def read(folder: Path, tensor: torch.Tensor) -> Tensor:
    write_safetensors(folder / "one.safetensors", {"x": tensor})
    return read_tensor(read_safetensors(File(folder / "one.safetensors"))["x"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.randn(300, 70, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = read(tmp_path, tensor)
    assert found.sha256 == hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()
    assert (found.nan, found.infinite, found.constant) == (0, 0, False)
    assert torch.equal(torch.from_numpy(found.sample), tensor.flatten().float())


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_counted(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.ones(1000, dtype=dtype)
    tensor[[3, 500]] = torch.nan
    tensor[4], tensor[999], tensor[5] = torch.inf, -torch.inf, torch.finfo(dtype).max
    found = read(tmp_path, tensor)
    assert (found.nan, found.infinite) == (
        tensor.isnan().sum().item(),
        tensor.isinf().sum().item(),
    )
    assert (found.nan, found.infinite) == (2, 2)


def test_constant_tensors(tmp_path: Path) -> None:
    assert read(tmp_path, torch.ones(5000)).constant
    late = torch.ones(5000)
    late[-1] = 2
    assert not read(tmp_path, late).constant


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    sample=st.integers(1, 300),
    pieces=st.integers(1, 40),
)
def test_pieces_and_spacing_do_not_matter(
    rows: int, columns: int, sample: int, pieces: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tensor = torch.arange(rows * columns, dtype=torch.float32).reshape(rows, columns)
    tensor[-1, -1] = torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "SAMPLE", sample)
        patch.setattr(reading, "_PIECE_BYTES", 4 * pieces)
        found = read(tmp_path_factory.mktemp("t"), tensor)
    spacing = -(-tensor.numel() // sample)
    spacing += spacing % 2 == 0
    assert len(found.sample) <= sample
    assert np.array_equal(found.sample, tensor.flatten()[::spacing].numpy())
    assert found.infinite == 1
    assert found.sha256 == hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def test_a_large_tensor_is_not_kept(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "one.safetensors", {"x": torch.ones(2**24)})
    tensor = read_safetensors(File(tmp_path / "one.safetensors"))["x"]
    tracemalloc.start()
    try:
        read_tensor(tensor)
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most_bytes < 8 * 2**20 < tensor.nbytes


@pytest.mark.parametrize("layout", ["safetensors", "torch"])
def test_a_checkpoint(layout: str, tmp_path: Path) -> None:
    series = LocalSeries(tiny_suite(tmp_path / "s", steps=(4,), layout=layout, shard_bytes=60_000))
    with ThreadPoolExecutor(2) as pool:
        found = read_checkpoint(series.open(4), pool)
    assert found.keys() == series.spec.architecture.shapes().keys()
    for name, shape in series.spec.architecture.shapes().items():
        assert len(found[name].sample) == int(np.prod(shape))
