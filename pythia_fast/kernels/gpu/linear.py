"""a wᵀ + bias with what follows it: GELU, or the residual. The three products of a block.

A product that writes its output only for a small kernel to read it again pays for the memory twice.
Here the GELU and the sum with the residual are taken of the float32 accumulator, before it is ever
rounded, and the block's two last products are one: [attention | gelu] @ [W_o | W_2]ᵀ + residual.

Programs are persistent where the chip copies tiles by itself (TMA): each takes one output tile
after another, and in one flat loop, so that the first copies of the next tile run behind the last
tile's epilogue. Tiles go by groups of rows, whose operands stay in the L2 cache. The order of a
sum is that of i, in steps of a fixed size; it does not depend on the number of rows.
N rows, O outputs, I inputs.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels import Gelu
from pythia_fast.kernels.gpu.chips import Chip, chip_of, lookup
from pythia_fast.kernels.gpu.gelu import gelu_of
from pythia_fast.kernels.gpu.launching import launch


@dataclass(frozen=True, slots=True)
class Config:
    """The tile of a program, and how it is worked on.

    `stages` tiles of operands are on their way at once; the epilogue takes the outputs in `parts`;
    `resident` programs share a multiprocessor.
    """

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int
    parts: int = 1
    resident: int = 1


# Unmeasured: chosen by shared memory, registers and the bytes that a tile asks of the L2 cache.
CONFIGS = {
    (8, 0): Config(rows=128, outputs=256, inputs=64, warps=8, stages=4, parts=2),
    (8, 6): Config(rows=128, outputs=128, inputs=64, warps=8, stages=4),
    (9, 0): Config(rows=128, outputs=256, inputs=64, warps=8, stages=4, parts=2),
    (10, 0): Config(rows=128, outputs=256, inputs=64, warps=8, stages=4, parts=2),
    (12, 0): Config(rows=128, outputs=128, inputs=32, warps=8, stages=4, parts=2),
}

FEW = 64
"""So many rows, as when decoding, are one tile high: the weights are read once, by many programs.

`inputs` is that of the chip's other configuration, so that the sums run in the same order.
"""
FEW_CONFIGS = {
    (8, 0): Config(rows=64, outputs=32, inputs=64, warps=4, stages=5, resident=2),
    (9, 0): Config(rows=64, outputs=32, inputs=64, warps=4, stages=5, resident=3),
    (12, 0): Config(rows=64, outputs=32, inputs=32, warps=4, stages=5, resident=2),
}

GROUP = 8  # tiles of rows that share the weights in the L2 cache

Shape = tuple[tuple[int, int], int, int, Gelu | Literal["residual"] | None]
PREFER_CUBLAS: frozenset[Shape] = frozenset()
"""Capability, outputs, inputs and epilogue where cuBLAS and a small kernel were faster.

