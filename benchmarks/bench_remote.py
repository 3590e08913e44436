"""Rows of a data set that stays on the Hub: ours beside huggingface_hub's own ways to read a file.

The Hub is on this machine, in a process of its own, and every request to it takes 50 ms longer than
it would. The data set has the sizes of the Pile's own, in files with holes.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from comparison import Comparison
from huggingface_hub import HfFileSystem, hf_hub_download
from local_hub import speak_to

from pythia_fast.tokens import TokenDataset, write_tokens

LATENCY_S = 0.05
TARGET_S = 1.0
ROWS, LENGTH, ROW_BYTES = 146_432_000, 2049, 4098
SHARD_BYTES, LAST_SHARD_BYTES = 30_000_000_000, 78_336_000
FIRST, STEP, SCATTERED, SMALL_ROWS = 512, 1024, 64, 16_384
PILE, SMALL = "me/pile", "me/small"

SERVER = """
import json, sys
from pythia_fast.testing import HubServer

repositories, digests, latency_s = json.loads(sys.argv[1])
with HubServer(repositories, redirect=True, latency_s=latency_s, sha256=digests) as hub:
    print(hub.url, flush=True)
    sys.stdin.read()
"""


def scattered() -> npt.NDArray[np.int64]:
    """Rows of the first shard, far from each other."""
    found = np.random.default_rng(1).choice(SHARD_BYTES // ROW_BYTES, SCATTERED, replace=False)
    return np.sort(found)


def make_pile(folder: Path) -> None:
    """Shards of the true sizes, and an index; in both are only the rows that are read here."""
    shards = [folder / f"document-{number:05}-of-00020.bin" for number in range(21)]
    for path in shards:
        path.touch()
        os.truncate(path, LAST_SHARD_BYTES if path is shards[-1] else SHARD_BYTES)
    rows = np.concatenate([np.arange(FIRST + STEP), scattered()])
    random = np.random.default_rng(0)
    with shards[0].open("r+b") as file:
        for row in rows.tolist():
            file.seek(ROW_BYTES * row)
            file.write(random.integers(0, 50_254, LENGTH, dtype=np.uint16).tobytes())
    with (folder / "document.idx").open("wb") as index:
        index.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, ROWS, 1))
        index.truncate(34 + 12 * ROWS + 8)
        for row in [*rows.tolist(), *(rows + 1).tolist(), ROWS - 1]:
            index.seek(34 + 4 * row)
            index.write(struct.pack("<i", LENGTH))
            index.seek(34 + 4 * ROWS + 8 * row)
            index.write(struct.pack("<q", ROW_BYTES * row))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Hub with both data sets."""
    pile, small = tmp_path_factory.mktemp("pile"), tmp_path_factory.mktemp("small")
    make_pile(pile)
    random = np.random.default_rng(0)
    write_tokens(
        small / "tokens", random.integers(0, 50_254, (SMALL_ROWS, LENGTH), dtype=np.uint16)
    )
    digests = {path.name: f"{number:064}" for number, path in enumerate(pile.glob("*-of-*"))}
    repositories = {
        f"datasets/{repo}": {"main": str(folder)} for repo, folder in ((PILE, pile), (SMALL, small))
    }
    settings = json.dumps([repositories, digests | {"document.idx": "f" * 64}, LATENCY_S])
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.communicate()


