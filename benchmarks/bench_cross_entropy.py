"""The last product and the losses in one kernel, beside torch's ways to do the same.

N rows, D width, V vocabulary rows.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from comparison import Comparison, Effort, Ours, timed
from forms import multiplied_dtypes
from roofline import Work
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, layer_norm, linear, linear_cross_entropy

from pythia_fast.kernels import cross_entropy as slices
from pythia_fast.kernels.cpu import CpuKernels, has_amx
from pythia_fast.kernels.panels import Operand, panelled
from pythia_fast.kernels.scores import TokenScores

FORMS = {
    "quick": (128, {"bfloat16": (512,), "split-bf16": (512,), "float32": (512,)}),
    "standard": (
        2048,
        {"bfloat16": (512, 768, 1024, 2048), "split-bf16": (512,), "float32": (512,)},
    ),
    "full": (
        2048,
        dict.fromkeys(("bfloat16", "split-bf16", "float32"), (512, 768, 1024, 2048)),
    ),
}
V, EPSILON = 50_304, 1e-5
CHECKED = 8
"""The losses of one row in so many are compared with float64."""
LINEAR_TARGET, LINEAR_CROSS_ENTROPY_TARGET = 1 / 0.6, 3.5

BARE = "bare F.linear, no losses"
FLOAT32_LOSSES = "F.linear, F.cross_entropy of float32 logits"
REFERENCE = "F.linear_cross_entropy, reference"
COMPILED = "F.linear_cross_entropy, reference, torch.compile"
CHUNKED = "F.linear_cross_entropy, chunked"

CHUNKS: Mapping[str, LinearCrossEntropyOptions] = {
    "auto": LinearCrossEntropyOptions(),
    **{
        f"{rows} rows, {policy}": LinearCrossEntropyOptions(
            batch_chunk_size=rows, chunking_method=None, acc_policy=policy
        )
        for policy in ("compact", "accurate")
        for rows in (256, 1024)
    },
}

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def by_torch(tensors: Tensors) -> torch.Tensor:
    """What other devices than CPUs use: torch's products on slices of the vocabulary."""
    return slices._joined(*tensors, with_best=False).nll()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each data type and width of the effort's form."""
    _, widths = FORMS[metafunc.config.getoption("--effort")]
    cases = [(dtype, width) for dtype in multiplied_dtypes() for width in widths[dtype]]
    metafunc.parametrize(("dtype", "width"), cases)


@torch.inference_mode()
def test_linear_cross_entropy(
    benchmark: Any, comparison: Comparison, effort: Effort, dtype: str, width: int
) -> None:
    """Losses alone and all scores; the bare product is what a fused kernel could hide behind.

    Ours begins at the residual stream: the final LayerNorm writes what the kernel reads, and its
    time is in ours. The peers find the LayerNorm's output in memory.
    """
    rows, _ = FORMS[effort.name]
    generator = torch.Generator().manual_seed(width)
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    x_ND = torch.randn(rows, width, generator=generator)
    h_ND = layer_norm(x_ND, (width,), eps=EPSILON).to(kind)
    w_VD = (torch.randn(V, width, generator=generator) / width**0.5).to(kind)
    y_N = torch.randint(V, (rows,), generator=generator)
    tensors = (h_ND, w_VD, y_N)
    fused = Fused(dtype, x_ND, w_VD, y_N)
    peers: dict[str, Callable[[], torch.Tensor]] = {
        BARE: lambda: linear(h_ND, w_VD),
        FLOAT32_LOSSES: lambda: cross_entropy(linear(h_ND, w_VD).float(), y_N, reduction="none"),
        REFERENCE: lambda: reference(*tensors),
    }
    if dtype == "bfloat16":
        torch.compiler.reset()  # or another width compiles for any width, and slower code
        compiled = torch.compile(reference, dynamic=False)
        peers[COMPILED] = lambda: compiled(*tensors)
    if dtype != "split-bf16":
        chunks = best_chunks(comparison, dtype, tensors)
        peers[f"{CHUNKED}, {chunks}"] = lambda: chunked(tensors, CHUNKS[chunks])
        peers["ours by torch's products, in slices"] = lambda: by_torch(tensors)
    round_s = check(tensors, fused, peers)
    flops, weights = 2.0 * rows * width * V, h_ND.nbytes + w_VD.nbytes
    work, of_peers = Work(flops, weights, dtype), Work(flops, weights, str(kind)[len("torch.") :])
    targets = {BARE: LINEAR_TARGET, REFERENCE: LINEAR_CROSS_ENTROPY_TARGET}
    if dtype != "bfloat16":
        targets = {}
    case = f"N = {rows}, V = {V}, D = {width}, {dtype}"
    comparison.run_all(
        benchmark,
        [
            Ours(f"nll, {case}", fused.nll, work, target=targets),
            Ours(f"all scores, {case}", fused.scores, work, against=(BARE, REFERENCE)),
        ],
        peers,
        peer_work=dict.fromkeys(peers, of_peers),
        cache="weights in the cache as far as they fit",
        round_s=round_s,
    )