Empty, since nothing has been measured yet.
"""


@triton.jit
def _finish(
    sum_NO,
    bias,
    residual,
    out,
    row,
    output,
    N,
    outputs,
    residual_stride,
    out_stride,
    BY_TILES: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GELU: tl.constexpr,
):
    """The epilogue of a tile, or a part of it, whose first element is (row, output)."""
    o_O = output + tl.arange(0, sum_NO.shape[1])
    row_N = row + tl.arange(0, sum_NO.shape[0])
    is_inside_NO = (row_N < N)[:, None] & (o_O < outputs)[None, :]
    if BIAS:
        sum_NO += tl.load(bias + o_O, o_O < outputs, other=0.0).to(tl.float32)[None, :]
    if GELU is not None:
        sum_NO = gelu_of(sum_NO, GELU)
    if RESIDUAL:
        if BY_TILES:
            residual_NO = residual.load([row, output])
        else:
            at_NO = row_N.to(tl.int64)[:, None] * residual_stride + o_O[None, :]
            residual_NO = tl.load(residual + at_NO, is_inside_NO, other=0.0)
        sum_NO += residual_NO.to(tl.float32)
    if BY_TILES:
        out.store([row, output], sum_NO.to(out.dtype))
    else:
        at_NO = row_N.to(tl.int64)[:, None] * out_stride + o_O[None, :]
        tl.store(out + at_NO, sum_NO.to(out.dtype.element_ty), is_inside_NO)


@triton.jit
def _corner(tile, N, outputs, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, GROUP: tl.constexpr):
    """The first row and output of a tile: GROUP tiles of rows go together through the outputs."""
    of_group = GROUP * tl.cdiv(outputs, OUTPUTS)
    first = tile // of_group * GROUP
    group = tl.minimum(tl.cdiv(N, ROWS) - first, GROUP)
    inside = tile % of_group
    return (first + inside % group) * ROWS, inside // group * OUTPUTS


@triton.jit(do_not_specialize=["N"])
def _linear(
    a,
    w,
    bias,
    residual,
    out,
    N,
    outputs,
    inputs,
    a_stride,
    w_stride,
    residual_stride,
    out_stride,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    GROUP: tl.constexpr,
    PARTS: tl.constexpr,
    BY_TILES: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GELU: tl.constexpr,
):
    """Tiles program_id, program_id + programs, ...; `a` to `out` are descriptors if BY_TILES."""
    programs = tl.num_programs(0)
    tiles = tl.cdiv(N, ROWS) * tl.cdiv(outputs, OUTPUTS)
    # The flat loop keeps apart what is copied and what is finished: so each counts its own tiles.
    finished = tl.program_id(0)
    for tile in tl.range(tl.program_id(0), tiles, programs, flatten=BY_TILES):
        row, output = _corner(tile, N, outputs, ROWS, OUTPUTS, GROUP)
        sum_NO = tl.zeros((ROWS, OUTPUTS), tl.float32)
        for i in tl.range(0, tl.cdiv(inputs, INPUTS)):
            if BY_TILES:
                a_NI = a.load([row, i * INPUTS])
                w_OI = w.load([output, i * INPUTS])
            else:
                i_I = i * INPUTS + tl.arange(0, INPUTS)
                # Rows and outputs past the end are the last ones again; they are not stored.
                row_N = tl.minimum(row + tl.arange(0, ROWS), N - 1).to(tl.int64)
                o_O = tl.minimum(output + tl.arange(0, OUTPUTS), outputs - 1).to(tl.int64)
                a_at_NI = a + row_N[:, None] * a_stride + i_I[None, :]
                w_at_OI = w + o_O[:, None] * w_stride + i_I[None, :]
                a_NI = tl.load(a_at_NI, (i_I < inputs)[None, :], other=0.0)
                w_OI = tl.load(w_at_OI, (i_I < inputs)[None, :], other=0.0)
            sum_NO = tl.dot(a_NI, w_OI.T, sum_NO, input_precision="ieee")
        row, output = _corner(finished, N, outputs, ROWS, OUTPUTS, GROUP)
        finished += programs
        first_NO = sum_NO
        if PARTS == 2:
            halves = tl.permute(tl.reshape(sum_NO, (ROWS, 2, OUTPUTS // 2)), (0, 2, 1))
            first_NO, second_NO = tl.split(halves)
        _finish(
            first_NO, bias, residual, out, row, output, N, outputs, residual_stride, out_stride,
            BY_TILES, BIAS, RESIDUAL, GELU,
        )  # fmt: skip
        if PARTS == 2:
            _finish(
                second_NO, bias, residual, out, row, output + OUTPUTS // 2, N, outputs,
                residual_stride, out_stride, BY_TILES, BIAS, RESIDUAL, GELU,
            )  # fmt: skip


def linear(
    a_NI: torch.Tensor,
    w_OI: torch.Tensor,
    bias_O: torch.Tensor | None,
    out_NO: torch.Tensor,
    *,
    gelu: Gelu | None = None,
    residual_NO: torch.Tensor | None = None,
    deterministic: bool = False,
) -> None:
    """gelu(a wᵀ + bias) or a wᵀ + bias + residual into `out_NO`, which may be the residual itself.

    Rows may lie apart. Sums and epilogue are in float32, rounded once. A row's bits do not depend
    on the rows around it, nor is a sum's order another for few rows (`FEW`), except where
    `PREFER_CUBLAS` has the shape; `deterministic` never takes cuBLAS.
    """
    _check(a_NI, w_OI, bias_O, out_NO, gelu, residual_NO)
    (N, inputs), outputs, device = a_NI.shape, len(w_OI), a_NI.device
    chip = chip_of(device)
    epilogue = "residual" if residual_NO is not None else gelu
    if not deterministic and (chip.capability, outputs, inputs, epilogue) in PREFER_CUBLAS:
        linear_by_cublas(a_NI, w_OI, bias_O, out_NO, gelu=gelu, residual_NO=residual_NO)
        return
    if N == 0:
        return
    operands = (a_NI, w_OI, out_NO if residual_NO is None else residual_NO, out_NO)
    a, w, residual, out = operands
    by_tiles = chip.copies_tiles and all(map(_is_aligned, operands))
    # By pointers, the large tiles of a chip that copies them by itself need too many registers.
    like = Chip((8, 6), chip.multiprocessors) if chip.copies_tiles and not by_tiles else chip
    config = lookup(FEW_CONFIGS if N <= FEW else CONFIGS, like)
    tiles = triton.cdiv(N, config.rows) * triton.cdiv(outputs, config.outputs)
    programs = min(tiles, chip.multiprocessors * config.resident) if by_tiles else tiles
    part = [config.rows, config.outputs // config.parts]
    launch(
        _linear,
        (programs,),
        device,
        TensorDescriptor.from_tensor(a, [config.rows, config.inputs]) if by_tiles else a,
        TensorDescriptor.from_tensor(w, [config.outputs, config.inputs]) if by_tiles else w,
        w_OI if bias_O is None else bias_O,
        TensorDescriptor.from_tensor(residual, part) if by_tiles else residual,
        TensorDescriptor.from_tensor(out, part) if by_tiles else out,
        N,
        outputs,
        inputs,
        *(operand.stride(0) for operand in operands),
        ROWS=config.rows,
        OUTPUTS=config.outputs,
        INPUTS=config.inputs,
        GROUP=GROUP,
        PARTS=config.parts,
        BY_TILES=by_tiles,
        BIAS=bias_O is not None,
        RESIDUAL=residual_NO is not None,
        GELU=gelu,
        num_warps=config.warps,
        # The residual's tile and the output's are copied through the room of a stage.
        num_stages=config.stages - (by_tiles and residual_NO is not None),
    )


def linear_by_cublas(
    a_NI: torch.Tensor,
    w_OI: torch.Tensor,
    bias_O: torch.Tensor | None,
    out_NO: torch.Tensor,
    *,
    gelu: Gelu | None = None,
    residual_NO: torch.Tensor | None = None,
) -> None:
    """What `linear` promises, but for the bits: torch's product, then a small kernel in place."""
    if residual_NO is not None:
        torch.addmm(residual_NO, a_NI, w_OI.T, out=out_NO)
        if bias_O is not None:
            out_NO.add_(bias_O)
    elif bias_O is not None:
        torch.addmm(bias_O, a_NI, w_OI.T, out=out_NO)
    else:
        torch.mm(a_NI, w_OI.T, out=out_NO)
    if gelu is not None:
        torch.ops.aten.gelu_(out_NO, approximate=gelu)


