"""The training order of Pythia's data: ours against numpy's shuffles and a plain C++ loop.

Both are whole processes that make up the documents' lengths, build one order and say what it took:
there is no room for two orders of the real size at once. Then raw data read in that order, ours
against slices of numpy.memmap.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import order_peer
import pytest
from comparison import Comparison, Effort
from roofline import Work

from pythia_fast.tokens import TokenDataset, write_tokens
from pythia_fast.tokens.order import PYTHIA_SAMPLES, build

PEER = "RandomState.shuffle and one loop in C++"


@dataclass(frozen=True, slots=True)
class Data:
    """As many documents and tokens as a raw set of Pythia's has; the lengths are random here."""

    name: str
    documents: int
    tokens: int


DATA = (
    Data("one epoch", 134_318_121, 332_000_000_000),
    Data("two epochs", 134_318_121, 207_000_000_000),
)
READ, COLUMNS = 1024, 2049
PART = {"quick": 1000, "standard": 10, "full": 1}


@pytest.mark.parametrize("data", DATA, ids=lambda data: data.name)
def test_order(
    benchmark: Any, comparison: Comparison, effort: Effort, data: Data, tmp_path: Path
) -> None:
    """The same bits first, from the runs that are timed; then time and peak memory."""
    library = order_peer.compile_peer(tmp_path)
    part = PART[effort.name]
    size = [data.documents // part, data.tokens // part, PYTHIA_SAMPLES // part]
    said: dict[str, list[dict[str, Any]]] = {"ours": [], "numpy": []}

    def run(who: str) -> None:
        command = [sys.executable, order_peer.__file__, who, *map(str, size), str(library)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        said[who].append(json.loads(done.stdout))

    def round_of_both() -> None:
        run("numpy")
        run("ours")
        assert said["ours"][-1]["digest"] == said["numpy"][-1]["digest"]

    rounds = 3 if effort.name == "standard" else effort.min_rounds
    benchmark.pedantic(round_of_both, rounds=rounds, warmup_rounds=0, iterations=1)
    ours, theirs = said["ours"], said["numpy"]
    ratios = sorted(b["elapsed_s"] / a["elapsed_s"] for a, b in zip(ours, theirs, strict=True))
    seconds = {who: sorted(each["elapsed_s"] for each in of) for who, of in said.items()}
    arrays = ours[0]["array_bytes"]
    excess = {who: max(each["peak_bytes"] for each in of) / arrays for who, of in said.items()}
    middle = rounds // 2
    comparison.note(
        f"{size[0]:,} documents, {data.name}, {ours[0]['samples']:,} samples",
        {
            "peer": PEER,
            "ours_median_s": seconds["ours"][middle],
            "ours_min_s": seconds["ours"][0],
            "ours_max_s": seconds["ours"][-1],
            "peer_median_s": seconds["numpy"][middle],
            "peer_min_s": seconds["numpy"][0],
            "peer_max_s": seconds["numpy"][-1],
            "ratio_median": ratios[middle],
            "ratio_min": ratios[0],
            "ratio_max": ratios[-1],
            "rounds": rounds,
            "cache": "lengths in memory",
            "arrays_gb": arrays / 1e9,
            "peak_of_array_bytes": excess["ours"],
            "of_the_peer": excess["numpy"],
        },
    )
    assert excess["ours"] <= 1.2 or part > 1
    assert seconds["ours"][middle] <= 60


def test_a_step_in_order(benchmark: Any, comparison: Comparison, tmp_path: Path) -> None:
    """The 1024 samples of a training step, stitched from raw documents."""
    random = np.random.default_rng(0)
    lengths = order_peer.random_lengths(20_000, 50_000_000)
    write_tokens(tmp_path / "raw", (random.integers(0, 50_254, n, np.uint16) for n in lengths))
    order = build(lengths, samples=20_000)
    data = TokenDataset(tmp_path / "raw").in_order(order)
    mapped = np.memmap(tmp_path / "raw.bin", np.uint16, "r")
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    rows = slice(4 * READ, 5 * READ)

    def sample(row: int) -> np.ndarray[Any, Any]:
        number = order.shuffle_idx[row]
        (first, begin), (last, end) = order.sample_idx[number : number + 2]
        parts = []
        for position in range(first, last + 1):
            document = order.doc_idx[position]
            ids = mapped[bounds[document] : bounds[document + 1]]
            ids = ids[: end + 1] if position == last else ids
            parts.append(ids[begin:] if position == first else ids)
        return np.concatenate(parts).astype(np.int64)

    def loop() -> np.ndarray[Any, Any]:
        return np.stack([sample(row) for row in range(rows.start, rows.stop)])

    np.testing.assert_array_equal(data[rows], loop())
    comparison.run(
        benchmark,
        f"{READ} samples of {COLUMNS} uint16 in order to a new int64 array",
        lambda: data.gather(rows),
        {"slices of numpy.memmap, joined and stacked": loop},
        cache="page cache warm",
        work=Work(bytes=READ * COLUMNS * (2 + 8)),
    )
