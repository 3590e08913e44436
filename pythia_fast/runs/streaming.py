"""One resident model, and the weights of checkpoint after checkpoint flowing into it.

Two arenas where memory allows: the model computes on one while a thread reads the next checkpoint
into the other. Where a GPU has room for one only, the other lies in the host's memory, and is
poured over layer by layer behind the computing. Else loading and computing take turns. Memory is
therefore bounded by three checkpoints in the resident data type, however long the series. What lies
on the Hub is fetched ahead of the reading, as far as the disk budget allows.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError, PinnedMemoryError
from pythia_fast.model import (
    Model,
    Precision,
    TokenizerSource,
    Weights,
    packed_bytes,
    resolve_precision,
    streams_of,
)
from pythia_fast.model.parameters import Layout
from pythia_fast.model.streams import Streams
from pythia_fast.quantities import sized
from pythia_fast.runs.prefetching import Loaded, NotLoaded, prefetch
from pythia_fast.series import CheckpointSeries, open_series
from pythia_fast.suite import Architecture, Steps, parse_steps
from pythia_fast.tokens import load_tokenizer

_log = logging.getLogger("pythia_fast")

MEMORY_SHARE = 0.8
"""The part of the free memory that two arenas may take."""

MOST_ARENAS = 5
"""One that is computed, and four that are loaded, by as many threads."""

SMALL_SHARE = 0.1
"""The part of a GPU's free memory that more than two arenas may take."""

HOST_SHARE = 0.7
SECOND_HOST_SHARE = 0.4
"""The part of the host's free memory that may be pinned for one arena, and for two: what is pinned
is lost to the cache of files, out of which checkpoints are read."""


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
    deterministic: bool = False,
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    tokenizer: TokenizerSource | None = None,
) -> Model:
    """One checkpoint as a `Model`; `step=None` is the last of the series.

    Args:
        model: a name of the suite ("12b", "160m-seed3", …) or a folder that holds `stepN/`.
        step: the training step.
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16", "float16", "split-bf16" (float32 weights as sums of two
            bfloat16, on a CPU with AMX) or "auto": float16 on a GPU, on a CPU "split-bf16" with
            AMX and "float32" without.
        deterministic: on a GPU, multiply by the kernels only, never by cuBLAS, so that a sequence's
            values are the same to the last bit whatever is computed with it. It changes nothing on
            a CPU, nor where torch computes, as `repr(model)` tells.
        cache_dir: where downloads go; beside huggingface_hub's own cache if None.
        disk_budget: the most that downloads may take on the disk, as "500GB" or in bytes; None is
            as much as there is room for.
        tokenizer: the path of a tokenizer.json, or a Tokenizer, for `model.tokenizer`; None is each
            step's own, looked for when it is first used.

    Raises:
        UnknownModelError, UnknownStepError: no such model or step; the nearest are named.
        ArgumentError: no such device or dtype, or `disk_budget` is less than one checkpoint takes.
        MissingTokensError: there is no tokenizer where one was said to be.
        MissingCheckpointError: the step's files are not all there.
        HubError, ChecksumError: they cannot be had, or are not what the Hub promises.
        FormatError, WeightsError: a file is not what it should be.
    """
    wanted: str | int = "last" if step is None else step
    stream_of_one = stream(
        model,
        wanted,
        device=device,
        dtype=dtype,
        deterministic=deterministic,
        cache_dir=cache_dir,
        disk_budget=disk_budget,
        tokenizer=tokenizer,
    )
    with closing(stream_of_one):
        return next(stream_of_one)[1]


def stream(
    model: str | Path,
    steps: Steps = "all",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    deterministic: bool = False,
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    tokenizer: TokenizerSource | None = None,
) -> Generator[tuple[int, Model], None, None]:
    """Walk through the checkpoints of a series with one resident model.

        for step, model in pythia_fast.stream("410m", steps="log"):
            print(step, model.nll(ids).mean())

    The same `Model` comes every time, with the weights of the next step: what is to outlive the
    step must be copied. The next checkpoint is read while the loop's body runs, and those after it
    are downloaded, as far as `disk_budget` allows. Leaving the loop stops the downloads; what has
    come of them is kept.

    Args:
        model: a name of the suite ("12b", "160m-seed3", …) or a folder that holds `stepN/`.
        steps: numbers, a range, "all", "log", "last" or "1000:143001:1000".
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16", "float16", "split-bf16" (float32 weights as sums of two
            bfloat16, on a CPU with AMX) or "auto": float16 on a GPU, on a CPU "split-bf16" with
            AMX and "float32" without.
        deterministic: on a GPU, multiply by the kernels only, never by cuBLAS, so that a sequence's
            values are the same to the last bit whatever is computed with it. It changes nothing on
            a CPU, nor where torch computes, as `repr(model)` tells.
        cache_dir: where downloads go; beside huggingface_hub's own cache if None.
        disk_budget: the most that downloads may take on the disk, as "500GB" or in bytes; None is
            as much as there is room for.
        tokenizer: the path of a tokenizer.json, or a Tokenizer, for `model.tokenizer`; None is each
            step's own, looked for when it is first used.

    Raises:
        UnknownModelError, UnknownStepError: no such model or step; the nearest are named.
        ArgumentError: no such device or dtype, or `disk_budget` is less than one checkpoint takes.
        MissingTokensError: there is no tokenizer where one was said to be.
        MissingCheckpointError, HubError, ChecksumError, FormatError, WeightsError: a step cannot be
            had or loaded; what was yielded before stays good.
    """
    target = resolve_device(device)
    given = None if tokenizer is None else load_tokenizer(tokenizer)
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    precision = resolve_precision(dtype, target, series.spec.architecture)
    return _stream(
        series, parse_steps(steps, series.steps), precision, target, given, deterministic
    )


