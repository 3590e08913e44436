"""The last product and the cross-entropy in one: logits live in registers and nowhere else.

Logits of 16k tokens are 1.6 GB in half precision, which a product would write and a cross-entropy
read again, once per checkpoint. Here a program multiplies one tile of rows with one tile of the
vocabulary and keeps of each row the largest logit, the sum of exp(logit - largest), the id of the
largest and the second largest (arXiv:1805.02867, in parts): 16 bytes per row and tile. A second
kernel joins a row's tiles, always in the same order. Tiles follow from the chip and from D alone,
so a row's bits do not depend on the rows around it.

Programs take tiles column by column inside a band of `BAND` rows: those that run at the same
time share a few tiles of W, which the cache then reads once for all of them, and W is read from
memory once per band. Where D is narrow the product is short and the rest of the work counts: tiles
are small, so that two programs share a multiprocessor and one multiplies while the other adds up.

N rows, D width, V vocabulary, C tiles ("columns") of the vocabulary.
"""

from dataclasses import dataclass
from operator import itemgetter

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.gpu import HALF
from pythia_fast.kernels.gpu.chips import chip_of, lookup
from pythia_fast.kernels.gpu.launching import launch
from pythia_fast.kernels.scores import TokenScores

LOG2E = tl.constexpr(1.4426950408889634)
NONE = tl.constexpr(2**31 - 1)  # an id that no token has

