"""One resident model, and the weights of checkpoint after checkpoint flowing into it.

Two arenas where memory allows: the model computes on one while a thread reads the next checkpoint
into the other. Where only one fits, loading and computing take turns. Memory is therefore bounded
by two checkpoints in the resident data type, however long the series. What lies on the Hub is
fetched ahead of the reading, as far as the disk budget allows.
"""

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError, ReadError
from pythia_fast.model import (
    LoadReport,
    Model,
    Precision,
    TokenizerSource,
    Weights,
    packed_bytes,
    resolve_precision,
)
from pythia_fast.runs.times import LoadTimes
from pythia_fast.series import Checkpoint, CheckpointSeries, open_series
from pythia_fast.series.sources import Ahead
from pythia_fast.suite import Architecture, Steps, parse_steps
from pythia_fast.tokens import load_tokenizer

_log = logging.getLogger("pythia_fast")

MEMORY_SHARE = 0.8
"""The part of the free memory that two arenas may take."""

TELL_EVERY_S = 1.0
"""How often somebody who waits for a checkpoint is told of it."""

Waiting = Callable[[int, Ahead], None]
"""Called now and then with the step that is waited for, and what is going on meanwhile."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in its arena, ready to compute with.

    `weights_sha256` is "" where it was not asked for. The checkpoint stays open until the next one
    is asked for.
    """

    step: int
    weights: Weights
    checkpoint: Checkpoint
    report: LoadReport
    weights_sha256: str
    identity: str
    times: LoadTimes


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
    return _stream(series, parse_steps(steps, series.steps), precision, target, given)


def _stream(
    series: CheckpointSeries,
    steps: Sequence[int],
    precision: Precision,
    device: torch.device,
    tokenizer: Tokenizer | None,
) -> Generator[tuple[int, Model], None, None]:
    arenas = make_arenas(series.spec.architecture, len(steps), precision, device)
    resident = Model(arenas[0], series.spec, arithmetic=precision.arithmetic, series=series)
    if tokenizer is not None:
        resident.tokenizer = tokenizer
    with closing(prefetch(series, deque(steps), arenas, hashed=False)) as loaded_steps:
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
    architecture: Architecture,
    steps: int,
    precision: Precision,
    device: torch.device,
    *,
    share: float = 1.0,
) -> tuple[Weights, ...]:
    """One arena for one step; two for more, if they fit into this share of the free memory.

    Beside them there must be room for what the native kernels make of the weights.
    """
    free = int(share * free_bytes(device))
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
    steps: deque[int],
    arenas: Sequence[Weights],
    *,
    hashed: bool,
    waiting: Waiting | None = None,
    entered: Callable[[Ahead], None] | None = None,
) -> Generator[Loaded | NotLoaded, None, None]:
    """Load the steps in turn, each into the next free arena, one ahead where there are two.

    A step is taken from the left of `steps` when its loading begins; what is appended meanwhile is
    loaded too. Another thread may append, and take back from the right what has not begun. It ends
    when nothing is left; what is appended after that stays in `steps`.

    All that are in it at the start are fetched ahead in this order. `entered` is then called with
    what fetches them: whoever appends a step later tells it first (`Ahead.extend`), and whoever
    has taken one back does so afterwards (`Ahead.drop`).

    A step that cannot be loaded comes with its error, and the next is gone on with. What was
    yielded may be used until the next is asked for: then its checkpoint is closed, before anything
    is waited for, so that its place on the disk is free for the next. The last one stays open.
    Closing the generator stops all downloads, and closes what was loaded in vain.
    `hashed` also computes the weights' sha256.
    """
    free = deque(arenas)
    pending: deque[tuple[int, Weights, Future[Loaded | NotLoaded]]] = deque()
    with ThreadPoolExecutor(1, "pythia_fast-load") as pool:

        def begin(following: Sequence[int]) -> None:
            for step in following:
                arena = free.popleft()
                pending.append((step, arena, pool.submit(_load, series, step, arena, hashed)))

        try:
            first = _now_in(steps)
            with series.ahead(first) as ahead:
                _catch_up(ahead, first, _now_in(steps))
                if entered is not None:
                    entered(ahead)
                last: Loaded | NotLoaded | None = None
                while (following := _taken(steps, len(free))) or pending:
                    if isinstance(last, Loaded):
                        last.checkpoint.close()
                    begin(following)
                    step, arena, future = pending[0]
                    last = _awaited(future, waiting and partial(waiting, step, ahead))
                    pending.popleft()
                    begin(_taken(steps, len(free)))  # what has come while this one was waited for
                    yield last
                    free.append(arena)
        finally:
            for *_, future in pending:
                if not future.cancel():
                    future.add_done_callback(_close)


def _now_in(steps: deque[int]) -> tuple[int, ...]:
    """What is in the deque at one moment, whoever changes it."""
    while True:
        try:
            return tuple(steps)
        except RuntimeError:  # it was changed in the middle of this
            continue


def _taken(steps: deque[int], count: int) -> list[int]:
    """Take so many from the left, or as many as there are; others may take from the right."""
    taken: list[int] = []
    with suppress(IndexError):
        while len(taken) < count:
            taken.append(steps.popleft())
    return taken


def _catch_up(ahead: Ahead, before: Sequence[int], now: Sequence[int]) -> None:
    """Tell it what others have changed before they could: while the series was surveyed."""
    for step in set(before) - set(now):
        ahead.drop(step)
    ahead.extend(step for step in now if step not in before)


def _awaited(
    future: "Future[Loaded | NotLoaded]", tell: Callable[[], None] | None
) -> Loaded | NotLoaded:
    started = time.perf_counter()
    while not wait((future,), TELL_EVERY_S).done:  # also to look up: see `result_of`
        if tell is not None:
            tell()
    loaded = future.result()
    if isinstance(loaded, NotLoaded):
        return loaded
    waited_s = time.perf_counter() - started
    return replace(loaded, times=replace(loaded.times, wait_s=waited_s))


def _close(future: "Future[Loaded | NotLoaded]") -> None:
    """Close a checkpoint that was loaded in vain."""
    if not future.cancelled() and future.exception() is None:
        loaded = future.result()
        if isinstance(loaded, Loaded):
            loaded.checkpoint.close()


def _load(
    series: CheckpointSeries, step: int, weights: Weights, hashed: bool
) -> Loaded | NotLoaded:
    checkpoint = None
    try:
        started = time.perf_counter()
        identity = series.identity(step)
        checkpoint = series.open(step)
        opened = time.perf_counter()
        report = weights.load(checkpoint)
        loaded = time.perf_counter()
        sha256 = checkpoint.weights_sha256 if hashed else ""
        hash_s = time.perf_counter() - loaded
        if series.identity(step) != identity:
            raise ReadError(
                errno.ESTALE,
                f"step {step} of {series.name} has changed while it was read: try again",
            )
        times = LoadTimes.of(checkpoint, report, open_s=opened - started, hash_s=hash_s)
        return Loaded(step, weights, checkpoint, report, sha256, identity, times)
    except Exception as error:
        if checkpoint is not None:
            checkpoint.close()
        return NotLoaded(step, error)