def _is_aligned(rows: torch.Tensor) -> bool:
    """Whether each row starts at 16 bytes, as the engine that copies tiles needs it."""
    return rows.data_ptr() % 16 == 0 and rows.stride(0) * rows.element_size() % 16 == 0


def _check(
    a_NI: torch.Tensor,
    w_OI: torch.Tensor,
    bias_O: torch.Tensor | None,
    out_NO: torch.Tensor,
    gelu: str | None,
    residual_NO: torch.Tensor | None,
) -> None:
    shapes = {"a": a_NI.shape, "w": w_OI.shape, "out": out_NO.shape}
    fits = a_NI.ndim == w_OI.ndim == 2 and a_NI.shape[1] == w_OI.shape[1] > 0
    fits = fits and out_NO.shape == (len(a_NI), len(w_OI))
    if bias_O is not None:
        shapes["bias"] = bias_O.shape
        fits = fits and bias_O.shape == (len(w_OI),) and bias_O.is_contiguous()
    matrices = [a_NI, w_OI, out_NO]
    if residual_NO is not None:
        shapes["residual"] = residual_NO.shape
        fits = fits and residual_NO.shape == out_NO.shape
        matrices.append(residual_NO)
    if not fits or any(matrix.stride(1) != 1 for matrix in matrices):
        said = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ArgumentError(
            "a linear map takes a [N, I], w [O, I], bias [O], residual and out [N, O], each with "
            f"contiguous rows; got {said}"
        )
    if len({matrix.dtype for matrix in matrices}) > 1:
        kinds = ", ".join(str(matrix.dtype) for matrix in matrices)
        raise ArgumentError(f"the operands of a linear map share one dtype, got {kinds}")
    if a_NI.device.type != "cpu" and a_NI.dtype.itemsize != 2:
        raise ArgumentError(f"on a GPU, this is for float16 and bfloat16, got {a_NI.dtype}")
    if gelu not in (None, "none", "tanh"):
        raise ArgumentError(f"gelu is None, 'none' (erf) or 'tanh', got {gelu!r}")
    if gelu is not None and residual_NO is not None:
        raise ArgumentError("a linear map has a GELU or a residual, not both")
