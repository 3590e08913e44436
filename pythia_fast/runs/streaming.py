"""One resident model, and the weights of checkpoint after checkpoint flowing into it.

Two arenas where memory allows: the model computes on one while a thread reads the next checkpoint
into the other. Where only one fits, loading and computing take turns. Memory is therefore bounded
by two checkpoints in the resident data type, however long the series.
"""

import errno
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pythia_fast.errors import ArgumentError, ReadError
from pythia_fast.model import (
    LoadReport,
    Model,
    Precision,
    Weights,
    packed_bytes,
    resolve_precision,
)
from pythia_fast.series import Checkpoint, CheckpointSeries, open_series
from pythia_fast.suite import Architecture, Steps, parse_steps

_log = logging.getLogger("pythia_fast")

MEMORY_SHARE = 0.8
"""The part of the free memory that two arenas may take."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in its arena, ready to compute with.

    `weights_sha256` is "" where it was not asked for; `wait_s` is how long the caller waited.
    """

    step: int
    weights: Weights
    checkpoint: Checkpoint
    report: LoadReport
    weights_sha256: str
    identity: str
    load_s: float
    hash_s: float
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A checkpoint that could not be loaded, and why."""

    step: int
    error: Exception


def resolve_device(device: str | torch.device | None) -> torch.device:
    """`device`, or the first GPU, or else the CPU. ArgumentError if it is neither, or not here."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ArgumentError(f"no device {device!r}: {error}") from error
    if resolved.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device {device!r} is neither a CPU nor a CUDA GPU")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"device {device!r} was asked for, but torch sees no GPU here")
    return resolved


def load(
    model: str | Path,
    step: int | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    cache_dir: str | Path | None = None,
) -> Model:
    """One checkpoint as a `Model`; `step=None` is the last of the series.

    Args:
        model: a name of the suite ("12b", "160m-seed3", …) or a folder that holds `stepN/`.
        step: the training step.
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16", "float16", "split-bf16" (float32 weights as sums of two
            bfloat16, on a CPU with AMX) or "auto": float16 on a GPU, on a CPU "split-bf16" with
            AMX and "float32" without.
        cache_dir: where downloads go; huggingface_hub's own cache if None.

    Raises:
        UnknownModelError, UnknownStepError: no such model or step; the nearest are named.
        MissingCheckpointError: the step's files are not all there.
        FormatError, WeightsError: a file is not what it should be.
    """
    wanted: str | int = "last" if step is None else step
    stream_of_one = stream(model, wanted, device=device, dtype=dtype, cache_dir=cache_dir)
    with closing(stream_of_one):
        return next(stream_of_one)[1]


def stream(
    model: str | Path,
    steps: Steps = "all",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    cache_dir: str | Path | None = None,
) -> Generator[tuple[int, Model], None, None]:
    """Walk through the checkpoints of a series with one resident model.

        for step, model in pythia_fast.stream("410m", steps="log"):
            print(step, model.nll(ids).mean())

    The same `Model` comes every time, with the weights of the next step: what is to outlive the
    step must be copied. The next checkpoint is read while the loop's body runs.

    Args:
        model: a name of the suite ("12b", "160m-seed3", …) or a folder that holds `stepN/`.
        steps: numbers, a range, "all", "log", "last" or "1000:143001:1000".
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16", "float16", "split-bf16" (float32 weights as sums of two
            bfloat16, on a CPU with AMX) or "auto": float16 on a GPU, on a CPU "split-bf16" with
            AMX and "float32" without.
        cache_dir: where downloads go; huggingface_hub's own cache if None.

    Raises:
        UnknownModelError, UnknownStepError: no such model or step; the nearest are named.
        MissingCheckpointError, FormatError, WeightsError: a step cannot be loaded; what was
            yielded before stays good.
    """
    target = resolve_device(device)
    series = open_series(model, cache_dir=cache_dir)
    precision = resolve_precision(dtype, target, series.spec.architecture)
    return _stream(series, parse_steps(steps, series.steps), precision, target)


