"""The product and its epilogues against the definition in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import Gelu, reference
from pythia_fast.kernels.gpu import linear as module
from pythia_fast.kernels.gpu.chips import Chip, lookup
from pythia_fast.kernels.gpu.linear import (
    CONFIGS,
    FEW,
    FEW_CONFIGS,
    linear,
    linear_by_cublas,
)

Epilogue = Gelu | Literal["residual", "bias"] | None
EPILOGUES: tuple[Epilogue, ...] = (None, "bias", "none", "tanh", "residual")

NAN = float("nan")
# numpy's words, in the interpreter, for what a GPU does in silence.
quietly = pytest.mark.filterwarnings(
    "ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning"
)
F = torch.nn.functional


@contextmanager
def copying(tiles: bool, device: torch.device) -> Iterator[None]:
    """As if the chip had three multiprocessors, and copied tiles by itself or did not."""
    if tiles and device.type == "cuda" and torch.cuda.get_device_capability(device) < (9, 0):
        pytest.skip("this GPU does not copy tiles by itself")
    chip = Chip((9, 0) if tiles else (8, 0), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "chip_of", lambda _device: chip)
        yield


@pytest.fixture(params=[True, False], ids=["by tiles", "by pointers"])
def tiles(request: pytest.FixtureRequest, kernel_device: torch.device) -> Iterator[bool]:
    copies: bool = request.param
    with copying(copies, kernel_device):
        yield copies


class Operands:
    """a, w, bias and residual with which sums are of size one."""

    def __init__(
        self,
        N: int,
        outputs: int,
        inputs: int,
        dtype: torch.dtype,
        device: torch.device,
        seed: int = 0,
    ) -> None:
        g = torch.Generator().manual_seed(seed)
        a_NI, w_OI = torch.randn(N, inputs, generator=g), torch.randn(outputs, inputs, generator=g)
        bias_O, residual_NO = (
            torch.randn(outputs, generator=g),
            torch.randn(N, outputs, generator=g),
        )
        self.a_NI, self.w_OI = a_NI.to(device, dtype), (w_OI / inputs**0.5).to(device, dtype)
        self.bias_O, self.residual_NO = bias_O.to(device, dtype), residual_NO.to(device, dtype)

    def poisoned(self) -> torch.Tensor:
        return torch.full_like(self.residual_NO, NAN)

    def run(self, epilogue: Epilogue, out_NO: torch.Tensor | None = None) -> torch.Tensor:
        out_NO = self.poisoned() if out_NO is None else out_NO
        linear(
            self.a_NI,
            self.w_OI,
            None if epilogue is None else self.bias_O,
            out_NO,
            gelu=gelu_of(epilogue),
            residual_NO=self.residual_NO if epilogue == "residual" else None,
        )
        return out_NO

    def expected(self, epilogue: Epilogue) -> torch.Tensor:
        out_NO: torch.Tensor = self.a_NI.double() @ self.w_OI.double().T
        if epilogue is None:
            return out_NO
        out_NO += self.bias_O.double()
        if epilogue == "none":
            return reference.gelu(out_NO)
        if epilogue == "tanh":
            return reference.gelu_tanh(out_NO)
        return out_NO + self.residual_NO.double() if epilogue == "residual" else out_NO

    def torchs(self, epilogue: Epilogue) -> torch.Tensor:
        out_NO: torch.Tensor = F.linear(
            self.a_NI, self.w_OI, None if epilogue is None else self.bias_O
        )
        if epilogue == "residual":
            return out_NO + self.residual_NO
        gelu = gelu_of(epilogue)
        return out_NO if gelu is None else F.gelu(out_NO, approximate=gelu)

    def check(self, epilogue: Epilogue, out_NO: torch.Tensor) -> None:
        expected_NO = self.expected(epilogue)
        error = (out_NO.double() - expected_NO).abs().max()
        assert error <= 2 * (self.torchs(epilogue).double() - expected_NO).abs().max() + 1e-6


def gelu_of(epilogue: Epilogue) -> Gelu | None:
    return epilogue if epilogue == "none" or epilogue == "tanh" else None


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("N", [1, FEW + 1, 150])
def test_every_epilogue(
    N: int, epilogue: Epilogue, tiles: bool, dtype: torch.dtype, kernel_device: torch.device
) -> None:
    x = Operands(N, 264, 72, dtype, kernel_device)
    x.check(epilogue, x.run(epilogue))


@settings(deadline=None, max_examples=16)
@given(
    N=st.sampled_from((1, 2, 15, 63, 64, 65, 127, 128, 129, 257)),
    outputs=st.sampled_from((1, 7, 8, 31, 128, 255, 264)),
    inputs=st.sampled_from((1, 8, 63, 64, 65, 136)),
    epilogue=st.sampled_from(EPILOGUES),
    tiles=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape(
    kernel_device: torch.device,
    N: int,
    outputs: int,
    inputs: int,
    epilogue: Epilogue,
    tiles: bool,
    seed: int,
) -> None:
    """Also those whose rows do not start at 16 bytes, which no engine copies."""
    x = Operands(N, outputs, inputs, torch.float16, kernel_device, seed)
    with copying(tiles, kernel_device):
        x.check(epilogue, x.run(epilogue))


def test_more_tiles_of_rows_than_go_together(tiles: bool, kernel_device: torch.device) -> None:
    N = (module.GROUP + 1) * 128 + 5
    x = Operands(N, 8, 8, torch.float16, kernel_device)
    x.check("bias", x.run("bias"))


def test_the_parallel_branches_in_one_buffer(
    tiles: bool, dtype: torch.dtype, kernel_device: torch.device
) -> None:
    """[attention | gelu] is filled from mlp-in and read by the last product, into the residual."""
    N, D = 70, 64
    up, down = (
        Operands(N, 4 * D, D, dtype, kernel_device),
        Operands(N, D, 5 * D, dtype, kernel_device, 1),
    )
    branches_NX = torch.full((N, 5 * D + 8), NAN, dtype=dtype, device=kernel_device)
    up.run("none", branches_NX[:, D : 5 * D])
    up.check("none", branches_NX[:, D : 5 * D])
    assert branches_NX[:, :D].isnan().all()
    assert branches_NX[:, 5 * D :].isnan().all()
    branches_NX[:, :D] = down.a_NI[:, :D]
    down.a_NI = branches_NX[:, : 5 * D]
    apart_NO = down.run("residual")
    down.check("residual", apart_NO)
    wide_NX = torch.full((N, D + 8), NAN, dtype=dtype, device=kernel_device)
    wide_NX[:, :D] = down.residual_NO
    down.residual_NO = wide_NX[:, :D]
    down.run("residual", down.residual_NO)
    assert torch.equal(wide_NX[:, :D], apart_NO)
    assert wide_NX[:, D:].isnan().all()


@quietly
@pytest.mark.parametrize("epilogue", ["none", "residual"])
@pytest.mark.parametrize("spoilt", [NAN, float("inf"), 6e4])
def test_a_rows_bits_are_its_own(
    spoilt: float, epilogue: Epilogue, tiles: bool, kernel_device: torch.device
) -> None:
    x = Operands(150, 40, 72, torch.float16, kernel_device)
    clean_NO = x.run(epilogue)
    x.a_NI[[3, 149]] = spoilt
    x.residual_NO[3] = spoilt
    spoilt_NO = x.run(epilogue)
    others = torch.ones(150, dtype=torch.bool)
    others[[3, 149]] = False
    assert torch.equal(spoilt_NO[others], clean_NO[others])
    if spoilt != 6e4:
        assert not spoilt_NO[~others].isfinite().any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="numpy multiplies, which has other bits")
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_few_rows_have_the_bits_of_many(
    epilogue: Epilogue, tiles: bool, kernel_device: torch.device
) -> None:
    many = Operands(FEW + 70, 264, 200, torch.float16, kernel_device)
    many_NO = many.run(epilogue)
    for rows in (slice(0, 1), slice(5, 5 + FEW), slice(FEW, FEW + 3)):
        few = Operands(1, 264, 200, torch.float16, kernel_device)
        few.a_NI, few.residual_NO = many.a_NI[rows], many.residual_NO[rows]
        few.w_OI, few.bias_O = many.w_OI, many.bias_O
        assert torch.equal(few.run(epilogue), many_NO[rows])


@pytest.mark.parametrize("chip", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_few_rows_are_summed_in_the_steps_of_many(chip: tuple[int, int]) -> None:
    at = Chip(chip, 1)
    few, many = lookup(FEW_CONFIGS, at), lookup(CONFIGS, at)
    assert few.inputs == many.inputs
    assert few.rows == FEW


@quietly
@pytest.mark.parametrize("epilogue", ["bias", "none", "residual"])
def test_sums_beyond_half_precision_are_not_rounded_before_the_end(
    epilogue: Epilogue, tiles: bool, kernel_device: torch.device
) -> None:
    """The product is 81920, more than float16 holds; bias and residual bring it back."""
    x = Operands(3, 16, 80, torch.float16, kernel_device)
    x.a_NI[:], x.w_OI[:], x.residual_NO[:] = 32, 32, -30000
    x.bias_O[:] = -30000 if epilogue == "residual" else -60000
    assert torch.equal(x.run(epilogue), torch.full_like(x.residual_NO, 21920))


def test_no_rows(kernel_device: torch.device) -> None:
    x = Operands(0, 8, 8, torch.float16, kernel_device)
    assert x.run("bias").shape == (0, 8)


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("in_place", [True, False])
def test_cublas_promises_the_same(
    epilogue: Epilogue,
    in_place: bool,
    dtype: torch.dtype,
    kernel_device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is taken where the table says so, and never if the bits are to be deterministic."""
    x = Operands(20, 40, 24, dtype, kernel_device)
    chip = Chip((9, 0), 3)
    kind = "residual" if epilogue == "residual" else gelu_of(epilogue)
    monkeypatch.setattr(module, "PREFER_CUBLAS", frozenset({((9, 0), 40, 24, kind)}))
    monkeypatch.setattr(module, "chip_of", lambda _device: chip)
    taken = []

    def spied(*args: torch.Tensor, gelu: Gelu | None, residual_NO: torch.Tensor | None) -> None:
        taken.append(kind)
        linear_by_cublas(*args, gelu=gelu, residual_NO=residual_NO)

    monkeypatch.setattr(module, "linear_by_cublas", spied)
    wide_NX = torch.full((20, 50), NAN, dtype=dtype, device=kernel_device)
    out_NO = wide_NX[:, 5:45]
    expected_NO = x.expected(epilogue)
    torch_error = (x.torchs(epilogue).double() - expected_NO).abs().max()
    if in_place and epilogue == "residual":
        out_NO.copy_(x.residual_NO)
        x.residual_NO = out_NO
    x.run(epilogue, out_NO)
    assert (out_NO.double() - expected_NO).abs().max() <= 2 * torch_error + 1e-6
    assert wide_NX[:, :5].isnan().all()
    assert wide_NX[:, 45:].isnan().all()
    assert taken == [kind]
    linear(x.a_NI, x.w_OI, x.bias_O, x.poisoned(), gelu=gelu_of(kind), deterministic=True)
    assert taken == [kind]


