"""Steps with the same weights are computed once, on a cluster as by the local engine."""

from pathlib import Path
from typing import Any

import pytest
from ray_nodes import IDS, Logged, Nodes, calls, check_same

import pythia_fast
from pythia_fast.core import File
from pythia_fast.runs.workers import Workers
from pythia_fast.series.convert import convert
from pythia_fast.series.gpt_neox import folder as gpt_neox
from pythia_fast.testing import tiny_suite
from pythia_fast.testing.suite import Layout

STEPS = (0, 1, 2, 4, 1000)
COPIES = {1: 0, 1000: 4}


@pytest.mark.timeout(300)
def test_twins_of_folders_are_computed_by_one_worker(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of GPT-NeoX's ranks in both layouts, which the driver does not merge, and of a copy."""
    ranks_of: dict[Layout, int] = {"gpt-neox layers": 2, "gpt-neox ranks": 4}
    folders = [
        tiny_suite(
            tmp_path / layout, steps=STEPS, layout=layout, model_parallel=ranks, copies=COPIES
        )
        for layout, ranks in ranks_of.items()
    ]
    folders.append(convert(folders[0], tmp_path / "converted").out)
    merged: list[Path] = []
    assemble = gpt_neox.assemble

    def assembling(parts: Any, source: Path) -> File:
        merged.append(source)
        return assemble(parts, source)

    monkeypatch.setattr(gpt_neox, "assemble", assembling)

    def swept(engine: Any, workers: Workers | None) -> pythia_fast.SweepResults:
        return pythia_fast.sweep(
            list(folders),
            tokens=IDS,
            metrics=("perplexity", Logged(tmp_path / f"{engine}.log")),
            out=tmp_path / f"of {engine}",
            dtype="float32",
            progress=False,
            engine=engine,
            workers=workers,
        )

    expected = swept("local", None)
    assert len(merged) == 2 * (len(STEPS) - len(COPIES))
    merged.clear()
    results = swept("ray", nodes.workers(2))
    assert merged == [], "here nothing is loaded"
    for name, result in results.items():
        check_same(result, expected[name])
        rows = result.table.to_pylist()
        assert {row["step"]: row["duplicate_of"] for row in rows} == dict.fromkeys(STEPS) | COPIES
    for engine in ("local", "ray"):
        computed = [step for _, step in calls(tmp_path / f"{engine}.log")]
        assert sorted(computed) == sorted([step for step in STEPS if step not in COPIES] * 3)
