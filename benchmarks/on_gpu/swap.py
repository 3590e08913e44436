"""Checkpoints into a GPU that computes: how near to a bare copy, and what the computing waits for.

B sequences, T tokens.
"""

import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

import torch

import pythia_fast
from on_gpu.bench import Bench, WrongAnswerError
from on_gpu.clock import Call
from on_gpu.transformers_loop import dtype_on, from_pretrained
from on_gpu.weights import series_in_memory
from pythia_fast.model import Weights
from pythia_fast.model.ring import SLOT_BYTES, pieces
from pythia_fast.model.streams import streams_of
from pythia_fast.series import open_series
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import tiny

SIZES = {"1.4b": 6, "70m": 12}
"""Checkpoints of each."""
COPY_TARGET, STEP_TARGET, BUBBLE_TARGET_S = 0.95, 1.05, 1e-3
SETTLING = 2
"""Steps at the beginning and the end that are not steady: arenas are filled, nothing follows."""


@dataclass(frozen=True, slots=True)
class Step:
    """When a step's computing began and ended, by this thread's clock and on the GPU's stream."""

    begin_s: float
    end_s: float
    begun: torch.cuda.Event | None
    ended: torch.cuda.Event | None


def run(bench: Bench) -> None:
    """Size by size: one load, then a stream of checkpoints that is short of each in turn."""
    for size, count in ({"tiny": 6} if bench.rehearsal else SIZES).items():
        architecture = tiny(width=64, heads=2) if size == "tiny" else spec(size).architecture
        with (
            bench.attempt(f"swap, {size}"),
            series_in_memory(architecture, count, bench.device) as folder,
        ):
            load_s = _one_load(bench, size, architecture, folder, count)
            for share in (0.5, 2.0):
                _stream(bench, size, architecture, folder, share, load_s)


def _one_load(
    bench: Bench, size: str, architecture: Architecture, folder: Path, count: int
) -> float:
    """A checkpoint from files in memory into the arena, beside a copy of the same bytes."""
    kind = getattr(torch, dtype_on(bench.device))
    series, weights = open_series(folder), Weights(architecture, dtype=kind, device=bench.device)
    steps, theirs = cycle(range(count)), cycle(range(count))
    host = torch.randint(256, (weights.flat.nbytes,), dtype=torch.uint8)
    host = host if bench.rehearsal else host.pin_memory()
    target = torch.empty_like(host, device=bench.device)

    def load() -> None:
        with closing(series.open(next(steps))) as checkpoint:
            weights.load(checkpoint)

    load()
    model = from_pretrained(folder / "step0", bench.device)
    expected = model.state_dict()
    expected["embed_out.weight"] = expected.pop("lm_head.weight")
    for name, tensor in weights.state_dict().items():
        if not torch.equal(tensor, expected[name]):
            raise WrongAnswerError(f"{name} is not what transformers reads")
    del model, expected
    copy = "a copy of the arena's bytes out of pinned memory"
    bench.race(
        f"load, {size}",
        load,
        {
            copy: lambda: target.copy_(host, non_blocking=True),
            "transformers' from_pretrained": lambda: from_pretrained(
                folder / f"step{next(theirs)}", bench.device
            ),
        },
        target={copy: COPY_TARGET},
        cache="files in memory, another step each time",
        clock=bench.wall,
        case_s=4.0,
        numbers={"gb": weights.flat.nbytes / 1e9},
    )
    with bench.attempt(f"pieces of the ring, {size}"):
        _pieces(bench, size, weights, {copy: lambda: target.copy_(host, non_blocking=True)}, copy)
    begin_s = time.perf_counter()
    for _ in range(3):
        load()
    return (time.perf_counter() - begin_s) / 3


