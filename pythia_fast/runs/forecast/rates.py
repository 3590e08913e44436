"""How fast this machine is, measured now, each in a second or so: for a forecast, no benchmark."""

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from pythia_fast.core import File, Read, read_tensors
from pythia_fast.errors import HubError
from pythia_fast.model import Model, Precision, Weights
from pythia_fast.publish import existing_folder
from pythia_fast.runs.work import forward_flops
from pythia_fast.series import Ahead, CheckpointSeries, LocalSeries, Revision
from pythia_fast.suite import Architecture, ModelSpec

MEASURE_S = 0.5
"""How long each rate is measured at least, once things are warm."""
MEASURE_FLOPS = 2 * 10**11
"""The most work of one pass that is measured."""
MEASURE_TOKENS = 4096
"""The most tokens of short sequences in a pass that is measured."""
SCRATCH_BYTES = 2**26
NETWORK_S = 3.0
NETWORK_BYTES = 2**28
FIRST_BYTE_S = 120.0
"""Longer than a refusal is asked about again, so that it is told and not this."""
IDLE_S = 1.0
"""The network has nothing more to do if no byte has come for so long."""
_SMALL_BYTES = 2**20  # configs and such, which may still have come where weights do not
_ROW_BYTES, _ITEM_BYTES = 2**16, 2


@dataclass(frozen=True, slots=True)
class Rates:
    """A second's work of this machine.

    `sha256_bytes_per_s` is that of all files that are hashed side by side; `read_bytes_per_s` is
    None if no file can be written to measure it; `network_bytes_per_s` if nothing is to come.
    """

    compute_flop_per_s: float
    sha256_bytes_per_s: float
    read_bytes_per_s: float | None
    network_bytes_per_s: float | None
    network_measured: bool


def compute_flop_per_s(
    architecture: Architecture, precision: Precision, device: torch.device, positions: int
) -> float:
    """The rate of this package's own forward pass over sequences of so many positions.

    Of one layer and its part of the vocabulary, in the sweep's data type and arithmetic, with
    torch's number of threads.
    """
    part = -(-architecture.vocab_rows // architecture.layers)
    one = replace(architecture, layers=1, vocab_rows=part)
    weights = Weights(one, dtype=precision.dtype, device=device)
    if device.type == "cuda":
        weights.flat.normal_(std=0.02)  # a GPU saves power on zeros, and is faster for it
    model = Model(weights, ModelSpec.local("one block", one, (0,)), arithmetic=precision.arithmetic)
    positions = min(positions, one.max_positions)
    while positions > 64 and forward_flops(one, positions) > MEASURE_FLOPS:
        positions //= 2
    most = max(16, MEASURE_TOKENS // positions)
    sequences = max(1, min(most, MEASURE_FLOPS // 8 // forward_flops(one, positions)))
    ids_BT = torch.zeros(sequences, positions + 1, dtype=torch.int64, device=device)

    def once() -> None:
        model.nll(ids_BT)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return forward_flops(one, positions) * sequences / _usual_s(once)


def sha256_bytes_per_s() -> float:
    """The rate of one core."""
    block = bytes(2**24)
    return len(block) / _usual_s(lambda: hashlib.sha256(block).digest())


def hashed_at_once(
    series: CheckpointSeries, revisions: Sequence[Revision], budget_bytes: int | None
) -> int:
    """How many files are hashed side by side: one of a folder, of the Hub those that come."""
    if series.spec.repo is None or not revisions:
        return 1
    from pythia_fast.series.lookahead import depth  # here: huggingface_hub takes long to import

    ahead = depth(budget_bytes, max(revision.nbytes for revision in revisions))
    files = sorted((len(revision.files) for revision in revisions), reverse=True)
    return max(1, min(os.cpu_count() or 1, sum(files[:ahead])))


def read_bytes_per_s(series: CheckpointSeries, step: int) -> float | None:
    """The disk's rate by this package's reader, not the page cache's; None if it cannot be known.

    Of a checkpoint of a folder, else of a scratch file without a name where downloads will go.
    """
    if series.spec.repo is None and isinstance(series, LocalSeries):
        return _read_rate(File(series.weight_files(step)[0]))
    try:
        with tempfile.TemporaryFile(dir=existing_folder(series.folder)) as scratch:
            scratch.write(os.urandom(SCRATCH_BYTES))
            scratch.flush()
            os.fsync(scratch.fileno())
            return _read_rate(File(f"/proc/self/fd/{scratch.fileno()}"))
    except OSError:  # it is read-only, or full: the sweep will say so
        return None


def network_bytes_per_s(
    series: CheckpointSeries, steps: Sequence[int], missing_bytes: int
) -> float:
    """The rate at which the first piece of what is needed comes; it is kept for the sweep.

    From its first byte to its last, which may be all that a look-ahead fetches before something is
    taken from it. HubError if nothing comes, ArgumentError if the disk budget is too small; the
    first step's own error if it cannot be fetched.
    """
    enough = min(NETWORK_BYTES, missing_bytes)
    with series.ahead(steps) as ahead:
        begun = now = time.monotonic()
        first: tuple[float, int] | None = None
        last = (begun, 0)
        while True:
            received = ahead.received_bytes
            now = time.monotonic()
            if received > last[1]:
                last = (now, received)
                first = first or last
            if first is None and ahead.failed is not None:
                break
            if first is not None and (
                received >= enough or now - first[0] >= NETWORK_S or now - last[0] >= IDLE_S
            ):
                break
            if first is None and now - begun > FIRST_BYTE_S:
                raise HubError(_nothing_came(series, ahead))
            time.sleep(0.01)
        failed = ahead.failed
    if failed is not None and last[1] < min(enough, _SMALL_BYTES):
        raise failed
    if first is not None and last[0] > first[0]:
        return (last[1] - first[1]) / (last[0] - first[0])
    return last[1] / max(last[0] - begun, 1e-6)  # all of it came at once


def _nothing_came(series: CheckpointSeries, ahead: Ahead) -> str:
    if ahead.waits_for_room:
        return (
            f"the first checkpoint of {series.name} has waited {FIRST_BYTE_S:.0f} s for room in "
            f"{series.folder}: free some, or say the network's rate yourself"
        )
    return (
        f"{series.source} has sent nothing for {FIRST_BYTE_S:.0f} s; look at the connection, or "
        "say the network's rate yourself"
    )


def _read_rate(file: File) -> float:
    """Read a file, or its first bytes, once, after it has left the page cache."""
    rows = max(1, min(file.size, 4 * SCRATCH_BYTES) // _ROW_BYTES)
    columns = min(file.size, _ROW_BYTES) // _ITEM_BYTES
    memory = torch.full((rows * columns * _ITEM_BYTES,), 1, dtype=torch.uint8, device="cpu")
    read = Read(file, 0, "F16", rows, columns, 0, "F16", columns * _ITEM_BYTES)
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.perf_counter()
    read_tensors([read], memory.numpy().data, torch.get_num_threads())
    return memory.nbytes / max(time.perf_counter() - begun, 1e-9)


def _usual_s(once: Callable[[], object]) -> float:
    """The median of several times, the first not counted: hours go by at the usual rate."""
    once()
    times, end = list[float](), time.perf_counter() + MEASURE_S
    while True:
        begun = time.perf_counter()
        once()
        now = time.perf_counter()
        times.append(now - begun)
        if now > end:
            return max(statistics.median(times), 1e-9)