BAND = 2048
"""Rows of a band."""
SLAB = 16384
"""Rows that share scratch memory: 103 MB of it for 50304 ids and tiles of 128."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """A program's tile [n, v] of the logits, cut into products of d; programs a multiprocessor."""

    n: int
    v: int
    d: int
    warps: int
    stages: int
    programs: int

    @property
    def registers(self) -> int:
        """What a thread may have, for so many programs to fit: of 65536, and 255 at most."""
        return min(255, (64 << 10) // (32 * self.warps * self.programs))


NARROW = 1024
"""Up to this D, two programs a multiprocessor; beyond it, larger tiles, which load less."""

# Chosen by arithmetic: what fits (see tests/kernels/gpu/test_ahead_of_time.py), not by measurement.
CONFIGS = {
    (8, 0): (Tiles(128, 128, 32, 4, 4, 2), Tiles(256, 128, 32, 8, 4, 1)),
    (8, 6): (Tiles(128, 128, 32, 4, 3, 2), Tiles(128, 128, 32, 4, 3, 2)),
    (9, 0): (Tiles(128, 128, 64, 4, 3, 2), Tiles(256, 128, 64, 8, 4, 1)),
    (10, 0): (Tiles(128, 128, 64, 8, 4, 1), Tiles(128, 128, 64, 8, 4, 1)),
    (12, 0): (Tiles(128, 128, 32, 8, 4, 1), Tiles(128, 128, 32, 8, 4, 1)),
}
JOINED_ROWS = 8  # of a program of the second kernel: one sector of memory of each tile


@triton.jit(do_not_specialize=["N"])
def tile_scores(
    h,  # [N, D], a descriptor or a pointer
    w,  # [V, D], likewise
    h_stride,
    w_stride,
    y_N,
    peak_CN,
    sum_CN,
    second_CN,
    best_CN,
    target_N,
    N,
    V,
    D,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BAND: tl.constexpr,  # in tiles
    COPIES_TILES: tl.constexpr,
    WITH_BEST: tl.constexpr,
    EVEN: tl.constexpr,  # V is whole tiles
):
    """What each tile says of its rows, and the logits of the targets that lie in it."""
    tl.assume(D > 0)
    rows, columns = tl.cdiv(N, BLOCK_N), tl.cdiv(V, BLOCK_V)
    for tile in tl.range(tl.program_id(0), rows * columns, tl.num_programs(0), flatten=True):
        band = tile // (BAND * columns) * BAND
        height = tl.minimum(rows - band, BAND)
        within = tile % (BAND * columns)
        first_n = (band + within % height) * BLOCK_N
        column = within // height
        first_v = column * BLOCK_V

        n = first_n + tl.arange(0, BLOCK_N)
        v = first_v + tl.arange(0, BLOCK_V)
        logits = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
        for first_d in tl.range(0, D, BLOCK_D):
            if COPIES_TILES:
                h_tile = h.load([first_n, first_d])
                w_tile = w.load([first_v, first_d])
            else:
                d = first_d + tl.arange(0, BLOCK_D)
                h_at = h + n[:, None].to(tl.int64) * h_stride + d[None, :]
                w_at = w + v[:, None].to(tl.int64) * w_stride + d[None, :]
                h_tile = tl.load(h_at, mask=(n[:, None] < N) & (d[None, :] < D), other=0.0)
                w_tile = tl.load(w_at, mask=(v[:, None] < V) & (d[None, :] < D), other=0.0)
            logits = tl.dot(h_tile, w_tile.T, logits, input_precision="ieee")

        y = tl.load(y_N + n, mask=n < N, other=-1)
        here = (y >= first_v) & (y < tl.minimum(first_v + BLOCK_V, V))
        if tl.max(here.to(tl.int32), 0) > 0:
            its_id = y.to(tl.int32)  # of those that are here, nothing is lost
            chosen = tl.where(v[None, :] == its_id[:, None], logits, 0.0)
            tl.store(target_N + n, tl.sum(chosen, 1), mask=here)

        if not EVEN:
            logits = tl.where(v[None, :] < V, logits, -float("inf"))
        at = column.to(tl.int64) * N + n
        peak = tl.max(logits, 1)
        tl.store(peak_CN + at, peak, mask=n < N)
        # Of infinite logits the sum is infinite or 0, so that NaN is left to those that hold a NaN.
        base = tl.where(tl.abs(peak) == float("inf"), 0.0, peak)
        powers = tl.exp2((logits - base[:, None]) * LOG2E)
        tl.store(sum_CN + at, tl.sum(powers, 1), mask=n < N)
        if WITH_BEST:
            best = tl.min(tl.where(logits == peak[:, None], v[None, :], NONE), 1)
            others = tl.where(v[None, :] == best[:, None], -float("inf"), logits)
            tl.store(best_CN + at, best, mask=n < N)
            tl.store(second_CN + at, tl.max(others, 1), mask=n < N)


@triton.jit(do_not_specialize=["N"])
def join_tiles(
    peak_CN,
    sum_CN,
    second_CN,
    best_CN,
    y_N,
    target_N,  # target logits, NaN from here on where the target is no id
    nll_N,
    logsumexp_N,
    argmax_N,
    margin_N,
    N,
    V,
    C,
    BLOCK_C: tl.constexpr,  # all columns
    BLOCK_N: tl.constexpr,
    WITH_BEST: tl.constexpr,
):
    """The scores of each row from what its tiles say."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    ours = n < N
    n = tl.minimum(n, N - 1)  # beyond the last row it comes again, and is not stored
    c = tl.arange(0, BLOCK_C)
    there = c[:, None] < C
    at = c[:, None].to(tl.int64) * N + n[None, :]
    peaks = tl.load(peak_CN + at, mask=there, other=-float("inf"))
    sums = tl.load(sum_CN + at, mask=there, other=0.0)
    peak = tl.max(peaks, 0)
    base = tl.where(tl.abs(peak) == float("inf"), 0.0, peak)
    total = tl.sum(sums * tl.exp2((peaks - base[None, :]) * LOG2E), 0)

    y = tl.load(y_N + n)
    target = tl.load(target_N + n, mask=(y >= 0) & (y < V), other=float("nan"))
    finite = (total > 0) & (total < float("inf"))
    log_total = tl.where(finite, tl.log(tl.where(finite, total, 1.0)), float("nan"))
    tl.store(nll_N + n, (peak - target) + log_total, mask=ours)  # keeps a small loss exact
    if WITH_BEST:
        best = tl.load(best_CN + at, mask=there, other=NONE)
        second = tl.load(second_CN + at, mask=there, other=-float("inf"))
        argmax = tl.min(tl.where(peaks == peak[None, :], best, NONE), 0)
        second = tl.max(tl.where(best == argmax[None, :], second, peaks), 0)
        margin = tl.where(total == total, peak - second, float("nan"))
        tl.store(target_N + n, target, mask=ours)
        tl.store(logsumexp_N + n, peak + log_total, mask=ours)
        tl.store(argmax_N + n, tl.where(argmax < V, argmax, 0).to(tl.int64), mask=ours)
        tl.store(margin_N + n, margin, mask=ours)


def linear_nll(h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor) -> torch.Tensor:
    """Nats per row, [N] float32: as in `linear_scores`, and to the same bits."""
    return _scores(h_ND, w_VD, y_N, with_best=False).nll


def linear_scores(h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor) -> TokenScores:
    """The scores of int64 targets y under softmax(W h), [N] each; h and W are of one half type.

    A target outside the vocabulary has a NaN nll and target logit: an error would have to wait for
    the device. Ids are checked where they enter, on the host (`pythia_fast.model.ids`). Any D will
    do, but only multiples of 16 are fast.

    ArgumentError where shapes, dtypes or devices do not fit together.
    """
    return _scores(h_ND, w_VD, y_N, with_best=True)


def _scores(
    h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor, *, with_best: bool
) -> TokenScores:
    """With `with_best` false, only the nll is filled."""
    _check(h_ND, w_VD, y_N)
    N, V, device = len(h_ND), len(w_VD), h_ND.device
    floats = torch.empty((4, N), dtype=torch.float32, device=device)
    argmax_N = torch.empty(N if with_best else 0, dtype=torch.int64, device=device)
    scores = TokenScores(floats[0], floats[1], floats[2], argmax_N, floats[3])
    tiles = tiles_for(h_ND.shape[1], device)
    C = triton.cdiv(V, tiles.v)
    slab = min(SLAB, N)
    parts = torch.empty((3 if with_best else 2, C, slab), dtype=torch.float32, device=device)
    best = torch.empty((C, slab if with_best else 0), dtype=torch.int32, device=device)
    for first in range(0, N, SLAB):
        rows = slice(first, first + SLAB)
        _score_slab(h_ND[rows], w_VD, y_N[rows], scores.map(itemgetter(rows)), parts, best, tiles)
    return scores


def tiles_for(width: int, device: torch.device) -> Tiles:
    """The tiles for D = `width`."""
    narrow, wide = lookup(CONFIGS, chip_of(device))
    return narrow if width <= NARROW else wide


def _score_slab(
    h_ND: torch.Tensor,
    w_VD: torch.Tensor,
    y_N: torch.Tensor,
    scores: TokenScores,
    parts: torch.Tensor,
    best_CN: torch.Tensor,
    tiles: Tiles,
) -> None:
    """Fill `scores`; `parts` (largest, sum, and perhaps second) and `best_CN` are scratch."""
    (N, D), V, device = h_ND.shape, len(w_VD), h_ND.device
    with_best = len(parts) == 3
    peak_CN, sum_CN, second_CN = parts[0], parts[1], parts[-1]
    chip = chip_of(device)
    copies_tiles = chip.copies_tiles and _copyable(h_ND) and _copyable(w_VD)
    C = triton.cdiv(V, tiles.v)
    launch(
        tile_scores,
        (min(C * triton.cdiv(N, tiles.n), chip.multiprocessors * tiles.programs),),
        device,
        TensorDescriptor.from_tensor(h_ND, [tiles.n, tiles.d]) if copies_tiles else h_ND,
        TensorDescriptor.from_tensor(w_VD, [tiles.v, tiles.d]) if copies_tiles else w_VD,
        h_ND.stride(0),
        w_VD.stride(0),
        y_N,
        peak_CN,
        sum_CN,
        second_CN,
        best_CN,
        scores.target_logit,
        N,
        V,
        D,
        BLOCK_N=tiles.n,
        BLOCK_V=tiles.v,
        BLOCK_D=tiles.d,
        BAND=BAND // tiles.n,
        COPIES_TILES=copies_tiles,
        WITH_BEST=with_best,
        EVEN=V % tiles.v == 0,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        maxnreg=tiles.registers,
    )
    launch(
        join_tiles,
        (triton.cdiv(N, JOINED_ROWS),),
        device,
        peak_CN,
        sum_CN,
        second_CN,
        best_CN,
        y_N,
        scores.target_logit,
        scores.nll,
        scores.logsumexp,
        scores.argmax,
        scores.margin,
        N,
        V,
        C,
        BLOCK_C=triton.next_power_of_2(C),
        BLOCK_N=JOINED_ROWS,
        WITH_BEST=with_best,
        num_warps=4,
    )


def _copyable(x: torch.Tensor) -> bool:
    """Whether the copy engine takes it: rows start at multiples of 16 bytes."""
    aligned = x.device.type == "meta" or x.data_ptr() % 16 == 0
    return aligned and x.stride(0) * x.element_size() % 16 == 0


def _check(h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor) -> None:
    kinds = (h_ND.dtype, w_VD.dtype, y_N.dtype)
    float32 = h_ND.dtype == torch.float32 and h_ND.device.type == "cpu"  # in the interpreter
    if h_ND.dtype != w_VD.dtype or not (float32 or h_ND.dtype in HALF) or y_N.dtype != torch.int64:
        raise ArgumentError(f"expected h and W of one half type and int64 targets, got {kinds}")
    if not h_ND.device == w_VD.device == y_N.device:
        raise ArgumentError(
            f"h, W and targets lie on {h_ND.device}, {w_VD.device} and {y_N.device}, not on one"
        )
    shapes = tuple(h_ND.shape), tuple(w_VD.shape), tuple(y_N.shape)
    if (h_ND.ndim, w_VD.ndim, y_N.ndim) != (2, 2, 1) or not (
        shapes[0] == (len(y_N), w_VD.shape[1]) and w_VD.numel()
    ):
        raise ArgumentError(f"expected h [N, D], W [V, D] and targets [N], got {shapes}")
    if not h_ND.stride(1) == w_VD.stride(1) == y_N.stride(0) == 1:
        raise ArgumentError(
            f"rows of h and W, and the targets, must be contiguous; their strides are "
            f"{h_ND.stride()}, {w_VD.stride()} and {y_N.stride()}"
        )