def _stream(
    series: CheckpointSeries,
    steps: Sequence[int],
    precision: Precision,
    device: torch.device,
    tokenizer: Tokenizer | None,
    deterministic: bool,
) -> Generator[tuple[int, Model], None, None]:
    arenas = make_arenas(series.spec.architecture, len(steps), precision, device)
    resident = Model(
        arenas.resident,
        series.spec,
        arithmetic=precision.arithmetic,
        series=series,
        deterministic=deterministic,
    )
    if tokenizer is not None:
        resident.tokenizer = tokenizer
    coming = prefetch(
        *(series, deque(steps), arenas.loading), hashed=False, poured_into=arenas.poured_into
    )
    with closing(coming) as loaded_steps:
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


@dataclass(frozen=True, slots=True)
class Arenas:
    """The memory that checkpoints flow through.

    `loading` are loaded into in turn. Where a GPU has room for one arena only, they are the host's,
    and what is loaded is `poured_into` the GPU's while it computes its first layers already.
    """

    loading: tuple[Weights, ...]
    poured_into: Weights | None = None

    @property
    def resident(self) -> Weights:
        """An arena that a model can compute with."""
        return self.loading[0] if self.poured_into is None else self.poured_into


def make_arenas(
    architecture: Architecture,
    steps: int,
    precision: Precision,
    device: torch.device,
    *,
    share: float = 1.0,
) -> Arenas:
    """One arena for one step; two for more, if they fit into this share of the free memory.

    On a GPU there are up to `MOST_ARENAS`, as long as they take little of it: reading and hashing,
    a core each, would else be what a small model waits for.

    Beside them there must be room for what the native kernels make of the weights, or a GPU's
    activations. Where they do not fit onto a GPU, but into the host's memory, it is the second one
    that is the host's. ArgumentError if not even one fits onto a GPU.
    """
    free = int(share * free_bytes(device))
    nbytes = Layout(architecture, precision.dtype.itemsize).numel * precision.dtype.itemsize
    if device.type == "cuda" and nbytes > free:
        raise ArgumentError(
            f"the weights take {sized(nbytes)} in {precision.name}, and {device} has "
            f"{sized(free)} free: take a GPU with more memory, or device='cpu'"
        )
    first = Weights(architecture, dtype=precision.dtype, device=device)
    if steps < 2:
        return Arenas((first,))
    needed = nbytes * 2 + packed_bytes(architecture, precision.arithmetic)
    if needed <= MEMORY_SHARE * free:
        count = 2
        if device.type == "cuda":
            cores = len(os.sched_getaffinity(0))
            count = max(2, min(MOST_ARENAS, steps, cores // 2, int(SMALL_SHARE * free) // nbytes))
        others = (
            Weights(architecture, dtype=precision.dtype, device=device) for _ in range(count - 1)
        )
        return Arenas((first, *others))
    words = f"two checkpoints of {sized(nbytes)} do not fit into {sized(free)} of free memory"
    if device.type == "cuda":
        host = _host_arenas(architecture, precision.dtype, streams_of(device), share)
        if host:
            _log.info("%s: the next is read into the host's, and copied layer by layer", words)
            return Arenas(host, poured_into=first)
    _log.warning("%s: loading and computing take turns", words)
    return Arenas((first,))


def _host_arenas(
    architecture: Architecture, dtype: torch.dtype, streams: Streams, share: float
) -> tuple[Weights, ...]:
    """Arenas in pinned memory: one, or two if that is little of it, or none if it cannot be had.

    With one, a checkpoint is read when the one before has been poured, which takes a fraction of a
    second; with two there is no such gap.
    """
    free = share * free_bytes(torch.device("cpu"))
    nbytes = Layout(architecture, dtype.itemsize).numel * dtype.itemsize
    arenas: list[Weights] = []
    for most in (HOST_SHARE, SECOND_HOST_SHARE):
        if nbytes * (len(arenas) + 1) > most * free:
            break
        try:
            arenas.append(Weights(architecture, dtype=dtype, pinned_by=streams))
        except PinnedMemoryError as error:
            _log.warning("%s", error)
            break
    return tuple(arenas)


def free_bytes(device: torch.device) -> int:
    """Memory on `device` that is free or can be freed, in bytes."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return int(min(free, _left_to_us(CGROUP)))


CGROUP = Path("/sys/fs/cgroup")


def _left_to_us(cgroup: Path) -> int | float:
    """What a container or a batch system still gives to this process; cached files don't count."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        lines = (cgroup / "memory.stat").read_text().splitlines()
        cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf
    return max(0, limit - used + cached)
