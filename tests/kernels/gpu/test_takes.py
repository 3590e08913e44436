"""For whom the kernels are."""

import pytest
import torch

from pythia_fast.kernels import gpu


@pytest.mark.parametrize(
    ("capability", "dtype", "taken"),
    [
        ((8, 0), torch.float16, True),
        ((8, 9), torch.bfloat16, True),
        ((10, 0), torch.float16, True),
        ((7, 5), torch.float16, False),
        ((9, 0), torch.float32, False),
        ((9, 0), torch.float64, False),
    ],
)
def test_half_types_on_ampere_and_newer(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, taken: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert gpu.takes(torch.device("cuda"), dtype) == taken


def test_not_where_triton_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(gpu, "_has_triton", lambda: False)
    assert not gpu.takes(torch.device("cuda"), torch.float16)


def test_not_where_torch_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not gpu.takes(torch.device("cuda"), torch.float16)


def test_never_a_cpu() -> None:
    assert not gpu.takes(torch.device("cpu"), torch.float16)
