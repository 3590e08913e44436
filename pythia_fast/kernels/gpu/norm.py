"""LayerNorm, and both norms of a parallel block from one read of x.

A norm moves bytes and computes next to nothing. GPT-NeoX's block norms the same row twice, with two
scales and shifts but one mean and variance: reading x once makes three passes over memory of four.
The row stays in registers between the mean and the variance, so that the variance is of centred
values, and nothing cancels.
N rows, D width.
"""

import torch
import triton
import triton.language as tl

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.gpu.chips import chip_of, lookup
from pythia_fast.kernels.gpu.launching import launch

Affine = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias of a norm, [D] each."""

WIDEST = 16384

# Values of x that a program holds at once, and its warps: 32 values a thread. Unmeasured.
CONFIGS = {(8, 0): (4096, 4)}
WIDE_WARPS = 8  # where one row alone is more than the values above


@triton.jit(do_not_specialize=["N"])
def _norms(
    x,
    weight1,
    bias1,
    out1,
    weight2,
    bias2,
    out2,
    N,
    D,
    x_stride,
    out1_stride,
    out2_stride,
    eps,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    TWO: tl.constexpr,
):
    """ROWS whole rows a program, each of WIDTH ≥ D values of which the last ones are masked."""
    row_N = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d_D = tl.arange(0, WIDTH)
    is_value_D = d_D < D
    is_value_ND = (row_N < N)[:, None] & is_value_D[None, :]
    x_ND = tl.load(x + row_N[:, None] * x_stride + d_D[None, :], is_value_ND, other=0.0)
    x_ND = x_ND.to(tl.float32)
    mean_N = tl.sum(x_ND, 1) / D
    centred_ND = tl.where(is_value_D[None, :], x_ND - mean_N[:, None], 0.0)
    variance_N = tl.sum(centred_ND * centred_ND, 1) / D
    normed_ND = centred_ND * tl.rsqrt(variance_N + eps)[:, None]
    w_D = tl.load(weight1 + d_D, is_value_D, other=0.0).to(tl.float32)
    b_D = tl.load(bias1 + d_D, is_value_D, other=0.0).to(tl.float32)
    y_ND = (normed_ND * w_D[None, :] + b_D[None, :]).to(out1.dtype.element_ty)
    tl.store(out1 + row_N[:, None] * out1_stride + d_D[None, :], y_ND, is_value_ND)
    if TWO:
        w_D = tl.load(weight2 + d_D, is_value_D, other=0.0).to(tl.float32)
        b_D = tl.load(bias2 + d_D, is_value_D, other=0.0).to(tl.float32)
        y_ND = (normed_ND * w_D[None, :] + b_D[None, :]).to(out2.dtype.element_ty)
        tl.store(out2 + row_N[:, None] * out2_stride + d_D[None, :], y_ND, is_value_ND)


def layer_norm(x_ND: torch.Tensor, ln: Affine, eps: float, out_ND: torch.Tensor) -> None:
    """(x - mean) / sqrt(var + eps) · weight + bias into `out_ND`, which may be x itself.

    Statistics in float32; rows of x and out may lie apart. A row's bits depend on that row alone.
    """
    _launch(x_ND, ln, ln, eps, out_ND, out_ND, two=False)


def dual_layer_norm(
    x_ND: torch.Tensor,
    ln1: Affine,
    ln2: Affine,
    eps: float,
    out1_ND: torch.Tensor,
    out2_ND: torch.Tensor,
) -> None:
    """`layer_norm` of the same x by two norms, into two outputs; the same bits as one by one."""
    _launch(x_ND, ln1, ln2, eps, out1_ND, out2_ND, two=True)


def _launch(
    x_ND: torch.Tensor,
    ln1: Affine,
    ln2: Affine,
    eps: float,
    out1_ND: torch.Tensor,
    out2_ND: torch.Tensor,
    *,
    two: bool,
) -> None:
    N, D = x_ND.shape
    for out_ND in (out1_ND, out2_ND):
        if out_ND.shape != x_ND.shape:
            raise ArgumentError(f"x is {tuple(x_ND.shape)}, but its norm {tuple(out_ND.shape)}")
    for affine_D in (*ln1, *ln2):
        if affine_D.shape != (D,) or not affine_D.is_contiguous():
            raise ArgumentError(
                f"a norm of width {D} has {D} contiguous weights and biases, "
                f"got {tuple(affine_D.shape)}"
            )
    if any(rows_ND.stride(1) != 1 for rows_ND in (x_ND, out1_ND, out2_ND)):
        raise ArgumentError("a norm's rows must be contiguous, though they may lie apart")
    width = triton.next_power_of_2(D)
    if width > WIDEST:
        raise ArgumentError(f"a norm holds a row in registers: at most {WIDEST} wide, got {D}")
    if N == 0:
        return
    values, warps = lookup(CONFIGS, chip_of(x_ND.device))
    rows = max(1, values // width)
    launch(
        _norms,
        (triton.cdiv(N, rows),),
        x_ND.device,
        x_ND,
        *ln1,
        out1_ND,
        *ln2,
        out2_ND,
        N,
        D,
        x_ND.stride(0),
        out1_ND.stride(0),
        out2_ND.stride(0),
        eps,
        ROWS=rows,
        WIDTH=width,
        TWO=two,
        num_warps=warps if width <= values else WIDE_WARPS,
    )
