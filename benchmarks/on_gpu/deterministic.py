"""deterministic=True beside the default: a row's bits are its own, and what that costs."""

import torch
from forms import forward_flops
from roofline import Work

import pythia_fast
from on_gpu.bench import Bench, WrongAnswerError
from on_gpu.transformers_loop import dtype_on
from on_gpu.weights import series_in_memory
from pythia_fast.suite import spec
from pythia_fast.testing import tiny

SIZES = {"70m": 128, "410m": 64, "1.4b": 32}
"""Sequences of 2048 tokens."""
TARGET = 0.9


def run(bench: Bench) -> None:
    """The ratio is the default's time over that of deterministic=True."""
    for size, count in ({"tiny": 3} if bench.rehearsal else SIZES).items():
        case = f"losses, {size}, {count} sequences, deterministic"
        if not bench.rehearsal and bench.left_s < 10:
            bench.note(case, {"left out": "no time was left"})
            continue
        with bench.attempt(case):
            _losses(bench, case, size, count)


def _losses(bench: Bench, case: str, size: str, count: int) -> None:
    architecture = tiny(width=64, heads=2) if size == "tiny" else spec(size).architecture
    tokens = 17 if size == "tiny" else 2049
    ids_BT = bench.ids(architecture.vocab_rows, count, tokens)
    with series_in_memory(architecture, 1, bench.device) as series:
        default = pythia_fast.load(series, 0, dtype=dtype_on(bench.device), device=bench.device)
        own = pythia_fast.Model(default.weights, default.spec, deterministic=True)
        together_BT = own.nll(ids_BT)
        for row in (0, count - 1):
            if not torch.equal(own.nll(ids_BT[row : row + 1])[0], together_BT[row]):
                raise WrongAnswerError(f"row {row} has other bits alone than in a batch")
        apart = float((default.nll(ids_BT) - together_BT).abs().mean())
        bench.race(
            case,
            lambda: own.nll(ids_BT),
            {"the default": lambda: default.nll(ids_BT)},
            work=Work(forward_flops(architecture, count, tokens - 1), dtype="float16"),
            target={"the default": TARGET},
            numbers={"mean_difference": apart},
            clock=bench.wall,
            case_s=4.0,
        )
