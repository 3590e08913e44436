"""Training data: a step's batch, cold rows, and an index of the published size.

Ours beside the usual Python way, slices of a numpy.memmap copied, widened and stacked, and beside
memcpy of as many bytes as the result has.
"""

import ctypes
import mmap
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison import Comparison, Effort, timed
from roofline import Work

from pythia_fast.core import TokenStore
from pythia_fast.tokens import TokenDataset

COLUMNS, BATCH = 2049, 1024
ROW_BYTES = 2 * COLUMNS
STEP_WORK = Work(bytes=BATCH * COLUMNS * (2 + 8))  # uint16 read, int64 written
ROWS = {"quick": 4 * BATCH, "standard": 540_000, "full": 540_000}  # 2.2 GB
PUBLISHED_ROWS = {"quick": 6_000_000, "standard": 146_432_000, "full": 146_432_000}
CHUNK_ROWS = 32_768
THREADS = len(os.sched_getaffinity(0))


def write_index(path: Path, rows: int) -> None:
    """The .idx of `rows` rows of 2049 uint16, as the published sets have it, in little memory."""
    with path.open("wb") as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, rows, 1))
        for begin in range(0, rows, 1 << 20):
            file.write(np.full(min(1 << 20, rows - begin), COLUMNS, "<i4").data)
        for begin in range(0, rows, 1 << 20):
            end = min(begin + (1 << 20), rows)
            file.write((np.arange(begin, end, dtype="<i8") * ROW_BYTES).data)
        file.write(bytes(8))
        file.flush()
        os.fsync(file.fileno())  # what is not on the disk yet cannot be dropped


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, effort: Effort) -> Iterator[Path]:
    """2.2 GB of random rows."""
    folder = tmp_path_factory.mktemp("tokens")
    rows = ROWS[effort.name]
    random = np.random.default_rng(0)
    with (folder / "data.bin").open("wb") as file:
        for begin in range(0, rows, CHUNK_ROWS):
            shape = (min(CHUNK_ROWS, rows - begin), COLUMNS)
            file.write(random.integers(0, 50_254, shape, dtype=np.uint16).data)
        file.flush()
        os.fsync(file.fileno())
    write_index(folder / "data.idx", rows)
    yield folder / "data"
    shutil.rmtree(folder)


def in_threads(work: Callable[[slice], object], number: int) -> Callable[[], None]:
    """Calls `work` for each of as many parts of a batch as there are threads."""
    cuts = np.linspace(0, BATCH, number + 1).astype(int)
    parts = [slice(a, b) for a, b in pairwise(cuts)]
    pool = ThreadPoolExecutor(number)

    def call() -> None:
        for _ in pool.map(work, parts):
            pass

    return call


@pytest.mark.parametrize("threads", sorted({1, THREADS}))
def test_a_steps_batch(benchmark: Any, comparison: Comparison, prefix: Path, threads: int) -> None:
    """1024 rows that follow each other, into an array that is there."""
    dataset = TokenDataset(prefix)
    mapped = np.memmap(prefix.with_suffix(".bin"), np.uint16, "r").reshape(-1, COLUMNS)
    rows = slice(BATCH, 2 * BATCH)
    ours, theirs = (np.zeros((BATCH, COLUMNS), np.int64) for _ in range(2))

    def python_way() -> np.ndarray[Any, Any]:
        return np.stack([np.array(mapped[i]).astype(np.int64) for i in range(BATCH, 2 * BATCH)])

    def memcpy(part: slice) -> None:
        theirs[part] = ours[part]

    dataset.gather(rows, out=ours, threads=threads)
    np.testing.assert_array_equal(ours, python_way())
    np.testing.assert_array_equal(dataset.gather(rows), ours)
    copy = in_threads(memcpy, threads)
    copy()
    np.testing.assert_array_equal(ours, theirs)
    comparison.run(
        benchmark,
        f"a step's {BATCH} rows of {COLUMNS} uint16 as int64, threads: {threads}",
        lambda: dataset.gather(rows, out=ours, threads=threads),
        {
            "numpy.memmap: slice, copy, widen, stack": python_way,
            "memcpy of the result, the same threads": copy,
        },
        rounds=100,
        cache="page cache warm",
        work=STEP_WORK,
        target={
            "numpy.memmap: slice, copy, widen, stack": 5.0,
            "memcpy of the result, the same threads": 0.8,
        },
    )


def drop(path: Path) -> None:
    """Take a file that nobody has mapped out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def share_in_memory(path: Path) -> float:
    """How much of a file is in the page cache, as mincore(2) says."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        pages = np.zeros(-(-view.size // mmap.PAGESIZE), np.uint8)
        address, to = ctypes.c_void_p(view.ctypes.data), ctypes.c_void_p(pages.ctypes.data)
        if libc.mincore(address, ctypes.c_size_t(view.size), to) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
        del view
    return float((pages & 1).mean())


