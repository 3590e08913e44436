"""The memory that checkpoints flow through.

Two arenas where memory allows: the model computes on one while a thread reads the next checkpoint
into the other. Where a GPU has room for one only, the other lies in the host's memory, and is
poured over layer by layer. Else loading and computing take turns. Memory is therefore bounded by
three checkpoints in the resident data type, however long the series; small models on a GPU have a
few more, which are little.
"""

import logging
import os
from dataclasses import dataclass

import torch

from pythia_fast.errors import ArgumentError, PinnedMemoryError
from pythia_fast.model import Precision, Weights, packed_bytes, streams_of
from pythia_fast.model.devices import free_bytes
from pythia_fast.model.parameters import Layout
from pythia_fast.model.streams import Streams
from pythia_fast.quantities import sized
from pythia_fast.suite import Architecture

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
    nbytes = Layout(architecture, precision.dtype.itemsize).nbytes
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
    nbytes = Layout(architecture, dtype.itemsize).nbytes
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