class Fused:
    """The native kernel as the forward pass calls it, after the final LayerNorm."""

    def __init__(
        self, dtype: str, x_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor
    ) -> None:
        width = x_ND.shape[1]
        self.dtype = dtype
        self._kernels = CpuKernels(dtype if has_amx() else "float32")
        self._x_PDL, self._y_N = panelled(x_ND), y_N
        # Packed before, as a model does once for each load.
        self._w = w_VD if self._kernels.arithmetic == "float32" else self._kernels.pack(w_VD)
        self._h = self._kernels.operand(width, len(self._x_PDL))
        self._plain = (torch.ones(width), torch.zeros(width))

    def _norm(self) -> Operand:
        self._kernels.norm(self._x_PDL, (self._plain,), EPSILON, (self._h,))
        return self._h

    def nll(self) -> torch.Tensor:
        """Nats, [N]."""
        return self._kernels.nll(self._norm(), self._w, self._y_N)

    def scores(self) -> TokenScores:
        """Nats, logsumexp, target logit, arg max and margin, [N] each."""
        return self._kernels.scores(self._norm(), self._w, self._y_N)


def check(tensors: Tensors, fused: Fused, peers: Mapping[str, Callable[[], torch.Tensor]]) -> float:
    """Ours is as near to float64 as torch's best, and the peers answer the same question.

    Returns the seconds that a round takes: a second call of each.
    """
    calls = {"nll": fused.nll, "scores": fused.scores, **peers}
    answers = {name: call() for name, call in calls.items()}
    round_s = sum(timed(call) for call in calls.values())
    h_ND, w_VD, y_N = tensors
    logits_NV = h_ND[::CHECKED].double() @ w_VD.double().T
    exact_N = cross_entropy(logits_NV, y_N[::CHECKED], reduction="none")

    def error(nll_N: torch.Tensor) -> float:
        return float((nll_N[::CHECKED] - exact_N).abs().max())

    bound = 2 * error(answers[FLOAT32_LOSSES]) + (1e-4 if fused.dtype == "split-bf16" else 1e-6)
    scores = answers["scores"]
    assert error(answers["nll"]) <= bound
    assert error(scores.nll) <= bound
    best_N2 = logits_NV.topk(2, dim=-1).values
    clear_N = best_N2[:, 0] - best_N2[:, 1] > 2 * bound
    assert bool((scores.argmax[::CHECKED] == logits_NV.argmax(-1))[clear_N].all())
    step = torch.finfo(h_ND.dtype).eps * float(exact_N.max())
    for name in peers:
        if name != BARE:
            assert error(answers[name]) <= bound + 2 * step, name
    return round_s


def reference(h_ND: torch.Tensor, w_VD: torch.Tensor, y_N: torch.Tensor) -> torch.Tensor:
    """As its documentation gives it: logits in memory, losses in the dtype of the logits."""
    return linear_cross_entropy(h_ND, w_VD, y_N, reduction="none")


def chunked(tensors: Tensors, options: LinearCrossEntropyOptions) -> torch.Tensor:
    """The way of torch itself to keep logits small."""
    return linear_cross_entropy(*tensors, reduction="none", options=options)


_best: dict[str, str] = {}


def best_chunks(comparison: Comparison, dtype: str, tensors: Tensors) -> str:
    """The fastest of `CHUNKS` for a data type, at the first width that is asked for."""
    if dtype not in _best:
        tried = {}
        for name, options in CHUNKS.items():
            call = functools.partial(chunked, tensors, options)
            call()
            tried[name] = timed(call)
            case = f"{CHUNKED}, {dtype}, D = {tensors[0].shape[1]}"
            comparison.calibrated(case, name, {"s": tried[name]})
        _best[dtype] = min(tried, key=lambda name: tried[name])
    return _best[dtype]
