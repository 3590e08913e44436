"""Which arenas there are, by the memory that is free: of machines that are played."""

import logging

import pytest
import torch

from pythia_fast.errors import ArgumentError, PinnedMemoryError
from pythia_fast.model import Precision, Weights
from pythia_fast.model.parameters import Layout
from pythia_fast.streaming import arenas
from pythia_fast.streaming.arenas import Arenas, make_arenas
from pythia_fast.suite import Architecture, spec

HALF = Precision("float16", torch.float16, None)
CUDA = torch.device("cuda")
GB = 10**9


def test_packed_weights_need_room_too(tiny: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just enough is free for two arenas, which float32 products ask for, and for nothing else."""
    nbytes = Weights(tiny).flat.nbytes
    free = int(2 * nbytes / arenas.MEMORY_SHARE) + 2
    monkeypatch.setattr(arenas, "free_bytes", lambda device: free)
    for arithmetic, count in (("float32", 2), (None, 2), ("split-bf16", 1)):
        precision = Precision("float32", torch.float32, arithmetic)  # type: ignore[arg-type]
        made = make_arenas(tiny, 3, precision, torch.device("cpu"))
        assert len(made.loading) == count


class Room:
    """How much is free, where; and arenas that take it without being there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, gpu: float, host: float) -> None:
        self.free = {"cuda": int(gpu * GB), "cpu": int(host * GB)}
        self.lockable = self.free["cpu"]
        self.streams = object()
        room = self

        class Arena:
            def __init__(
                self,
                architecture: Architecture,
                *,
                dtype: torch.dtype,
                device: torch.device | str = "cpu",
                pinned_by: object = None,
            ) -> None:
                nbytes = Layout(architecture, dtype.itemsize).nbytes
                self.is_host = pinned_by is not None
                if self.is_host:
                    assert pinned_by is room.streams
                    if nbytes > room.lockable:
                        raise PinnedMemoryError("no more")
                    room.lockable -= nbytes
                kind = "cpu" if self.is_host else torch.device(device).type
                room.free[kind] -= nbytes
                assert room.free[kind] >= 0

        monkeypatch.setattr(arenas, "Weights", Arena)
        monkeypatch.setattr(arenas, "streams_of", lambda device: self.streams)
        monkeypatch.setattr(arenas, "free_bytes", lambda device: self.free[device.type])


def kind_of(made: Arenas) -> str:
    of_host = [arena.is_host for arena in made.loading]
    if made.poured_into is None:
        assert not any(of_host)
        return f"{len(of_host)} of the GPU"
    assert all(of_host)
    assert not made.poured_into.is_host
    assert made.resident is made.poured_into
    return f"1 of the GPU, {len(of_host)} of the host"


@pytest.mark.parametrize(
    ("size", "gpu", "host", "kind"),
    [
        ("12b", 80, 200, "2 of the GPU"),
        ("12b", 40, 200, "1 of the GPU, 2 of the host"),
        ("12b", 40, 64, "1 of the GPU, 1 of the host"),
        ("12b", 40, 30, "1 of the GPU"),
        ("6.9b", 40, 200, "2 of the GPU"),
        ("6.9b", 24, 64, "1 of the GPU, 1 of the host"),
        ("6.9b", 24, 128, "1 of the GPU, 2 of the host"),
        ("2.8b", 24, 64, "2 of the GPU"),
        ("70m", 24, 16, "2 of the GPU"),
    ],
)
def test_which_arenas_fit_where(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    size: str,
    gpu: float,
    host: float,
    kind: str,
) -> None:
    Room(monkeypatch, gpu=gpu, host=host)
    architecture = spec(size).architecture
    with caplog.at_level(logging.INFO, logger="pythia_fast"):
        assert kind_of(make_arenas(architecture, 154, HALF, CUDA)) == kind
    assert ("take turns" in caplog.text) == (kind == "1 of the GPU")
    assert ("layer by layer" in caplog.text) == ("of the host" in kind)


@pytest.mark.parametrize(
    ("size", "gpu", "steps", "cores", "kind"),
    [
        ("70m", 80, 154, 16, "5 of the GPU"),
        ("70m", 80, 154, 8, "4 of the GPU"),
        ("70m", 80, 154, 2, "2 of the GPU"),
        ("70m", 80, 3, 16, "3 of the GPU"),
        ("1b", 80, 154, 16, "3 of the GPU"),
        ("2.8b", 80, 154, 16, "2 of the GPU"),
    ],
)
def test_of_small_models_several_are_loaded_at_once(
    monkeypatch: pytest.MonkeyPatch, size: str, gpu: float, steps: int, cores: int, kind: str
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    Room(monkeypatch, gpu=gpu, host=200)
    assert kind_of(make_arenas(spec(size).architecture, steps, HALF, CUDA)) == kind


def test_a_part_of_the_memory_is_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an 80 GB card that two share, and of a host that two share."""
    architecture = spec("12b").architecture
    Room(monkeypatch, gpu=80, host=200)
    assert kind_of(make_arenas(architecture, 9, HALF, CUDA, share=0.5)) == (
        "1 of the GPU, 1 of the host"
    )


def test_one_step_takes_one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    Room(monkeypatch, gpu=40, host=200)
    assert kind_of(make_arenas(spec("12b").architecture, 1, HALF, CUDA)) == "1 of the GPU"


def test_a_model_that_no_gpu_of_this_size_holds_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Room(monkeypatch, gpu=23, host=200)
    with pytest.raises(ArgumentError, match=r"23\.7 GB in float16, and cuda has 23 GB free"):
        make_arenas(spec("12b").architecture, 1, HALF, CUDA)


@pytest.mark.parametrize(
    ("lockable", "kind"), [(30, "1 of the GPU, 1 of the host"), (20, "1 of the GPU")]
)
def test_memory_that_cannot_be_pinned_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lockable: int, kind: str
) -> None:
    Room(monkeypatch, gpu=40, host=200).lockable = lockable * GB
    assert kind_of(make_arenas(spec("12b").architecture, 154, HALF, CUDA)) == kind
    assert "no more" in caplog.text