def read_from_disk() -> int:
    """Bytes that this process has had read from a disk so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def test_cold_random_rows(benchmark: Any, comparison: Comparison, prefix: Path) -> None:
    """1024 rows anywhere in 2.2 GB, none in memory; each call drops the file and maps it anew."""
    bin_ = prefix.with_suffix(".bin")
    total = bin_.stat().st_size // ROW_BYTES
    random = np.random.default_rng(3)

    def ours(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        drop(bin_)
        return TokenDataset(prefix).gather(rows)

    def memmap(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        drop(bin_)
        mapped = np.memmap(bin_, np.uint16, "r").reshape(-1, COLUMNS)
        return np.stack([np.array(mapped[row]).astype(np.int64) for row in rows])

    def memmap_advised(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        drop(bin_)
        with bin_.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        mapping.madvise(mmap.MADV_RANDOM)
        mapped = np.frombuffer(mapping, np.uint16).reshape(-1, COLUMNS)
        return np.stack([np.array(mapped[row]).astype(np.int64) for row in rows])

    rows = random.integers(0, total, BATCH)
    read_mb, results = {}, []
    for call in (ours, memmap, memmap_advised):
        drop(bin_)
        assert share_in_memory(bin_) < 0.001
        before = read_from_disk()
        results.append(call(rows))
        read_mb[call.__name__] = (read_from_disk() - before) / 1e6
        assert read_mb[call.__name__] * 1e6 > 0.9 * len(np.unique(rows)) * ROW_BYTES
    for theirs in results[1:]:
        np.testing.assert_array_equal(results[0], theirs)
    peers = {
        "numpy.memmap: slice, copy, widen, stack": memmap,
        "the same with MADV_RANDOM": memmap_advised,
    }
    comparison.run(
        benchmark,
        f"{BATCH} random rows of {total * ROW_BYTES / 1e9:.1f} GB, as int64",
        lambda: ours(random.integers(0, total, BATCH)),
        {
            name: lambda call=call: call(random.integers(0, total, BATCH))
            for name, call in peers.items()
        },
        rounds=10,
        cache="cold: dropped before each call, and mapped anew",
        target={"numpy.memmap: slice, copy, widen, stack": 3.0},
        numbers={f"read_mb_{name}": value for name, value in read_mb.items()},
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, effort: Effort) -> Iterator[Path]:
    """The index of the published sets, 1.76 GB, and a .bin of holes of the right size."""
    folder = tmp_path_factory.mktemp("published")
    rows = PUBLISHED_ROWS[effort.name]
    write_index(folder / "document.idx", rows)
    with (folder / "document.bin").open("wb") as file:
        file.truncate(rows * ROW_BYTES)
    yield folder / "document"
    shutil.rmtree(folder)


def test_the_published_index(benchmark: Any, comparison: Comparison, published: Path) -> None:
    """Opened, cold and warm, and checked whole beside a check in NumPy, a block at a time."""
    index, bin_ = published.with_suffix(".idx"), published.with_suffix(".bin")
    nbytes = index.stat().st_size
    rows = (nbytes - 42) // 12
    drop(index)
    cold = share_in_memory(index)
    cold_s = timed(lambda: TokenStore(index, bin_))
    assert index.read_bytes()[:9] == b"MMIDIDX\0\0"  # all of it is in the page cache now
    warm_s = min(timed(lambda: TokenStore(index, bin_)) for _ in range(5))
    file = np.memmap(index, np.uint8, "r")
    sizes = file[34 : 34 + 4 * rows].view("<i4")
    pointers = file[34 + 4 * rows : 34 + 12 * rows].view("<i8")

    def numpy_check() -> bool:
        right, block = int(pointers[0]) == 0, 1 << 18
        for begin in range(0, rows, block):
            some = sizes[begin : begin + block]
            ends = pointers[begin : begin + block] + 2 * some.astype(np.int64)
            after = pointers[begin + 1 : begin + block + 1]
            right &= bool((some >= 0).all() and (ends[: len(after)] == after).all())
        return right

    store = TokenStore(index, bin_)
    assert len(store) == rows
    assert numpy_check()
    store.verify(THREADS)
    comparison.run(
        benchmark,
        f"full check of an index of {rows} rows, {nbytes / 1e9:.2f} GB",
        lambda: store.verify(THREADS),
        {"numpy, a block at a time": numpy_check},
        cache="page cache warm",
        work=Work(bytes=nbytes),
    )
    comparison.note(
        f"an index of {nbytes / 1e9:.2f} GB",
        {
            "open_warm_s": warm_s,
            "open_cold_s": cold_s,
            "share_in_memory_before_cold": cold,
            "full_check_gb_per_s": nbytes / benchmark.stats.stats.median / 1e9,
        },
    )
