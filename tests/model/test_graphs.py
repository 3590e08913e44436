"""Recorded passes: what is replayed, kept and dropped, and what CUDA asks of a capture."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from pythia_fast.errors import MovedWeightsError
from pythia_fast.model import Weights, graphs
from pythia_fast.model.graphs import CudaRecorder, Graphs
from pythia_fast.suite import Architecture


class Notebook:
    """A recorder whose replay does the work again, and overwrites the recorded outputs."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def record(
        self, work: Callable[[], graphs.Tensors]
    ) -> tuple[Callable[[], None], graphs.Tensors]:
        self.recorded += 1
        outputs = work()

        def replay() -> None:
            self.replayed += 1
            for kept, new in zip(outputs, work(), strict=True):
                kept.copy_(new)

        self.alive.add(replay)
        return replay, outputs


class Scaled:
    """The pass `scale · x`."""

    def __init__(self, scale: float = 2.0) -> None:
        self.scale, self.calls = scale, 0

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        self.calls += 1
        return (x * self.scale,)


@pytest.fixture
def weights(tiny: Architecture) -> Weights:
    return Weights(tiny)


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


class TestGraphs:
    def test_what_comes_again_is_recorded_and_then_replayed(
        self, weights: Weights, notebook: Notebook
    ) -> None:
        passes, work = Graphs(notebook), Scaled()
        for turn in range(4):
            x = torch.arange(3.0) + turn
            (found,) = passes.run("key", weights, work, x)
            assert torch.equal(found, 2 * x)
            assert (notebook.recorded, notebook.replayed) == (min(turn, 1), turn)

    def test_without_a_recorder_every_pass_runs(self, weights: Weights) -> None:
        passes, work = Graphs(None), Scaled()
        for _ in range(3):
            passes.run("key", weights, work, torch.ones(3))
        assert work.calls == 3

    def test_outputs_are_the_callers_own(self, weights: Weights, notebook: Notebook) -> None:
        passes, work = Graphs(notebook), Scaled()
        found = [passes.run("key", weights, work, torch.full((3,), float(i))) for i in range(4)]
        assert [float(x[0]) for (x,) in found[1:]] == [2, 4, 6]

    def test_the_callers_inputs_are_not_written_to_nor_looked_at_later(
        self, weights: Weights, notebook: Notebook
    ) -> None:
        passes, work = Graphs(notebook), Scaled()
        first = torch.ones(3)
        for _ in range(2):
            passes.run("key", weights, work, first)
        second = torch.full((3,), 5.0)
        passes.run("key", weights, work, second)
        assert torch.equal(first, torch.ones(3))
        first.fill_(torch.nan)
        second.fill_(torch.nan)
        assert torch.equal(
            passes.run("key", weights, work, torch.ones(3))[0], torch.full((3,), 2.0)
        )

    def test_keys_and_arenas_do_not_share(
        self, weights: Weights, notebook: Notebook, tiny: Architecture
    ) -> None:
        passes, other = Graphs(notebook), Weights(tiny)
        twice, thrice = Scaled(2.0), Scaled(3.0)
        for _ in range(3):
            for key, arena, work in (
                ("twice", weights, twice),
                ("thrice", weights, thrice),
                ("twice", other, thrice),
            ):
                (found,) = passes.run(key, arena, work, torch.ones(3))
                assert float(found[0]) == work.scale
        assert notebook.recorded == 3

    def test_weights_that_are_arriving_are_computed_with_as_they_come(
        self, weights: Weights, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passes, work = Graphs(notebook), Scaled()
        passes.run("key", weights, work, torch.ones(3))
        monkeypatch.setattr(Weights, "arrived", property(lambda self: False))
        passes.run("key", weights, work, torch.ones(3))
        assert (notebook.recorded, work.calls) == (0, 2)
        monkeypatch.undo()
        passes.run("key", weights, work, torch.ones(3))
        assert notebook.recorded == 1

    def test_an_arena_that_has_moved_is_refused(self, weights: Weights, notebook: Notebook) -> None:
        passes, work = Graphs(notebook), Scaled()
        for _ in range(2):
            passes.run("key", weights, work, torch.ones(3))
        weights.flat = weights.flat.clone()
        with pytest.raises(MovedWeightsError, match="overwritten in place"):
            passes.run("key", weights, work, torch.ones(3))
        assert notebook.replayed == 1

    def test_the_one_used_longest_ago_goes(
        self, weights: Weights, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(graphs, "MOST", 2)
        passes, work = Graphs(notebook), Scaled()
        for key in "aabba":  # a is the later one of the two
            passes.run(key, weights, work, torch.ones(3))
        passes.run("c", weights, work, torch.ones(3))
        assert len(notebook.alive) == 1
        passes.run("a", weights, work, torch.ones(3))
        assert notebook.recorded == 2
        passes.run("b", weights, work, torch.ones(3))
        passes.run("b", weights, work, torch.ones(3))
        assert notebook.recorded == 3

    def test_recordings_go_with_their_arena(self, notebook: Notebook, tiny: Architecture) -> None:
        passes, work, weights = Graphs(notebook), Scaled(), Weights(tiny)
        for _ in range(2):
            passes.run("key", weights, work, torch.ones(3))
        assert len(notebook.alive) == 1
        del weights
        assert not notebook.alive

    def test_what_is_forgotten_is_recorded_anew(self, weights: Weights, notebook: Notebook) -> None:
        passes, work = Graphs(notebook), Scaled()
        for _ in range(2):
            passes.run("key", weights, work, torch.ones(3))
        passes.forget()
        assert not notebook.alive
        for _ in range(2):
            passes.run("key", weights, work, torch.ones(3))
        assert notebook.recorded == 2

    def test_without_room_to_record_it_a_pass_runs_as_it_is(
        self, weights: Weights, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passes, work, tried = Graphs(notebook), Scaled(), []

        def record(work: object) -> None:
            tried.append(work)
            raise torch.OutOfMemoryError("no room for a pool")

        monkeypatch.setattr(notebook, "record", record)
        for _ in range(4):
            (found,) = passes.run("key", weights, work, torch.ones(3))
            assert torch.equal(found, torch.full((3,), 2.0))
        assert len(tried) == 1, "it is not tried again"
        passes.forget()
        for _ in range(2):
            passes.run("key", weights, work, torch.ones(3))
        assert len(tried) == 2, "but where memory has been given back"

    def test_another_error_of_a_recording_is_told(
        self, weights: Weights, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passes, work = Graphs(notebook), Scaled()
        passes.run("key", weights, work, torch.ones(3))

        def record(work: object) -> None:
            raise RuntimeError("the GPU is gone")

        monkeypatch.setattr(notebook, "record", record)
        with pytest.raises(RuntimeError, match="gone"):
            passes.run("key", weights, work, torch.ones(3))


class FakeCuda:
    """torch.cuda as far as a recorder needs it, as strict as CUDA and its allocator are."""

    def __init__(self) -> None:
        self.streams = ["the caller's"]
        self.capturing: FakeGraph | None = None
        self.handles = 0
        self.users: dict[int, int] = {}  # of a pool: how many graphs live
        self.done: list[str] = []
        self.compiled = False

    def kernel(self) -> graphs.Tensors:
        """A launch; its first one compiles and loads it."""
        if self.capturing is None:
            self.compiled = True
            self.done.append(f"run in {self.streams[-1]}")
        elif not self.compiled:
            self.capturing.invalid = True
            raise RuntimeError("operation not permitted when stream is capturing")
        else:
            self.capturing.launches += 1
        return ()

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        yield

    @contextmanager
    def stream(self, stream: "FakeStream") -> Iterator[None]:
        self.streams.append(stream.name)
        try:
            yield
        finally:
            self.streams.pop()

    def Stream(self, device: torch.device) -> "FakeStream":
        return FakeStream(self, "the recorder's")

    def current_stream(self) -> "FakeStream":
        return FakeStream(self, self.streams[-1])

    def empty_cache(self) -> None:
        assert self.capturing is None

    def graph_pool_handle(self) -> int:
        self.handles += 1
        return self.handles

    def CUDAGraph(self) -> "FakeGraph":
        return FakeGraph(self)


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: "FakeStream") -> None:
        assert self.cuda.capturing is None
        self.cuda.done.append(f"{self.name} waits for {other.name}")


class FakeGraph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.launches, self.pool, self.invalid = cuda, 0, 0, False

    def capture_begin(self, pool: int, capture_error_mode: str) -> None:
        assert self.cuda.streams[-1] != "the caller's", "CUDA captures no default stream"
        assert capture_error_mode == "thread_local", "other threads would spoil it"
        if pool in self.cuda.users:
            assert self.cuda.users[pool] > 0, "use_count > 0, as torch's allocator says it"
        self.cuda.users[pool] = self.cuda.users.get(pool, 0) + 1
        self.pool, self.cuda.capturing = pool, self
        weakref.finalize(self, self._release, self.cuda, pool)

    @staticmethod
    def _release(cuda: FakeCuda, pool: int) -> None:
        assert cuda.capturing is None, "a graph must not end while another is recorded"
        cuda.users[pool] -= 1

    def capture_end(self) -> None:
        self.cuda.capturing = None
        if self.invalid:
            raise RuntimeError("the capture was invalidated")

    def replay(self) -> None:
        self.cuda.done.append(f"{self.launches} replayed in {self.cuda.streams[-1]}")


class TestCudaRecorder:
    @pytest.fixture
    def cuda(self, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
        fake = FakeCuda()
        monkeypatch.setattr(graphs, "_cuda", fake)
        return fake

    @pytest.fixture
    def recorder(self, cuda: FakeCuda) -> CudaRecorder:
        return CudaRecorder(torch.device("cuda", 0))

    def test_work_is_compiled_beside_the_callers_then_recorded_and_replayed_in_its_stream(
        self, cuda: FakeCuda, recorder: CudaRecorder
    ) -> None:
        replay, _ = recorder.record(cuda.kernel)
        replay()
        assert cuda.done == [
            "the recorder's waits for the caller's",
            "run in the recorder's",
            "the caller's waits for the recorder's",
            "1 replayed in the caller's",
        ]

    def test_recordings_share_a_pool_while_one_of_them_lives(
        self, cuda: FakeCuda, recorder: CudaRecorder
    ) -> None:
        kept = [recorder.record(cuda.kernel) for _ in range(3)]
        assert cuda.users == {1: 3}
        del kept[:2]
        kept.append(recorder.record(cuda.kernel))
        assert cuda.users == {1: 2}
        kept.clear()
        assert cuda.users == {1: 0}
        kept.append(recorder.record(cuda.kernel))
        assert cuda.users == {1: 0, 2: 1}

    def test_an_error_while_recording_is_told_as_it_is(
        self, cuda: FakeCuda, recorder: CudaRecorder
    ) -> None:
        def scarce() -> graphs.Tensors:
            if cuda.capturing is not None:
                raise torch.OutOfMemoryError("no room")
            return ()

        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            recorder.record(scarce)
        assert cuda.capturing is None
        assert cuda.users == {1: 0}
        assert cuda.done[-1] == "the caller's waits for the recorder's"
        assert recorder.record(cuda.kernel)
        assert gc.isenabled()

    def test_a_forbidden_call_is_told_as_what_it_did_to_the_capture(
        self, cuda: FakeCuda, recorder: CudaRecorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(graphs, "_broken", broken := [])

        def forgetful() -> graphs.Tensors:
            cuda.compiled = cuda.capturing is None
            return cuda.kernel()

        with pytest.raises(RuntimeError, match="invalidated") as caught:
            recorder.record(forgetful)
        assert "not permitted" in str(caught.value.__cause__)
        assert len(broken) == 1

    def test_no_garbage_goes_while_recording(self, cuda: FakeCuda, recorder: CudaRecorder) -> None:
        collects: list[bool] = []

        def work() -> graphs.Tensors:
            collects.append(gc.isenabled())
            return cuda.kernel()

        recorder.record(work)
        assert collects == [True, False]
        assert gc.isenabled()
