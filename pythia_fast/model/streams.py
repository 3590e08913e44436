"""What copies weights to a GPU while it computes: a stream of its own, and events between the two.

Work given to a stream is done in order, beside that of other streams. An event is a place in a
stream: another stream, or a thread, can wait until it has been passed. Nothing waits for the whole
device, but for `ends_context`, when something has failed.
"""

import contextlib
import mmap
import threading
import weakref
from typing import Any, Protocol

import torch

from pythia_fast.errors import PinnedMemoryError
from pythia_fast.model.pages import huge_pages
from pythia_fast.quantities import sized

_cuda: Any = torch.cuda  # not all of it has types


class Event(Protocol):
    """A place in a stream; torch.cuda.Event is one."""

    def synchronize(self) -> None:
        """Let this thread wait until it is passed."""

    def query(self) -> bool:
        """Whether it is passed."""


class Streams(Protocol):
    """A device with one stream for copies, beside those on which a thread computes.

    "The computing stream" is always the calling thread's current one.
    """

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Zeros [nbytes] uint8 of the host, out of which the copy engine reads by itself.

        PinnedMemoryError where the system refuses.
        """

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Give the copying stream a copy from pinned memory; both must stay as they are till then.

        `target` and `source` are contiguous, of one dtype and size.
        """

    def fill(self, target: torch.Tensor, value: float) -> None:
        """Give the copying stream the filling of `target`."""

    def copied(self) -> Event:
        """After all that was given to the copying stream so far."""

    def computed(self) -> Event:
        """After all that was given to the computing stream so far."""

    def copy_after(self, event: Event) -> None:
        """Let the copying stream go on only when the event is passed."""

    def compute_after(self, event: Event) -> None:
        """Let the computing stream go on only when the event is passed."""


class CudaStreams:
    """The streams of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # torch deals the streams of a priority in turn: this is none in which graphs are recorded.
        self._copying = _cuda.Stream(device, priority=-1)

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Memory that is locked in huge pages; torch's own way would round up to a power of two."""
        pages = huge_pages(_LockedPages, nbytes)
        memory = torch.frombuffer(pages, dtype=torch.uint8)
        with _cuda.device(self._device):
            code = int(_cuda.cudart().cudaHostRegister(memory.data_ptr(), len(pages), 0))
        if code:
            self._forget_error()
            raise PinnedMemoryError(
                f"CUDA refuses to lock {sized(nbytes)} of the host's memory (error {code}): is so "
                "much free?"
            )
        pages.locked(memory.data_ptr(), self._copying)
        return memory

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """By the copy engine, which takes no multiprocessor from who computes."""
        with _cuda.device(self._device), _cuda.stream(self._copying):
            target.copy_(source, non_blocking=True)
        target.record_stream(self._copying)  # should the arena be freed meanwhile

    def fill(self, target: torch.Tensor, value: float) -> None:
        """In the order of the copies."""
        with _cuda.device(self._device), _cuda.stream(self._copying):
            target.fill_(value)
        target.record_stream(self._copying)

    def copied(self) -> Event:
        """An event for which a thread waits asleep."""
        return _event_in(self._copying)

    def computed(self) -> Event:
        """In torch's current stream."""
        return _event_in(_cuda.current_stream(self._device))

    def copy_after(self, event: Event) -> None:
        """Waiting is the device's, not this thread's."""
        self._copying.wait_event(event)

    def compute_after(self, event: Event) -> None:
        """Waiting is the device's, not this thread's."""
        _cuda.current_stream(self._device).wait_event(event)

    def _forget_error(self) -> None:
        """A failed call is told once more by the next launch, which has nothing to do with it."""
        with contextlib.suppress(torch.AcceleratorError):
            torch.zeros(1, device=self._device)


class _LockedPages(mmap.mmap):
    """Memory that CUDA has locked, which it is told before the memory goes."""

    _address = 0
    _copying: Any

    def locked(self, address: int, copying: Any) -> None:
        """CUDA has locked them; copies out of them are on this stream."""
        self._address, self._copying = address, copying

    def __del__(self) -> None:
        if self._address:
            with contextlib.suppress(Exception):  # also at the end of the process
                self._copying.synchronize()
                _cuda.cudart().cudaHostUnregister(self._address)


_streams: "weakref.WeakValueDictionary[torch.device, CudaStreams]" = weakref.WeakValueDictionary()


_making = threading.Lock()


def streams_of(device: torch.device) -> CudaStreams:
    """The one for a GPU, so that all its arenas' copies are in one order."""
    index = torch.cuda.current_device() if device.index is None else device.index
    exact = torch.device("cuda", index)
    with _making:
        streams = _streams.get(exact)
        if streams is None:
            streams = _streams[exact] = CudaStreams(exact)
        return streams


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host's tensor on a device; for a GPU it is on its way there, and nobody waits for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def ends_context(error: BaseException) -> bool:
    """Whether a CUDA error makes all further work of this process worthless.

    Libraries tell of such an error each in words of its own. So of others than torch's the GPU is
    asked: once its context is broken, every call fails.
    """
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    if not _cuda.is_initialized():
        return False
    try:
        _cuda.synchronize()
        for device in list(_streams):  # those that weights have flowed to
            _cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _event_in(stream: Any) -> Event:
    event: Event = _cuda.Event(blocking=True)  # who waits for it sleeps
    stream.record_event(event)
    return event
