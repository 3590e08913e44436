"""The last product and the losses in one kernel, beside torch's ways to do the same.

N rows, D width, V vocabulary rows.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from comparison import Comparison, Effort, Ours
from roofline import Work
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, linear, linear_cross_entropy

from pythia_fast.kernels.cross_entropy import linear_nll, linear_scores

FORMS = {
    "quick": (128, {"bfloat16": (512,), "float32": (512,)}),
    "standard": (2048, {"bfloat16": (512, 768, 1024, 2048), "float32": (512,)}),
    "full": (2048, dict.fromkeys(("bfloat16", "float32"), (512, 768, 1024, 2048))),
}
V = 50_304
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each data type and width of the effort's form."""
    _, widths = FORMS[metafunc.config.getoption("--effort")]
    cases = [(dtype, width) for dtype, of_dtype in widths.items() for width in of_dtype]
    metafunc.parametrize(("dtype", "width"), cases)


@torch.inference_mode()
def test_linear_cross_entropy(
    benchmark: Any, comparison: Comparison, effort: Effort, dtype: str, width: int
) -> None:
    """Losses alone and all scores; the bare product is what a fused kernel could hide behind."""
    rows, _ = FORMS[effort.name]
    generator = torch.Generator().manual_seed(width)
    kind: torch.dtype = getattr(torch, dtype)
    h_ND = torch.randn(rows, width, generator=generator).to(kind)
    w_VD = (torch.randn(V, width, generator=generator) / width**0.5).to(kind)
    y_N = torch.randint(V, (rows,), generator=generator)
    tensors = (h_ND, w_VD, y_N)
    chunks = best_chunks(comparison, dtype, tensors)
    peers: dict[str, Callable[[], torch.Tensor]] = {
        BARE: lambda: linear(h_ND, w_VD),
        FLOAT32_LOSSES: lambda: cross_entropy(linear(h_ND, w_VD).float(), y_N, reduction="none"),
        REFERENCE: lambda: reference(*tensors),
        f"{CHUNKED}, {chunks}": lambda: chunked(tensors, CHUNKS[chunks]),
    }
    if dtype == "bfloat16":
        torch.compiler.reset()  # or another width compiles for any width, and slower code
        compiled = torch.compile(reference, dynamic=False)
        peers[COMPILED] = lambda: compiled(*tensors)
    check(tensors, peers)
    work = Work(2.0 * rows * width * V, (h_ND.nbytes + w_VD.nbytes), dtype)
    targets = {BARE: LINEAR_TARGET, REFERENCE: LINEAR_CROSS_ENTROPY_TARGET}
    case = f"N = {rows}, V = {V}, D = {width}, {dtype}"
    comparison.run_all(
        benchmark,
        [
            Ours(
                f"linear_nll, {case}",
                lambda: linear_nll(*tensors),
                work,
                target=targets if dtype == "bfloat16" else {},
            ),
            Ours(f"linear_scores, {case}", lambda: linear_scores(*tensors), work),
        ],
        peers,
        cache="weights in the cache as far as they fit",
    )


def check(tensors: Tensors, peers: Mapping[str, Callable[[], torch.Tensor]]) -> None:
    """Ours is as near to float64 as torch's best, and the peers answer the same question."""
    logits_NV = tensors[0].double() @ tensors[1].double().T
    exact_N = cross_entropy(logits_NV, tensors[2], reduction="none")
    torch_error = float((peers[FLOAT32_LOSSES]() - exact_N).abs().max())
    scores = linear_scores(*tensors)
    for ours_N in (linear_nll(*tensors), scores.nll):
        assert float((ours_N - exact_N).abs().max()) <= 2 * torch_error + 1e-6
    best_N2 = logits_NV.topk(2, dim=-1).values
    margin_N = (best_N2[:, 0] - best_N2[:, 1]).float()
    clear_N = margin_N > 4 * torch_error
    assert bool((scores.argmax == logits_NV.argmax(-1))[clear_N].all())
    for name, peer in peers.items():
        if name != BARE:
            step = torch.finfo(tensors[0].dtype).eps * float(exact_N.max())
            assert float((peer() - exact_N).abs().max()) <= 2 * torch_error + 2 * step, name


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
        timed = {}
        for name, options in CHUNKS.items():
            call = functools.partial(chunked, tensors, options)
            call()
            started = time.perf_counter()
            call()
            timed[name] = time.perf_counter() - started
            case = f"{CHUNKED}, {dtype}, D = {tensors[0].shape[1]}"
            comparison.calibrated(case, name, {"s": timed[name]})
        _best[dtype] = min(timed, key=lambda name: timed[name])
    return _best[dtype]
