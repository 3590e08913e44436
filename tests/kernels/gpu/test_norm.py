"""Both norms from one read against the definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import reference
from pythia_fast.kernels.gpu.norm import WIDEST, Affine, dual_layer_norm, layer_norm

EPS = 1e-5


def rows(N: int, D: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Rows of unlike size and mean."""
    g = torch.Generator().manual_seed(N * 10_007 + D)
    x_ND = torch.randn(N, D, generator=g) * torch.randn(N, 1, generator=g).exp()
    return (x_ND + 3 * torch.randn(N, 1, generator=g)).to(device, dtype)


def affine(D: int, dtype: torch.dtype, device: torch.device, seed: int) -> Affine:
    g = torch.Generator().manual_seed(seed)
    weight_D, bias_D = 1 + 0.3 * torch.randn(D, generator=g), torch.randn(D, generator=g)
    return weight_D.to(device, dtype), bias_D.to(device, dtype)


def poisoned(N: int, D: int, x_ND: torch.Tensor) -> torch.Tensor:
    return torch.full((N, D), float("nan"), dtype=x_ND.dtype, device=x_ND.device)


def assert_normed(x_ND: torch.Tensor, ln: Affine, eps: float, out_ND: torch.Tensor) -> None:
    expected_ND = reference.layer_norm(x_ND.double(), ln[0].double(), ln[1].double(), eps)
    torchs_ND = torch.nn.functional.layer_norm(x_ND, x_ND.shape[1:], *ln, eps)
    error = (out_ND.double() - expected_ND).abs().max()
    assert error <= 2 * (torchs_ND.double() - expected_ND).abs().max() + 1e-6


@pytest.mark.parametrize("D", [128, 256, 512, 768, 1024, 2048, 2560, 4096, 5120])
def test_the_widths_of_the_suite(D: int, dtype: torch.dtype, kernel_device: torch.device) -> None:
    x_ND = rows(5, D, dtype, kernel_device)
    lns = affine(D, dtype, kernel_device, 1), affine(D, dtype, kernel_device, 2)
    outs = poisoned(5, D, x_ND), poisoned(5, D, x_ND)
    dual_layer_norm(x_ND, *lns, EPS, *outs)
    for ln, out_ND in zip(lns, outs, strict=True):
        assert_normed(x_ND, ln, EPS, out_ND)
        alone_ND = poisoned(5, D, x_ND)
        layer_norm(x_ND, ln, EPS, alone_ND)
        assert torch.equal(alone_ND, out_ND)


@settings(deadline=None, max_examples=25)
@given(N=st.integers(1, 70), D=st.integers(1, 600), eps=st.sampled_from((1e-12, 1e-5, 0.1)))
def test_any_shape(kernel_device: torch.device, N: int, D: int, eps: float) -> None:
    x_ND = rows(N, D, torch.float16, kernel_device)
    ln, out_ND = affine(D, torch.float16, kernel_device, 3), poisoned(N, D, x_ND)
    layer_norm(x_ND, ln, eps, out_ND)
    assert_normed(x_ND, ln, eps, out_ND)


def test_rows_may_lie_apart_and_nothing_between_them_is_touched(
    dtype: torch.dtype, kernel_device: torch.device
) -> None:
    wide_NX = rows(21, 300, dtype, kernel_device)
    lns = affine(100, dtype, kernel_device, 1), affine(100, dtype, kernel_device, 2)
    outs_NX = poisoned(21, 300, wide_NX)
    x_ND = wide_NX[:, 150:250]
    dual_layer_norm(x_ND, *lns, EPS, outs_NX[:, :100], outs_NX[:, 120:220])
    assert_normed(x_ND.contiguous(), lns[0], EPS, outs_NX[:, :100])
    assert_normed(x_ND.contiguous(), lns[1], EPS, outs_NX[:, 120:220])
    assert outs_NX[:, 100:120].isnan().all()
    assert outs_NX[:, 220:].isnan().all()


def test_x_may_be_the_output(dtype: torch.dtype, kernel_device: torch.device) -> None:
    x_ND = rows(33, 200, dtype, kernel_device)
    ln, out_ND = affine(200, dtype, kernel_device, 1), poisoned(33, 200, x_ND)
    layer_norm(x_ND, ln, EPS, out_ND)
    layer_norm(x_ND, ln, EPS, x_ND)
    assert torch.equal(x_ND, out_ND)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, of inf - inf
@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), 1e4])
def test_a_rows_bits_are_its_own(spoilt: float, kernel_device: torch.device) -> None:
    x_ND = rows(37, 128, torch.float16, kernel_device)
    ln = affine(128, torch.float16, kernel_device, 1)
    alone_ND, among_ND = poisoned(1, 128, x_ND), poisoned(37, 128, x_ND)
    layer_norm(x_ND[20:21], ln, EPS, alone_ND)
    x_ND[19], x_ND[21] = spoilt, -spoilt
    layer_norm(x_ND, ln, EPS, among_ND)
    assert torch.equal(alone_ND[0], among_ND[20])
    if spoilt != 1e4:
        assert among_ND[[19, 21]].isnan().all()


def test_extreme_rows(kernel_device: torch.device) -> None:
    """Constant ones have no variance; the largest overflow if squared in half precision."""
    g = torch.Generator().manual_seed(0)
    x_ND = torch.stack(
        (
            torch.zeros(160),
            torch.full((160,), 65504.0),
            65504.0 * (1 - 2 * torch.randint(2, (160,), generator=g)),
            6e-8 * torch.randn(160, generator=g),
            4096 + torch.randn(160, generator=g),
        )
    ).to(kernel_device, torch.float16)
    ln, out_ND = affine(160, torch.float16, kernel_device, 1), poisoned(5, 160, x_ND)
    layer_norm(x_ND, ln, EPS, out_ND)
    assert torch.equal(out_ND[:2], ln[1].expand(2, -1))
    assert_normed(x_ND, ln, EPS, out_ND)


def test_no_rows(kernel_device: torch.device) -> None:
    x_ND = rows(0, 64, torch.float16, kernel_device)
    layer_norm(x_ND, affine(64, torch.float16, kernel_device, 1), EPS, x_ND)


@pytest.mark.parametrize(
    ("shape", "out", "weight", "message"),
    [
        ((3, 64), (3, 65), 64, "its norm"),
        ((3, 64), (3, 64), 63, "63"),
        ((3, WIDEST + 1), (3, WIDEST + 1), WIDEST + 1, "at most"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, int], out: tuple[int, int], weight: int, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        layer_norm(
            torch.zeros(shape), (torch.ones(weight), torch.ones(weight)), EPS, torch.zeros(out)
        )


def test_columns_are_refused() -> None:
    x_ND = torch.zeros(8, 8).T
    ln = torch.ones(8), torch.ones(8)
    with pytest.raises(ArgumentError, match="contiguous"):
        layer_norm(x_ND, ln, EPS, torch.zeros(8, 8))
