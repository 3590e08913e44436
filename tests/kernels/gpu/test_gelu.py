"""The GELU behind a product against its definition in float64."""

import math

import pytest
import torch
from torch.nn import functional

from pythia_fast.kernels import Gelu, reference
from pythia_fast.kernels.gpu.linear import linear

NAN = float("nan")


def gelu_by_kernel(x_N: torch.Tensor, form: Gelu, together: int = 256) -> torch.Tensor:
    """A product with the identity, so that nothing but the GELU is inexact."""
    a_NI, w_OI = x_N.view(-1, together), torch.eye(together)
    out_NO = torch.full_like(a_NI, NAN)
    linear(a_NI, w_OI, None, out_NO, gelu=form)
    return out_NO.view(-1)


@pytest.fixture
def _in_float32(kernel_device: torch.device) -> None:
    if kernel_device.type == "cuda":
        pytest.skip("float32 is for the interpreter; half types hide the error of a GELU")


@pytest.mark.usefixtures("_in_float32")
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_the_gelu_is_as_exact_as_torchs(form: Gelu) -> None:
    x_N = torch.linspace(-12, 12, 16 * 256)
    exact_N = (reference.gelu if form == "none" else reference.gelu_tanh)(x_N.double())
    error_N = (gelu_by_kernel(x_N, form).double() - exact_N).abs()
    torch_error_N = (functional.gelu(x_N, approximate=form).double() - exact_N).abs()
    assert error_N.max() <= torch_error_N.max()
    near = x_N.abs() < 3
    assert error_N[near].max() <= 2 * torch_error_N[near].max()


@pytest.mark.usefixtures("_in_float32")
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_the_gelus_tail_keeps_digits_that_one_minus_erf_loses(form: Gelu) -> None:
    x_N = torch.linspace(-5.5, -1e-3, 4 * 256)
    x = x_N.double()
    if form == "none":
        exact_N = 0.5 * x * torch.erfc(-x / math.sqrt(2))
    else:
        exact_N = x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))
    relative_N = (gelu_by_kernel(x_N, form).double() / exact_N - 1).abs()
    assert relative_N.max() < 1e-4


# numpy's words, in the interpreter, for what a GPU does in silence.
@pytest.mark.filterwarnings(
    "ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning"
)
@pytest.mark.usefixtures("_in_float32")
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_the_gelu_of_large_values_is_the_value_or_nothing(form: Gelu) -> None:
    large_N = torch.logspace(math.log10(7), 38, 4 * 256)
    assert torch.equal(gelu_by_kernel(large_N, form), large_N)
    assert gelu_by_kernel(-large_N, form).abs().max() < 1e-10
    assert gelu_by_kernel(torch.zeros(1), form, 1).item() == 0
    nothing_N = torch.tensor([NAN, -float("inf"), float("inf")])
    assert gelu_by_kernel(nothing_N, form, 1).isnan().all()
