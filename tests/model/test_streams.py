"""CUDA's streams, as far as they can be tried without any, and which errors end their use."""

import mmap
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pythia_fast.errors import PinnedMemoryError, SweepError
from pythia_fast.model import streams
from pythia_fast.model.streams import CudaStreams, ends_context

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Cuda:
    """torch.cuda, of which every call is told in `calls`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.code = 0
        self.inside: list[str] = []
        self.error: Exception | None = None

    def stream(self, stream: Any) -> AbstractContextManager[None]:
        self.calls.append(("on", stream.name))
        return nullcontext()

    def device(self, device: torch.device) -> AbstractContextManager[None]:
        return nullcontext()

    def Stream(self, device: torch.device, priority: int) -> Any:
        assert priority == -1, "graphs are recorded in streams of priority 0"
        return self._named("copying")

    def current_stream(self, device: torch.device) -> Any:
        return self._named("computing")

    def Event(self, blocking: bool) -> Any:
        assert blocking, "who waits is to sleep"
        return SimpleNamespace(stream=None)

    def cudart(self) -> Any:
        return self

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        self.calls.append(("lock", address, nbytes))
        return self.code

    def cudaHostUnregister(self, address: int) -> int:
        self.calls.append(("unlock", address))
        return 0

    def is_initialized(self) -> bool:
        return True

    def synchronize(self, device: torch.device | None = None) -> None:
        self.calls.append(("synchronize",))
        if self.error is not None:
            raise self.error

    def _named(self, name: str) -> Any:
        return SimpleNamespace(
            name=name,
            record_event=lambda event: setattr(event, "stream", name),
            wait_event=lambda event: self.calls.append((name, "waits for", event.stream)),
            synchronize=lambda: self.calls.append((name, "is waited for")),
        )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    monkeypatch.setattr(streams, "_cuda", made)
    return made


def test_each_stream_waits_for_the_other(cuda: Cuda) -> None:
    one = CudaStreams(CPU)
    one.copy_after(one.computed())
    one.compute_after(one.copied())
    assert cuda.calls == [
        ("copying", "waits for", "computing"),
        ("computing", "waits for", "copying"),
    ]


def test_pinned_memory_is_given_back_before_it_goes(cuda: Cuda) -> None:
    """And not while a view of it is left, nor while a copy out of it may be under way."""
    memory = CudaStreams(CPU).pinned(10_000)
    assert memory.shape == (10_000,)
    assert memory.dtype == torch.uint8
    assert memory.count_nonzero() == 0
    address = memory.data_ptr()
    assert cuda.calls == [("lock", address, 10_000)]
    view = memory[5:]
    del memory
    assert len(cuda.calls) == 1
    del view
    assert cuda.calls[1:] == [("copying", "is waited for"), ("unlock", address)]


def test_memory_that_cannot_be_pinned_is_a_typed_error(cuda: Cuda) -> None:
    cuda.code = 2
    with pytest.raises(PinnedMemoryError, match=r"10 kB .*error 2"):
        CudaStreams(CPU).pinned(10_000)
    assert [call[0] for call in cuda.calls] == ["lock"]  # what was not locked is not unlocked


def test_pages_that_nobody_locked_are_just_freed(cuda: Cuda) -> None:
    pages = streams._LockedPages(-1, mmap.PAGESIZE)
    del pages
    assert cuda.calls == []


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), True),
        (ValueError("no such thing"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_which_errors_end_the_use_of_a_gpu_that_is_broken(
    cuda: Cuda, error: BaseException, ends: bool
) -> None:
    cuda.error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    assert ends_context(error) == ends


def test_a_gpu_that_answers_is_not_broken(cuda: Cuda) -> None:
    assert not ends_context(RuntimeError("shapes do not match"))
    assert not ends_context(SweepError("step 1 failed"))
    assert cuda.calls == [("synchronize",), ("synchronize",)]


def test_where_no_gpu_is_used_none_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", ask)
    assert not ends_context(RuntimeError("shapes do not match"))


@pytest.mark.gpu
@needs_gpu
def test_copies_of_a_gpu_wait_and_are_waited_for() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    one = streams.streams_of(device)
    assert streams.streams_of(torch.device("cuda")) is one
    count = 32 << 20
    source = one.pinned(count * 4).view(torch.float32)
    source.copy_(torch.arange(count) % 1000)
    expected = source.to(device)
    target = torch.zeros(count, device=device)
    for _ in range(20):
        torch.cuda._sleep(20_000_000)
        before = target.clone()  # late, of what was there
        one.copy_after(one.computed())
        one.fill(target, torch.nan)
        one.copy(target, source)
        one.compute_after(one.copied())
        after = target.clone()
        target.zero_()
        torch.cuda.current_stream().synchronize()
        assert not before.any()
        assert torch.equal(after, expected)


@pytest.mark.gpu
@needs_gpu
def test_what_a_gpu_cannot_pin_leaves_no_error_behind() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    with pytest.raises(PinnedMemoryError):
        CudaStreams(device).pinned(1 << 45)
    assert torch.ones(3, device=device).sum() == 3