@pytest.mark.parametrize(
    ("a", "w", "bias", "out", "residual"),
    [
        ((3, 8), (5, 9), (5,), (3, 5), None),
        ((3, 8), (5, 8), (4,), (3, 5), None),
        ((3, 8), (5, 8), (5,), (5, 3), None),
        ((3, 8), (5, 8), (5,), (3, 5), (1, 5)),
        ((3, 0), (5, 0), (5,), (3, 5), None),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    a: tuple[int, ...],
    w: tuple[int, ...],
    bias: tuple[int, ...],
    out: tuple[int, ...],
    residual: tuple[int, ...] | None,
) -> None:
    residual_NO = None if residual is None else torch.zeros(residual)
    with pytest.raises(ArgumentError, match="a linear map takes"):
        linear(
            torch.zeros(a),
            torch.zeros(w),
            torch.zeros(bias),
            torch.zeros(out),
            residual_NO=residual_NO,
        )


def test_what_else_is_refused() -> None:
    a_NI, w_OI, out_NO = torch.zeros(4, 4), torch.zeros(4, 4), torch.zeros(4, 4)
    with pytest.raises(ArgumentError, match="contiguous"):
        linear(a_NI.T, w_OI, None, out_NO)
    with pytest.raises(ArgumentError, match="dtype"):
        linear(a_NI.half(), w_OI, None, out_NO)
    with pytest.raises(ArgumentError, match="float16 and bfloat16"):
        linear(a_NI.to("meta"), w_OI.to("meta"), None, out_NO.to("meta"))
    with pytest.raises(ArgumentError, match="got 'erf'"):
        linear(a_NI, w_OI, None, out_NO, gelu="erf")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="not both"):
        linear(a_NI, w_OI, None, out_NO, gelu="none", residual_NO=out_NO)
