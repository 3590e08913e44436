"""CUDA graphs: a pass is recorded once for a shape and an arena, and replayed for every checkpoint.

A small model's kernels are shorter than their launches take Python. A graph launches all of them at
once. It works on the addresses that it was recorded with: weights are overwritten in place, inputs
are copied to where they were, and outputs are copied out before the next replay.
"""

import gc
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import torch

from pythia_fast.errors import MovedWeightsError
from pythia_fast.model.weights import Weights

_cuda: Any = torch.cuda  # not all of it has types

MOST = 64
"""Recorded passes of an arena that are kept; those used longest ago go first."""

Tensors = tuple[torch.Tensor, ...]
Pass = Callable[..., Tensors]


Replay = Callable[[], None]


class Recorder(Protocol):
    """What records work that is given to a device, as CUDA does."""

    def record(self, work: Callable[[], Tensors]) -> tuple[Replay, Tensors]:
        """What does the work again and again, and the outputs, which it overwrites each time.

        To record it, `work` is called once or more, and may be done.
        """


class CudaRecorder:
    """Records in a stream of its own. Recorded passes share memory: one runs at a time.

    This thread waits for nothing. Other threads may use the GPU meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _cuda.Stream(device)
        self._alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pool: Any = None

    def record(self, work: Callable[[], Tensors]) -> tuple[Replay, Tensors]:
        """A graph's `replay`, in the stream that is current then.

        The work is done once beside the stream's: whatever is compiled, loaded, or allocated at a
        first call, for these addresses and in this stream, cannot be while it is recorded.
        """
        with _cuda.device(self._device):
            here = _cuda.current_stream()
            self._stream.wait_stream(here)
            try:
                with _cuda.stream(self._stream):
                    work()
                    _cuda.empty_cache()  # while it is recorded, nothing can be given back
                    graph, outputs = self._capture(work)
            finally:
                here.wait_stream(self._stream)
        return graph.replay, outputs

    def _capture(self, work: Callable[[], Tensors]) -> tuple[Any, Tensors]:
        if not self._alive:  # a pool ends with the last graph that was recorded in it
            self._pool = _cuda.graph_pool_handle()
        graph = _cuda.CUDAGraph()
        with _recording, _uncollected():
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                outputs = work()
            except BaseException as error:
                try:
                    graph.capture_end()
                except RuntimeError as broken:  # by what the work did: the GPU is of no more use
                    _broken.append(graph)  # whose end torch's allocator would not survive
                    raise broken from error
                raise
            graph.capture_end()
        self._alive.add(graph)
        return graph, outputs


_recording = threading.Lock()
_broken: list[Any] = []


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nobody's garbage may be a kernel or a graph, whose end spoils what is being recorded."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@dataclass(frozen=True, slots=True)
class _Recorded:
    replay: Replay
    inputs: Tensors
    outputs: Tensors
    address: int


class _Unrecorded(Enum):
    """Why a pass that has run is not recorded."""

    RUN_ONCE = "it has come once"
    TOO_LARGE = "recording takes more memory than there is, and more than running"


class Graphs:
    """Runs passes, and records those that come again; without a recorder it only runs them.

    A pass runs as it is the first time, when its kernels may still have to be compiled, and as long
    as weights are still arriving, layer by layer; always, where there is no memory to record it.
    Not for several threads at once.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._of: weakref.WeakKeyDictionary[
            Weights, OrderedDict[Hashable, _Recorded | _Unrecorded]
        ] = weakref.WeakKeyDictionary()

    def run(self, key: Hashable, weights: Weights, work: Pass, *inputs: torch.Tensor) -> Tensors:
        """The outputs of `work(*inputs)`, which must only depend on `key`, inputs and weights.

        `key` says all that the pass depends on but the numbers: what it does, and all shapes.
        MovedWeightsError if the arena is not where it was when the pass was recorded.
        """
        if self._recorder is None or not weights.arrived:
            return work(*inputs)
        passes = self._of.setdefault(weights, OrderedDict())
        if key not in passes:
            passes[key] = _Unrecorded.RUN_ONCE
            if len(passes) > MOST:
                passes.popitem(last=False)
            return work(*inputs)
        passes.move_to_end(key)
        if passes[key] is _Unrecorded.RUN_ONCE:
            passes[key] = _record(self._recorder, weights, work, inputs)
        recorded = passes[key]
        if isinstance(recorded, _Unrecorded):
            return work(*inputs)
        if weights.flat.data_ptr() != recorded.address:
            raise MovedWeightsError(
                f"the weights lay at {recorded.address:#x} when a pass was recorded, and lie at "
                f"{weights.flat.data_ptr():#x} now: an arena must be overwritten in place"
            )
        for kept, new in zip(recorded.inputs, inputs, strict=True):
            kept.copy_(new)
        recorded.replay()
        return tuple(output.clone() for output in recorded.outputs)

    def forget(self) -> None:
        """Drop all recorded passes, before the memory that they work on is given away.

        What was too large to record is tried again.
        """
        self._of.clear()


def _record(
    recorder: Recorder, weights: Weights, work: Pass, inputs: Tensors
) -> _Recorded | _Unrecorded:
    try:
        kept = tuple(each.clone() for each in inputs)
        replay, outputs = recorder.record(lambda: work(*kept))
    except torch.OutOfMemoryError:
        return _Unrecorded.TOO_LARGE
    return _Recorded(replay, kept, outputs, weights.flat.data_ptr())
