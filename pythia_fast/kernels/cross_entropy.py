"""The last product and the cross-entropy in one pass over slices of the vocabulary.

On a CPU the native kernel does it, whose logits never leave the registers' neighbourhood, and on a
GPU in half precision the Triton kernel, whose logits never leave the registers. What follows is for
other devices and dtypes, on torch's operations. None is differentiable.

Logits of 8 × 2048 tokens of 70m are 3.3 GB in float32; here at most `BLOCK_BYTES` of them exist.
Each slice is folded into a running maximum and sum (arXiv:1805.02867), in float32. The slices do
not depend on the number of rows, so the order of the reduction is the same in any batch.
N rows, D width, V vocabulary, R rows of a block, S vocabulary rows of a slice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.cpu import STORED, CpuKernels, default_arithmetic
from pythia_fast.kernels.gpu import takes
from pythia_fast.kernels.scores import TokenScores

# Measured on a Sapphire Rapids core, 16k rows of 70m: within 7% of the best of seven shapes from
# 1024 × 1024 to 4096 × 2048 in bfloat16 and float32; blocks of all V are slower.
ROWS = 2048
SLICE = 2048
BLOCK_BYTES = ROWS * SLICE * (4 + 2)  # a float32 block, and the half-precision product before it


def linear_nll(h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor) -> torch.Tensor:
    """Nats per row, [N] float32: logsumexp(W h) - (W h)[y]. Never holds [N, V].

    ArgumentError if a target is outside the vocabulary; on a GPU in half precision its row is NaN.
    """
    if _is_native(h_ND, w_VD):
        _check_targets(y_N, len(w_VD))
        kernels = CpuKernels(default_arithmetic(w_VD.dtype))
        return kernels.nll(kernels.pick(h_ND), w_VD, y_N)
    if takes(h_ND.device, h_ND.dtype):
        from pythia_fast.kernels.gpu import cross_entropy as tiled  # here: triton is slow to import

        return tiled.linear_nll(h_ND, w_VD, y_N)
    return _joined(h_ND, w_VD, y_N, with_best=False).nll()


def linear_scores(h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor) -> TokenScores:
    """nll, logsumexp, target logit, arg max and margin of each row, [N] each. Never holds [N, V].

    ArgumentError if a target is outside the vocabulary; on a GPU in half precision its row is NaN.
    """
    if _is_native(h_ND, w_VD):
        _check_targets(y_N, len(w_VD))
        kernels = CpuKernels(default_arithmetic(w_VD.dtype))
        return kernels.scores(kernels.pick(h_ND), w_VD, y_N)
    if takes(h_ND.device, h_ND.dtype):
        from pythia_fast.kernels.gpu import cross_entropy as tiled  # here: triton is slow to import

        return tiled.linear_scores(h_ND, w_VD, y_N)
    state = _joined(h_ND, w_VD, y_N, with_best=True)
    return TokenScores(
        nll=state.nll(),
        logsumexp=state.peak_N + state.sum_N.log(),
        target_logit=state.target_N,
        argmax=state.argmax_N,
        margin=state.peak_N - state.second_N,
    )


def _is_native(h_ND: torch.Tensor, w_VD: torch.Tensor) -> bool:
    on_cpu = h_ND.device.type == w_VD.device.type == "cpu"
    return on_cpu and len(h_ND) > 0 and {h_ND.dtype, w_VD.dtype} <= STORED


def _check_targets(y_N: torch.Tensor, vocabulary: int) -> None:
    if bool(((y_N < 0) | (y_N >= vocabulary)).any()):
        raise ArgumentError(
            f"targets lie in 0 to {vocabulary - 1}, got {int(y_N.min())}..{int(y_N.max())}"
        )


@dataclass(slots=True)
class _Running:
    """What is known of each row after some slices: exp(logits - peak) sums to `sum_N`."""

    peak_N: torch.Tensor
    sum_N: torch.Tensor
    target_N: torch.Tensor
    second_N: torch.Tensor
    argmax_N: torch.Tensor

    def nll(self) -> torch.Tensor:
        """Nats, in the order that keeps a small loss exact."""
        return (self.peak_N - self.target_N) + self.sum_N.log()


def _joined(
    h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor, *, with_best: bool
) -> _Running:
    N = len(h_ND)
    _check_targets(y_N, len(w_VD))
    lowest_N = h_ND.new_full((N,), -torch.inf, dtype=_wide(h_ND))
    state = _Running(
        peak_N=lowest_N,
        sum_N=torch.zeros_like(lowest_N),
        target_N=torch.zeros_like(lowest_N),
        second_N=lowest_N.clone(),
        argmax_N=torch.zeros_like(y_N),
    )
    scratch: dict[torch.dtype, torch.Tensor] = {}
    for first in range(0, N, ROWS):
        rows = slice(first, first + ROWS)
        part = _Running(
            state.peak_N[rows],
            state.sum_N[rows],
            state.target_N[rows],
            state.second_N[rows],
            state.argmax_N[rows],
        )
        for begin, logits_RS in _slices(h_ND[rows], w_VD, scratch):
            _fold(part, logits_RS, begin, y_N[rows], with_best=with_best)
    return state


def _fold(
    state: _Running, logits_RS: torch.Tensor, begin: int, y_R: torch.Tensor, *, with_best: bool
) -> None:
    """Take one slice into the running state; destroys `logits_RS`."""
    here_R = ((y_R >= begin) & (y_R < begin + logits_RS.shape[1])).nonzero()[:, 0]
    state.target_N[here_R] = logits_RS[here_R, y_R[here_R] - begin]
    if with_best:
        peak_R1, index_R1 = logits_RS.max(-1, keepdim=True)  # the first of equals
        peak_R = peak_R1[:, 0]
        better_R = peak_R > state.peak_N
        state.argmax_N.copy_(torch.where(better_R, index_R1[:, 0] + begin, state.argmax_N))
        runner_up_R = logits_RS.scatter_(1, index_R1, -torch.inf).amax(-1)
        logits_RS.scatter_(1, index_R1, peak_R1)
        contender_R = torch.minimum(peak_R, state.peak_N)
        torch.maximum(state.second_N, contender_R.maximum(runner_up_R), out=state.second_N)
    else:
        peak_R = logits_RS.amax(-1)
    peak_R = torch.maximum(peak_R, state.peak_N)
    state.sum_N.mul_((state.peak_N - peak_R).exp_())
    state.sum_N.add_(logits_RS.sub_(peak_R[:, None]).exp_().sum(-1))
    state.peak_N.copy_(peak_R)


def _slices(
    h_RD: torch.Tensor, w_VD: torch.Tensor, scratch: dict[torch.dtype, torch.Tensor]
) -> Iterator[tuple[int, torch.Tensor]]:
    """(first vocabulary row, logits [R, S] in float32) over the vocabulary, in one scratch block.

    bfloat16 products run in bfloat16, where the hardware has them, and are widened; float16 values
    are multiplied in float32, which rounds once less.
    """
    wide = _wide(h_RD)
    if h_RD.dtype == torch.float16:
        h_RD = h_RD.to(wide)
    for begin in range(0, len(w_VD), SLICE):
        w_SD = w_VD[begin : begin + SLICE].to(h_RD.dtype)
        product_RS = _block(scratch, h_RD, len(h_RD), len(w_SD), h_RD.dtype)
        torch.mm(h_RD, w_SD.T, out=product_RS)
        if h_RD.dtype == wide:
            yield begin, product_RS
        else:
            yield begin, _block(scratch, h_RD, len(h_RD), len(w_SD), wide).copy_(product_RS)


def _block(
    scratch: dict[torch.dtype, torch.Tensor],
    like: torch.Tensor,
    rows: int,
    columns: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """A [rows, columns] view of this dtype's scratch, which the first call allocates."""
    if dtype not in scratch:
        scratch[dtype] = like.new_empty(min(ROWS, rows) * SLICE, dtype=dtype)
    return scratch[dtype][: rows * columns].view(rows, columns)


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