def _pieces(
    bench: Bench, size: str, weights: Weights, peers: Mapping[str, Call], copy: str
) -> None:
    """The copies of a load alone, piece by piece on the copying stream, nothing being read."""
    if bench.rehearsal:
        source, give = weights.flat.clone(), torch.Tensor.copy_
    else:
        streams = streams_of(bench.device)
        source, give = streams.pinned(weights.flat.nbytes).view(weights.dtype), streams.copy
        source.copy_(weights.flat)
    cut = pieces(weights.layout, SLOT_BYTES // weights.dtype.itemsize)
    expected = source.clone()

    def ours() -> None:
        for piece in cut:
            give(weights.flat[piece.begin : piece.end], source[piece.begin : piece.end])

    weights.flat.fill_(torch.nan)
    bench.wall.ready(ours)
    if not torch.equal(weights.flat.cpu(), expected):
        raise WrongAnswerError("the pieces do not make the arena")
    bench.race(
        f"pieces of the ring, {size}",
        ours,
        peers,
        target={copy: COPY_TARGET},
        cache="pinned memory",
        clock=bench.wall,
        case_s=2.0,
        numbers={"pieces": len(cut)},
    )


def _stream(
    bench: Bench, size: str, architecture: Architecture, folder: Path, share: float, load_s: float
) -> None:
    """Steps whose computing takes about `share` of a load's time."""
    kind, tokens = dtype_on(bench.device), 17 if bench.rehearsal else 2049
    model = pythia_fast.load(folder, 0, dtype=kind, device=bench.device)
    few_BT = bench.ids(architecture.vocab_rows, 8, tokens)
    model.nll(few_BT).cpu()
    each_s = _median_s(model, few_BT) / len(few_BT)
    sequences = max(1, min(512, round(share * load_s / each_s)))
    ids_BT = bench.ids(architecture.vocab_rows, sequences, tokens)
    expected_BT = model.nll(ids_BT).cpu()
    compute_s = _median_s(model, ids_BT)
    del model
    steps = []
    for number, resident in pythia_fast.stream(folder, dtype=kind, device=bench.device):
        begun, begin_s = _event(bench), time.perf_counter()
        losses_BT = resident.nll(ids_BT)
        ended = _event(bench)
        losses_BT = losses_BT.cpu()
        steps.append(Step(begin_s, time.perf_counter(), begun, ended))
        if number == 0 and not torch.equal(losses_BT, expected_BT):
            apart = float((losses_BT - expected_BT).abs().max())
            raise WrongAnswerError(
                f"a streamed checkpoint's losses are {apart:.3g} from a loaded's"
            )
    steady = steps[SETTLING : len(steps) - 1]
    period_s = statistics.median(b.begin_s - a.begin_s for a, b in pairwise(steady))
    bound_s = max(load_s, compute_s)
    bench.note(
        f"steady step, {size}, {sequences} x {tokens - 1}, computing {share:g} of loading",
        {
            "load_s": load_s,
            "compute_s": compute_s,
            "step_s": period_s,
            "step_over_max": period_s / bound_s,
            "asked_at_most": STEP_TARGET,
            "gpu_idle_between_s": statistics.median(_idle_s(a, b) for a, b in pairwise(steady)),
        }
        | ({"asked_idle_s": BUBBLE_TARGET_S} if share > 1 else {}),
    )


def _idle_s(before: Step, after: Step) -> float:
    """From the last kernel of a step to the first of the next."""
    if before.ended is None or after.begun is None:
        return after.begin_s - before.end_s
    return before.ended.elapsed_time(after.begun) / 1e3


def _event(bench: Bench) -> torch.cuda.Event | None:
    if bench.rehearsal:
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _median_s(model: pythia_fast.Model, ids_BT: torch.Tensor) -> float:
    """Seconds of the losses until they are on the CPU."""
    elapsed_s = []
    for _ in range(5):
        begin_s = time.perf_counter()
        model.nll(ids_BT).cpu()
        elapsed_s.append(time.perf_counter() - begin_s)
    return statistics.median(elapsed_s)
