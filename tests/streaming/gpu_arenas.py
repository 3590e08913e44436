"""Arenas of a GPU that is played, of each kind that there is."""

import torch
from fake_gpu import FakeGpu

from pythia_fast.model import Weights
from pythia_fast.model.ring import Ring
from pythia_fast.streaming.arenas import Arenas
from pythia_fast.suite import Architecture


def arenas_of(
    gpu: FakeGpu, shape: Architecture, kind: str, dtype: torch.dtype = torch.float16
) -> Arenas:
    """Those of a GPU with room for two or for one, then with one or two of the host, or none."""
    ring = Ring(gpu, slot_bytes=1 << 15)
    on_gpu = [Weights(shape, dtype=dtype, ring=ring) for _ in range(2)]
    host = [Weights(shape, dtype=dtype, pinned_by=gpu) for _ in range(2)]
    return {
        "two": Arenas(tuple(on_gpu)),
        "one": Arenas((on_gpu[0],)),
        "one and one of the host": Arenas((host[0],), on_gpu[0]),
        "one and two of the host": Arenas(tuple(host), on_gpu[0]),
    }[kind]


KINDS = ("two", "one", "one and one of the host", "one and two of the host")
