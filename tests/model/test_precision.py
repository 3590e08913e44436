"""What the argument `dtype` means on each device."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pythia_fast
from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.cpu import has_amx
from pythia_fast.model import Precision, known_precision, resolve_precision
from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_is_the_most_accurate_that_is_fast() -> None:
    auto = resolve_precision("auto", CPU)
    expected = "split-bf16" if has_amx() else "float32"
    assert auto == Precision(expected, torch.float32, expected)
    assert resolve_precision("auto", CUDA) == Precision("float16", torch.float16, None)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_torch_dtype_and_its_name_are_the_same(name: str) -> None:
    dtype = getattr(torch, name)
    assert resolve_precision(dtype, CPU) == resolve_precision(name, CPU)
    assert resolve_precision(name, CPU).dtype == dtype
    assert resolve_precision(name, CUDA) == Precision(name, dtype, None)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_what_is_named_is_known_before_a_device_is(name: str) -> None:
    assert known_precision(name) == known_precision(getattr(torch, name)) == name
    for device in (CPU, CUDA):
        assert resolve_precision(name, device).name == name


def test_auto_is_known_where_it_is_computed() -> None:
    """And split-bf16 by its name, on this machine or not."""
    assert known_precision("auto") is None
    assert known_precision("split-bf16") == "split-bf16"


def test_bfloat16_is_multiplied_as_such_where_the_processor_can() -> None:
    assert resolve_precision("bfloat16", CPU).arithmetic == ("bfloat16" if has_amx() else "float32")
    assert resolve_precision("float16", CPU).arithmetic == "float32"


@pytest.mark.parametrize("dtype", ["float64", "int8", "half", "", torch.float64])
def test_others_are_refused(dtype: str | torch.dtype) -> None:
    with pytest.raises(ArgumentError, match="dtype is 'auto', 'float32'"):
        resolve_precision(dtype, CPU)
    with pytest.raises(ArgumentError, match="dtype is 'auto', 'float32'"):
        known_precision(dtype)


def test_split_bf16_is_not_for_a_gpu() -> None:
    with pytest.raises(ArgumentError, match="for a CPU"):
        resolve_precision("split-bf16", CUDA)


def test_split_bf16_without_amx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pythia_fast.model.precision.has_amx", lambda: False)
    with pytest.raises(ArgumentError, match="needs a processor with AMX"):
        resolve_precision("split-bf16", CPU)
    assert resolve_precision("auto", CPU).name == "float32"


@pytest.mark.parametrize("change", [{"width": 60}, {"width": 264, "heads": 1}])
def test_shapes_that_the_kernels_do_not_take_are_torchs(tiny: Architecture, change: dict) -> None:
    other = replace(tiny, **change)
    assert resolve_precision("auto", CPU, tiny) == resolve_precision("auto", CPU)
    assert resolve_precision("auto", CPU, other) == Precision("float32", torch.float32, None)
    assert resolve_precision("bfloat16", CPU, other) == Precision("bfloat16", torch.bfloat16, None)
    with pytest.raises(ArgumentError, match="split-bf16"):
        resolve_precision("split-bf16", CPU, other)


def test_results_of_torch_do_not_say_split_bf16(
    tiny: Architecture, tiny_ids: np.ndarray, tmp_path: Path
) -> None:
    series = make_series(tmp_path / "odd", replace(tiny, width=60), (0,))
    result = pythia_fast.sweep(series, tokens=tiny_ids, out=tmp_path / "run", progress=False)
    assert result.table["dtype"].to_pylist() == ["float32"]
    with pytest.raises(ArgumentError, match="split-bf16"):
        pythia_fast.load(series, dtype="split-bf16")
    with pytest.raises(ArgumentError, match="split-bf16"):
        pythia_fast.sweep(series, tokens=tiny_ids, dtype="split-bf16", progress=False)


def test_a_sweep_says_what_it_computes_in(
    tiny_series: object, tiny_ids: object, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    result = pythia_fast.sweep(
        tiny_series, steps=[4], tokens=tiny_ids, out=f"{tmp_path}/run", dtype="bfloat16"
    )
    assert "computing in bfloat16 on cpu" in capsys.readouterr().err
    assert result.table["dtype"].to_pylist() == ["bfloat16"]
