"""The last product with the losses, beside cuBLAS alone and torch's ways to do the same.

N rows, D width, V vocabulary rows.
"""

import torch
from roofline import Work
from torch.nn import functional

from on_gpu.bench import Bench, WrongAnswerError, name_of
from pythia_fast.kernels.gpu.cross_entropy import linear_nll, linear_scores

ROWS, V = 8192, 50_304
WIDTHS = (512, 1024, 2048, 5120)
CHECKED = 128
"""So many rows are compared with float64."""
BARE, CROSS_ENTROPY = "bare cuBLAS product, no losses", "cuBLAS, cross_entropy of float32 logits"
BARE_TARGETS = {512: 0.6, 1024: 0.75, 2048: 0.85, 5120: 0.85}
CROSS_ENTROPY_TARGET = 2.0


def run(bench: Bench) -> None:
    """Losses alone, and all scores."""
    widths = (64,) if bench.rehearsal else WIDTHS
    cases = [(width, kind) for kind in bench.halves for width in widths]
    for width, kind in bench.within_time(cases):
        case = f"D = {width}, {name_of(kind)}"
        with bench.attempt(case), torch.inference_mode():
            _case(bench, case, width, kind)


def _case(bench: Bench, case: str, width: int, kind: torch.dtype) -> None:
    rows, vocabulary = (33, 300) if bench.rehearsal else (ROWS, V)
    h_ND = bench.random(rows, width, dtype=kind)
    w_VD = bench.random(vocabulary, width, dtype=kind, scale=width**-0.5)
    y_N = bench.ids(vocabulary, rows)
    peers = {
        CROSS_ENTROPY: lambda: functional.cross_entropy(
            functional.linear(h_ND, w_VD).float(), y_N, reduction="none"
        ),
        "cuBLAS, cross_entropy of logits": lambda: functional.cross_entropy(
            functional.linear(h_ND, w_VD), y_N, reduction="none"
        ),
    }
    if hasattr(functional, "linear_cross_entropy"):
        peers["F.linear_cross_entropy"] = lambda: functional.linear_cross_entropy(
            h_ND, w_VD, y_N, reduction="none"
        )
    logits_NV = h_ND[:CHECKED].double() @ w_VD.double().T
    exact_N = functional.cross_entropy(logits_NV, y_N[:CHECKED], reduction="none")
    # Losses in the dtype of the logits are rounded to it: another answer, timed all the same.
    admitted = {CROSS_ENTROPY: peers[CROSS_ENTROPY]}
    errors = bench.answers(
        lambda: linear_nll(h_ND, w_VD, y_N), admitted, exact_N, lambda x: x[:CHECKED]
    )
    bench.answers(
        lambda: linear_scores(h_ND, w_VD, y_N).nll, admitted, exact_N, lambda x: x[:CHECKED]
    )
    best_N2 = logits_NV.topk(2, dim=-1)
    clear_N = best_N2.values[:, 0] - best_N2.values[:, 1] > 4 * errors["peers_error"] + 1e-6
    argmax_N = linear_scores(h_ND, w_VD, y_N).argmax[:CHECKED]
    if not bool((argmax_N == best_N2.indices[:, 0])[clear_N].all()):
        raise WrongAnswerError("an arg max is wrong where there is no tie")
    work = Work(2.0 * rows * width * vocabulary, h_ND.nbytes + w_VD.nbytes, name_of(kind))
    targets = {CROSS_ENTROPY: CROSS_ENTROPY_TARGET}
    if width in BARE_TARGETS:
        targets[BARE] = BARE_TARGETS[width]
    all_peers = {BARE: lambda: functional.linear(h_ND, w_VD), **peers}
    form = f"N = {rows}, V = {vocabulary}, {case}"
    bench.race(
        f"nll, {form}",
        lambda: linear_nll(h_ND, w_VD, y_N),
        all_peers,
        work=work,
        target=targets,
        numbers=errors,
    )
    bench.race(
        f"all scores, {form}",
        lambda: linear_scores(h_ND, w_VD, y_N),
        {BARE: all_peers[BARE], CROSS_ENTROPY: peers[CROSS_ENTROPY]},
        work=work,
        numbers=errors,
    )
