"""How fast this machine is, measured now, each in a second or so: for a forecast, no benchmark."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pythia_fast.errors import ArgumentError, HubError
from pythia_fast.model import Model, Precision, Weights
from pythia_fast.publish import partial_of, write_error
from pythia_fast.runs.work import forward_flops
from pythia_fast.series import CheckpointSeries
from pythia_fast.suite import Architecture, ModelSpec

MEASURE_S = 0.5
"""How long each rate is measured at least, once things are warm."""
MEASURE_FLOPS = 2 * 10**11
"""The most work of one pass that is measured."""
SCRATCH_BYTES = 2**26
NETWORK_S = 3.0
NETWORK_BYTES = 2**28
FIRST_BYTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Rates:
    """A second's work of this machine. `network_bytes_per_s` is None if nothing is to come."""

    compute_flop_per_s: float
    sha256_bytes_per_s: float
    read_bytes_per_s: float
    network_bytes_per_s: float | None
    network_measured: bool


def compute_flop_per_s(
    architecture: Architecture, precision: Precision, device: torch.device
) -> float:
    """The rate of this package's own forward pass, of one block of the model's width.

    In the sweep's data type and arithmetic, with torch's number of threads.
    """
    one = replace(
        architecture, layers=1, vocab_rows=min(architecture.vocab_rows, 2 * architecture.width)
    )
    weights = Weights(one, dtype=precision.dtype, device=device)
    if device.type == "cuda":
        weights.flat.normal_(std=0.02)  # a GPU saves power on zeros, and is faster for it
    model = Model(weights, ModelSpec.local("one block", one, (0,)), arithmetic=precision.arithmetic)
    positions = one.max_positions
    while positions > 64 and forward_flops(one, positions) > MEASURE_FLOPS:
        positions //= 2
    sequences = max(1, min(16, MEASURE_FLOPS // 8 // forward_flops(one, positions)))
    ids_BT = torch.zeros(sequences, positions + 1, dtype=torch.int64, device=device)

    def once() -> None:
        model.nll(ids_BT)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return forward_flops(one, positions) * sequences / _best_s(once)


def sha256_bytes_per_s() -> float:
    """The rate of one core."""
    block = bytes(2**24)
    return len(block) / _best_s(lambda: hashlib.sha256(block).digest())


def read_bytes_per_s(series: CheckpointSeries, step: int) -> float:
    """The disk's rate, not the page cache's: of a checkpoint of a folder, else of a scratch file.

    WriteError if the place for downloads cannot be written.
    """
    if series.spec.repo is None:
        with closing(series.open(step)) as checkpoint:
            return _read_rate(checkpoint.files[0].path)
    folder = existing_parent(series.folder)
    scratch = partial_of(folder / "plan")
    try:
        with scratch.open("xb") as file:
            file.write(os.urandom(SCRATCH_BYTES))
            file.flush()
            os.fsync(file.fileno())
        return _read_rate(scratch)
    except OSError as error:
        raise write_error(scratch, error) from error
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def network_bytes_per_s(
    series: CheckpointSeries, steps: Sequence[int], missing_bytes: int
) -> float:
    """The rate at which the first piece of what is needed comes; it is kept for the sweep.

    HubError if nothing comes, ArgumentError if the disk budget is too small.
    """
    with series.ahead(steps) as ahead:
        begun = time.monotonic()
        while not ahead.received_bytes:
            if time.monotonic() - begun > FIRST_BYTE_S:
                raise HubError(
                    f"{series.source} has sent nothing for {FIRST_BYTE_S:.0f} s; look at the "
                    "connection, or say the network's rate yourself"
                )
            time.sleep(0.01)
        first_s, first_bytes = time.monotonic(), ahead.received_bytes
        enough = min(NETWORK_BYTES, missing_bytes)
        while ahead.received_bytes < enough and time.monotonic() - first_s < NETWORK_S:
            time.sleep(0.01)
        elapsed_s = time.monotonic() - first_s
        received = ahead.received_bytes - first_bytes
        if received and elapsed_s > 0:
            return received / elapsed_s
        return ahead.received_bytes / max(time.monotonic() - begun, 1e-6)


def existing_parent(folder: Path) -> Path:
    """The nearest folder on the way up that is there."""
    for each in (folder, *folder.parents):
        if each.is_dir():
            return each
    raise ArgumentError(f"{folder} has no parent that exists")


def _read_rate(path: Path) -> float:
    """Read a file, or its first bytes, once, after it has left the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        begun, done = time.perf_counter(), 0
        while done < 4 * SCRATCH_BYTES:
            block = os.pread(descriptor, 2**22, done)
            if not block:
                break
            done += len(block)
        return max(done, 1) / max(time.perf_counter() - begun, 1e-9)
    finally:
        os.close(descriptor)


def _best_s(once: Callable[[], object]) -> float:
    """The shortest of several times, the first not counted."""
    once()
    best, end = float("inf"), time.perf_counter() + MEASURE_S
    while True:
        begun = time.perf_counter()
        once()
        now = time.perf_counter()
        best = min(best, now - begun)
        if now > end:
            return max(best, 1e-9)
