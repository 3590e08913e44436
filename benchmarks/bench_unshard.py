"""Joining shards: ours beside cat, and beside one numpy.memmap written into another.

What ours has made is on the disk when it returns; what the peers write only after a sync, so each
is timed with one and without. Each call begins by removing what it made before.
"""

import filecmp
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison import Comparison
from roofline import Work

from pythia_fast.tokens import write_tokens
from pythia_fast.tokens.files import find_files
from pythia_fast.tokens.shards import shard, unshard

SHARDS, ROW_BYTES = 4, 4098
BLOCKS_BYTES = 250_003_456  # a multiple of 4096
PYTHIAS_BYTES = BLOCKS_BYTES + 512  # 5·10^9 has the same rest: every eighth shard is at a block
LIMIT_MB = 100.0
MEMMAP = "numpy.memmap into numpy.memmap"
MEMORY = """
import sys
from pythia_fast.tokens.shards import unshard
unshard(sys.argv[1], sys.argv[2])
for line in open("/proc/self/status"):  # not ru_maxrss: a child inherits its parent's
    if line.startswith("VmHWM:"):
        print(int(line.split()[1]) * 1024)
"""


def make_shards(folder: Path, shard_bytes: int) -> Path:
    """Rows of random ids; the last shard is a third of the others."""
    folder.mkdir()
    rows = (SHARDS * 3 - 2) * shard_bytes // 3 // ROW_BYTES
    row = np.frombuffer(np.random.default_rng(0).bytes(ROW_BYTES), np.uint16)
    write_tokens(folder / "document", (row for _ in range(rows)))
    made = shard(folder / "document", folder / "shards", shard_bytes=shard_bytes)
    assert len(made.bins) == SHARDS
    (folder / "document.bin").unlink()
    subprocess.run(["sync", "-f", folder], check=True)
    return folder / "shards"


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of its own that shares blocks, in a file; None if it may not be mounted."""
    image, place = tmp_path / "image", tmp_path / "mounted"
    place.mkdir()
    with image.open("xb") as file:
        file.truncate(6 * SHARDS * PYTHIAS_BYTES)
    try:
        for command in (["mkfs.xfs", "-q", "-m", "reflink=1", image], ["mount", image, place]):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    yield place
    subprocess.run(["umount", place], check=True)


def ways(shards: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Ours and its peers, each into a file of its own name."""
    found = find_files(shards)
    sizes = found.nbytes[1:]
    out.mkdir()

    def fresh(name: str) -> Path:
        path = out / f"{name}.bin"
        path.unlink(missing_ok=True)
        path.with_suffix(".idx").unlink(missing_ok=True)
        return path

    def ours() -> None:
        unshard(shards, fresh("ours"))

    def cat(name: str) -> None:
        with fresh(name).open("xb") as file:
            subprocess.run(["cat", *found.bins], stdout=file, check=True)

    def memmap(name: str) -> None:
        whole = np.memmap(fresh(name), np.uint8, "w+", shape=(sum(sizes),))
        begin = 0
        for path, nbytes in zip(found.bins, sizes, strict=True):
            whole[begin : begin + nbytes] = np.memmap(path, np.uint8, "r")
            begin += nbytes

    def sync(name: str) -> None:
        subprocess.run(["sync", out / f"{name}.bin"], check=True)

    return {
        "ours": ours,
        "cat, then sync": lambda: (cat("cat-synced"), sync("cat-synced")),
        "cat": lambda: cat("cat"),
        f"{MEMMAP}, then sync": lambda: (memmap("memmap-synced"), sync("memmap-synced")),
        MEMMAP: lambda: memmap("memmap"),
    }


def compare(
    benchmark: Any,
    comparison: Comparison,
    shards: Path,
    case: str,
    target: dict[str, float],
    work: Work | None = None,
) -> None:
    out = shards.parent / f"{shards.name}-joined"
    calls = ways(shards, out)
    for call in calls.values():
        call()
    made = sorted(out.glob("*.bin"))
    assert len(made) == len(calls)
    assert all(filecmp.cmp(made[0], path, shallow=False) for path in made[1:])
    assert made[0].stat().st_size == sum(find_files(shards).nbytes[1:])
    comparison.run(
        benchmark,
        case,
        calls.pop("ours"),
        calls,
        cache="page cache warm",
        work=work,
        target=target,
    )
    shutil.rmtree(out)


def test_where_everything_is_copied(benchmark: Any, comparison: Comparison, tmp_path: Path) -> None:
    """The file system of the temporary folder, whatever it is."""
    shards = make_shards(tmp_path / "shards", PYTHIAS_BYTES)
    case = f"{SHARDS} shards of {PYTHIAS_BYTES:,} bytes, in the temporary folder"
    work = Work(bytes=2 * sum(find_files(shards).nbytes))
    compare(benchmark, comparison, shards, case, {"cat, then sync": 1.0}, work)


@pytest.mark.parametrize(
    ("shard_bytes", "what", "target"),
    [
        (BLOCKS_BYTES, "whole blocks: all are shared", {MEMMAP: 5.0}),
        (PYTHIAS_BYTES, "512 bytes more, as Pythia's: the first is shared", {}),
    ],
    ids=["whole-blocks", "pythias"],
)
def test_where_blocks_are_shared(
    benchmark: Any,
    comparison: Comparison,
    sharing: Path | None,
    shard_bytes: int,
    what: str,
    target: dict[str, float],
) -> None:
    """XFS in a file. Blocks can be shared where a shard begins at one; cat shares them too."""
    case = f"{SHARDS} shards of {shard_bytes:,} bytes, on XFS, {what}"
    if sharing is None:
        comparison.note(case, {"not measured": "no XFS could be made and mounted here"})
        return
    shards = make_shards(sharing / "shards", shard_bytes)
    compare(benchmark, comparison, shards, case, target)


def test_memory(comparison: Comparison, tmp_path: Path) -> None:
    """The peak of a process that does nothing else, interpreter and all."""
    shards = make_shards(tmp_path / "shards", PYTHIAS_BYTES)
    command = [sys.executable, "-c", MEMORY, shards, tmp_path / "whole"]
    peak_mb = int(subprocess.run(command, check=True, capture_output=True).stdout) / 1e6
    comparison.note("memory of a process that joins shards", {"peak_mb": peak_mb})
    assert peak_mb < LIMIT_MB