def _stream(
    series: CheckpointSeries, steps: Sequence[int], precision: Precision, device: torch.device
) -> Generator[tuple[int, Model], None, None]:
    arenas = make_arenas(series.spec.architecture, len(steps), precision, device)
    resident = Model(arenas[0], series.spec, arithmetic=precision.arithmetic)
    with closing(prefetch(series, steps, arenas, hashed=False)) as loaded_steps:
        for loaded in loaded_steps:
            if isinstance(loaded, NotLoaded):
                loaded.error.add_note(f"while loading step {loaded.step} of {series.name}")
                raise loaded.error
            swap(resident, loaded)
            yield loaded.step, resident


def swap(resident: Model, loaded: Loaded) -> None:
    """Let the resident model compute with what was loaded. Nothing is copied."""
    resident.weights = loaded.weights
    resident.step = loaded.step
    resident.checkpoint = loaded.checkpoint


def make_arenas(
    architecture: Architecture, steps: int, precision: Precision, device: torch.device
) -> tuple[Weights, ...]:
    """One arena for one step; two for more, if they fit into the memory that is free.

    Beside them there must be room for what the native kernels make of the weights.
    """
    free = free_bytes(device)
    first = Weights(architecture, dtype=precision.dtype, device=device)
    if steps < 2:
        return (first,)
    needed = first.flat.nbytes * 2 + packed_bytes(architecture, precision.arithmetic)
    if needed > MEMORY_SHARE * free:
        _log.warning(
            "two checkpoints of %.1f GB do not fit into %.1f GB of free memory: loading and "
            "computing take turns",
            *(first.flat.nbytes / 1e9, free / 1e9),
        )
        return (first,)
    return first, Weights(architecture, dtype=precision.dtype, device=device)


def free_bytes(device: torch.device) -> int:
    """Memory on `device` that is free or can be freed, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def prefetch(
    series: CheckpointSeries,
    steps: Iterable[int],
    arenas: Sequence[Weights],
    *,
    hashed: bool,
) -> Generator[Loaded | NotLoaded, None, None]:
    """Load the steps in turn, each into the next arena, one ahead where there are two.

    A step that cannot be loaded comes with its error, and the next is gone on with. What was
    yielded may be used until the next is asked for. `hashed` also computes the weights' sha256.
    """
    turns = zip(steps, itertools.cycle(arenas), strict=False)
    pending: deque[Future[Loaded | NotLoaded]] = deque()
    with ThreadPoolExecutor(1, "pythia_fast-load") as pool:
        try:
            for step, weights in itertools.islice(turns, len(arenas) - 1):
                pending.append(pool.submit(_load, series, step, weights, hashed))
            for step, weights in turns:
                pending.append(pool.submit(_load, series, step, weights, hashed))
                yield _awaited(pending.popleft())
            while pending:
                yield _awaited(pending.popleft())
        finally:
            for future in pending:
                future.cancel()


def _awaited(future: "Future[Loaded | NotLoaded]") -> Loaded | NotLoaded:
    started = time.perf_counter()
    loaded = future.result()
    if isinstance(loaded, NotLoaded):
        return loaded
    return replace(loaded, wait_s=time.perf_counter() - started)


def _load(
    series: CheckpointSeries, step: int, weights: Weights, hashed: bool
) -> Loaded | NotLoaded:
    try:
        started = time.perf_counter()
        identity = series.identity(step)
        checkpoint = series.open(step)
        report = weights.load(checkpoint)
        loaded = time.perf_counter()
        sha256 = checkpoint.weights_sha256 if hashed else ""
        if series.identity(step) != identity:
            raise ReadError(
                errno.ESTALE,
                f"step {step} of {series.name} has changed while it was read: try again",
            )
        return Loaded(
            *(step, weights, checkpoint, report, sha256, identity),
            load_s=loaded - started,
            hash_s=time.perf_counter() - loaded,
        )
    except Exception as error:
        return NotLoaded(step, error)
