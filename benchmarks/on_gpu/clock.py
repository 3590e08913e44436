"""Time on a GPU: events around each call, by turns, nothing of it in the L2 cache before.

A call is captured in a CUDA graph where it can be, ours and the peers' alike: then it costs what it
costs an engine that launches graphs, and no launch waits for Python.
"""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import torch

Call = Callable[[], object]
Times = dict[str, list[float]]

L2_SHARE = 4
"""So many times the cache is written over before a call, which also gives Python time to launch."""


class Clock(Protocol):
    """Times calls in seconds."""

    def ready(self, call: Call) -> tuple[Call, str]:
        """The call after its warm-up, and how it will be launched."""

    def rounds(self, calls: Mapping[str, Call], count: int) -> Times:
        """`count` times of each call. Each round calls all, another one first every time."""


class EventClock:
    """CUDA events on the current stream of a GPU."""

    def __init__(self, device: torch.device) -> None:
        cache_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        self._cold = torch.empty(L2_SHARE * cache_bytes, dtype=torch.uint8, device=device)

    def ready(self, call: Call) -> tuple[Call, str]:
        """Three calls on a side stream, as capturing asks for; then a graph's replay, if possible.

        A call that waits for the GPU, or looks at a number of it, cannot be captured; that is asked
        before, since torch's allocator does not get over a capture that fails.
        """
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        if _waits(call):
            return call, "eager"
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay, "graph"

    def rounds(self, calls: Mapping[str, Call], count: int) -> Times:
        """Events are read after each round: none of them is waited for between two calls."""
        times: Times = {name: [] for name in calls}
        names = list(calls)
        for number in range(count):
            turn = number % len(names)
            spans = []
            for name in names[turn:] + names[:turn]:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                self._cold.fill_(number % 251)
                begin.record()
                calls[name]()
                end.record()
                spans.append((name, begin, end))
            torch.cuda.synchronize()
            for name, begin, end in spans:
                times[name].append(begin.elapsed_time(end) / 1e3)
        return times


class WallClock:
    """The clock on the wall, for whole sweeps: what is on its way on a GPU is waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def ready(self, call: Call) -> tuple[Call, str]:
        """One call, not timed."""
        call()
        return call, "eager"

    def rounds(self, calls: Mapping[str, Call], count: int) -> Times:
        """As said."""
        times: Times = {name: [] for name in calls}
        names = list(calls)
        for number in range(count):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                self._wait()
                begin_s = time.perf_counter()
                calls[name]()
                self._wait()
                times[name].append(time.perf_counter() - begin_s)
        return times

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _waits(call: Call) -> bool:
    """Whether a call lets the CPU wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    except torch.AcceleratorError:
        raise
    except RuntimeError as error:
        if "synchroniz" in str(error):
            return True
        raise
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def clock_of(device: torch.device) -> Clock:
    """Events on a GPU; in a rehearsal on the CPU, the wall's."""
    return EventClock(device) if device.type == "cuda" else WallClock(device)
