"""A checkpoint from the disk, not from its cache: it should come as fast as the disk gives it.

The peer reads the same file past the page cache (O_DIRECT) into memory of its own, in threads and
blocks of the size that does best here, and does nothing with it.
"""

import contextlib
import itertools
import mmap
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison import Comparison, timed
from random_series import RandomSeries
from transformers import GPTNeoXForCausalLM

from pythia_fast.model import Weights
from pythia_fast.series import open_series
from pythia_fast.suite import spec

THREADS = (1, 2, 4, 8)
BLOCK_BYTES = (2**20, 2**22, 2**23)
TRIES = 3


@pytest.mark.parametrize("size", ["70m", "410m"])
def test_cold(
    benchmark: Any, comparison: Comparison, random_series: RandomSeries, size: str
) -> None:
    """The whole way to a resident model: open, check the header, read into the arena."""
    folder = random_series(size, 1)
    file = folder / "step0" / "model.safetensors"
    series = open_series(folder)
    weights = Weights(series.spec.architecture, dtype=torch.float16)
    cold = partial(drop_from_cache, file)

    def read() -> None:
        weights.load(series.open(0))

    read()
    require_same(weights, GPTNeoXForCausalLM.from_pretrained(file.parent, dtype=torch.float16))
    cold()
    assert cached_bytes(file) == 0, "the system keeps the file in its cache"
    threads, block_bytes = best_direct(comparison, size, file)
    comparison.run(
        benchmark,
        f"{size}, float16 safetensors, from the disk into a float16 arena",
        read,
        {
            f"O_DIRECT, {threads} threads, blocks of {block_bytes >> 20} MiB": partial(
                read_direct, file, threads, block_bytes
            ),
            "from_pretrained": lambda: (
                GPTNeoXForCausalLM.from_pretrained(file.parent, dtype=torch.float16)
                .state_dict()["gpt_neox.embed_in.weight"]
                .sum()
            ),
        },
        target={f"O_DIRECT, {threads} threads, blocks of {block_bytes >> 20} MiB": 0.9},
        cache="the file dropped from the page cache before every call",
        before=cold,
    )


def test_warm(benchmark: Any, comparison: Comparison, random_series: RandomSeries) -> None:
    """From the page cache, as float32, which is what either computes with on a CPU."""
    folder = random_series("70m", 1)
    series = open_series(folder)
    weights = Weights(spec("70m").architecture, dtype=torch.float32)

    def read() -> None:
        weights.load(series.open(0))

    def from_pretrained() -> GPTNeoXForCausalLM:
        return GPTNeoXForCausalLM.from_pretrained(folder / "step0", dtype=torch.float32)

    read()
    require_same(weights, from_pretrained())
    comparison.run(
        benchmark,
        "70m, float16 safetensors into a float32 arena",
        read,
        {"from_pretrained": from_pretrained},
        target={"from_pretrained": 5.0},
        cache="page cache warm",
    )


def require_same(weights: Weights, model: GPTNeoXForCausalLM) -> None:
    """Every weight is the one that transformers has read."""
    theirs = model.state_dict()
    theirs["embed_out.weight"] = theirs.pop("lm_head.weight")
    for name, tensor in weights.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def best_direct(comparison: Comparison, size: str, file: Path) -> tuple[int, int]:
    """The threads and block size with which O_DIRECT is fastest on this disk."""
    elapsed_s: dict[tuple[int, int], list[float]] = {}
    for _ in range(TRIES):
        for setting in itertools.product(THREADS, BLOCK_BYTES):
            elapsed_s.setdefault(setting, []).append(timed(partial(read_direct, file, *setting)))
    for (threads, block_bytes), taken_s in elapsed_s.items():
        comparison.calibrated(
            f"{size} with O_DIRECT",
            f"{threads} threads, blocks of {block_bytes >> 20} MiB",
            {"gb_per_s": file.stat().st_size / 1e9 / sorted(taken_s)[TRIES // 2]},
        )
    return min(elapsed_s, key=lambda setting: sorted(elapsed_s[setting])[TRIES // 2])


def read_direct(file: Path, threads: int, block_bytes: int) -> None:
    """All of a file past the page cache, each thread into a buffer of its own."""
    size = file.stat().st_size
    offsets = iter(range(0, size, block_bytes))
    taking = threading.Lock()

    def work(buffer: mmap.mmap) -> int:
        got = 0
        while True:
            with taking:
                offset = next(offsets, None)
            if offset is None:
                return got
            got += os.preadv(descriptor, [buffer], offset)

    with opened(file, os.O_DIRECT) as descriptor, ThreadPoolExecutor(threads) as pool:
        buffers = [mmap.mmap(-1, block_bytes) for _ in range(threads)]
        assert sum(pool.map(work, buffers)) == size


def drop_from_cache(file: Path) -> None:
    """Let the system forget what it has of the file; what is not on the disk yet goes there."""
    with opened(file) as descriptor:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(file: Path) -> int:
    """How much of the beginning, middle and end of a file can be read without the disk."""
    size = file.stat().st_size
    found = 0
    with opened(file) as descriptor:
        for offset in (0, size // 2, size - 4096):
            with contextlib.suppress(BlockingIOError):
                found += os.preadv(descriptor, [bytearray(4096)], offset, os.RWF_NOWAIT)
    return found


@contextlib.contextmanager
def opened(file: Path, flags: int = 0) -> Iterator[int]:
    """A descriptor for reading."""
    descriptor = os.open(file, os.O_RDONLY | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