@pytest.fixture(autouse=True)
def _endpoint(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speak_to(hub, monkeypatch)


def opened(repo: str, cache: str) -> TokenDataset:
    return TokenDataset(f"hub:{repo}", cache_dir=cache)


def file_system(hub: str) -> HfFileSystem:
    return HfFileSystem(endpoint=hub, skip_instance_cache=True)


def from_bytes(data: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(data, np.uint16).reshape(-1, LENGTH).astype(np.int64)


def test_the_first_rows(benchmark: Any, comparison: Comparison, hub: str) -> None:
    """Opening included, with nothing on disk before."""
    file = f"datasets/{PILE}/document-00000-of-00020.bin"

    def ours() -> npt.NDArray[np.int64]:
        with tempfile.TemporaryDirectory() as cache:
            return opened(PILE, cache).gather(range(FIRST))

    def file_system_reads() -> npt.NDArray[np.int64]:
        with file_system(hub).open(file, "rb", cache_type="none") as remote:
            return from_bytes(remote.read(FIRST * ROW_BYTES))

    np.testing.assert_array_equal(ours(), file_system_reads())
    comparison.run(
        benchmark,
        f"the first {FIRST} rows of the Pile, from opening it to their ids",
        ours,
        {"HfFileSystem, the range of the first shard": file_system_reads},
        cache="nothing on disk",
        numbers={"target_s": TARGET_S, "latency_s": LATENCY_S},
    )


def test_a_step_of_an_open_data_set(benchmark: Any, comparison: Comparison, hub: str) -> None:
    """4 MB in one piece."""
    remote = file_system(hub).open(
        f"datasets/{PILE}/document-00000-of-00020.bin", "rb", cache_type="none"
    )
    rows = np.arange(FIRST, FIRST + STEP)

    def ours() -> npt.NDArray[np.int64]:
        with tempfile.TemporaryDirectory() as cache:
            return opened(PILE, cache).gather(rows)

    def file_system_reads() -> npt.NDArray[np.int64]:
        remote.seek(FIRST * ROW_BYTES)
        return from_bytes(remote.read(STEP * ROW_BYTES))

    np.testing.assert_array_equal(ours(), file_system_reads())
    comparison.run(
        benchmark,
        f"{STEP} rows in one piece; ours also opens the data set",
        ours,
        {"HfFileSystem, opened before": file_system_reads},
        cache="nothing on disk",
        numbers={"latency_s": LATENCY_S},
    )
    remote.close()


def test_scattered_rows(benchmark: Any, comparison: Comparison, hub: str) -> None:
    """Where the time is that of so many requests."""
    remote = file_system(hub).open(
        f"datasets/{PILE}/document-00000-of-00020.bin", "rb", cache_type="none"
    )
    rows = scattered()

    def ours() -> npt.NDArray[np.int64]:
        with tempfile.TemporaryDirectory() as cache:
            return opened(PILE, cache).gather(rows)

    def file_system_reads() -> npt.NDArray[np.int64]:
        parts = []
        for row in rows.tolist():
            remote.seek(row * ROW_BYTES)
            parts.append(remote.read(ROW_BYTES))
        return from_bytes(b"".join(parts))

    np.testing.assert_array_equal(ours(), file_system_reads())
    comparison.run(
        benchmark,
        f"{SCATTERED} rows far from each other; ours also opens the data set",
        ours,
        {"HfFileSystem, opened before": file_system_reads},
        cache="nothing on disk",
        numbers={"latency_s": LATENCY_S},
    )
    remote.close()


def test_rows_of_a_small_file(benchmark: Any, comparison: Comparison, hub: str) -> None:
    """Where a file is small enough to be downloaded for some of its rows."""

    def ours() -> npt.NDArray[np.int64]:
        with tempfile.TemporaryDirectory() as cache:
            return opened(SMALL, cache).gather(range(FIRST))

    def download() -> npt.NDArray[np.int64]:
        with tempfile.TemporaryDirectory() as cache:
            path = hf_hub_download(
                SMALL, "tokens.bin", repo_type="dataset", cache_dir=cache, endpoint=hub
            )
            return from_bytes(np.fromfile(path, np.uint8, FIRST * ROW_BYTES).tobytes())

    np.testing.assert_array_equal(ours(), download())
    comparison.run(
        benchmark,
        f"the first {FIRST} rows of a file of {SMALL_ROWS * ROW_BYTES / 1e6:.0f} MB",
        ours,
        {"hf_hub_download and numpy.fromfile": download},
        cache="nothing on disk",
        numbers={"latency_s": LATENCY_S},
    )


def test_what_is_on_disk(benchmark: Any, comparison: Comparison, hub: str, tmp_path: Path) -> None:
    """An open data set whose rows were fetched before, beside the same rows of a local pair."""
    remote = opened(SMALL, str(tmp_path))
    rows = np.random.default_rng(2).choice(SMALL_ROWS, STEP, replace=False)
    write_tokens(tmp_path / "local", remote.gather(slice(None), dtype=np.uint16))
    local = TokenDataset(tmp_path / "local")
    np.testing.assert_array_equal(remote.gather(rows), local.gather(rows))
    comparison.run(
        benchmark,
        f"{STEP} random rows that were fetched before, to a new int64 array",
        lambda: remote.gather(rows),
        {"the same rows of a local pair": lambda: local.gather(rows)},
        rounds=100,
        cache="page cache warm",
    )
