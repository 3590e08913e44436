"""A sweep on a Ray cluster of several nodes gives what the local engine gives, to the last bit."""

import dataclasses
import functools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray_nodes import (
    IDS,
    STEPS,
    Logged,
    Nodes,
    calls,
    check_calls,
    check_same,
    kill,
    leftovers,
    meanwhile,
    wait,
)

import pythia_fast
from pythia_fast.errors import ArgumentError, WorkerError
from pythia_fast.runs import sweeping
from pythia_fast.runs.cluster import Cluster, reaching
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.workers import Workers
from pythia_fast.series import open_series
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import STEPS as ALL
from pythia_fast.suite import spec
from pythia_fast.testing import HubServer, branches, tiny, tiny_suite

TINY = tiny(layers=1, width=32, heads=2, vocab_rows=96)
FEW_IDS = np.random.default_rng(1).integers(0, 96, (4, 33), dtype=np.uint16)
COPIES = {1: 0, 143000: 142000}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], dict[str, Any]]]:
    """Three series of 154 steps, one on a Hub: `models(cache)` opens them anew."""
    root = tmp_path_factory.mktemp("models")
    there = tiny_suite(root / "there", steps=ALL, architecture=TINY, copies=COPIES)
    here = tiny_suite(root / "here", steps=ALL, architecture=TINY, seed=1)
    neox = tiny_suite(root / "neox", steps=ALL, architecture=TINY, seed=2, layout="gpt-neox layers")
    described = dataclasses.replace(spec("14m"), architecture=TINY, steps=ALL)
    with HubServer({described.repo: branches(there)}) as hub:

        def opened(cache: Path) -> dict[str, Any]:
            remote = HubSeries(described, cache, endpoint=hub.url)
            return {"14m": remote, str(here): open_series(here), str(neox): open_series(neox)}

        yield opened


@pytest.mark.timeout(600)
def test_every_step_of_three_models_by_four_workers(
    models: Callable[[Path], dict[str, Any]],
    nodes: Nodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """154 steps each: of the Hub, where two have the weights of others, `stepN/` and GPT-NeoX's."""

    def swept(engine: str, workers: Workers | None) -> pythia_fast.SweepResults:
        series = models(tmp_path / f"cache of {engine}")
        with monkeypatch.context() as patch:
            patch.setattr(sweeping, "open_series", lambda name, **_: series[name])
            return pythia_fast.sweep(
                list(series),
                tokens=FEW_IDS,
                metrics=("perplexity", Logged(tmp_path / engine)),
                out=tmp_path / f"out of {engine}",
                dtype="float32",
                progress=False,
                engine=engine,
                workers=workers,
            )

    expected = swept("local", None)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    results = swept("ray", Workers(count=4, num_cpus=0.5))
    assert list(results) == list(expected) == ["14m", "here", "neox"]
    for name, result in results.items():
        check_same(result, expected[name])
        assert not result.failures
        assert result.table.num_rows == 2 * len(ALL)
    made = calls(tmp_path / "ray")
    assert sorted(step for _, step in made) == sorted(step for _, step in calls(tmp_path / "local"))
    assert len(made) == 3 * len(ALL) - len(COPIES)
    assert len({pid for pid, _ in made}) == 4
    assert os.getpid() not in {pid for pid, _ in made}
    assert leftovers(tmp_path / "out of ray") == []


@pytest.mark.timeout(600)
def test_workers_that_do_not_see_the_run_folder_send_their_parts(
    nodes: Nodes,
    series: Path,
    alone: pythia_fast.SweepResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A path that is another place in every process; one of the workers is killed as well.

    The process is connected already, and stays so.
    """
    import ray

    kept: list[str] = []
    keep = RunFolder.keep

    def spy(folder: RunFolder, name: str, data: bytes) -> Path:
        kept.append(name)
        return keep(folder, name, data)

    monkeypatch.setattr(RunFolder, "keep", spy)
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log"
    killed: list[int] = []

    def murder() -> None:
        wait(lambda: len(calls(log)) >= 4)
        killed.append(calls(log)[-1][0])
        kill(killed[0])

    ray.init(address=nodes.address, log_to_driver=False)
    try:
        with meanwhile(murder):
            result = pythia_fast.sweep(
                series,
                tokens=IDS,
                metrics=("perplexity", Logged(log, pause_s=0.2)),
                out=Path("/proc/self/cwd/run"),
                dtype="float32",
                progress=False,
                engine="ray",
                workers=Workers(count=2, num_cpus=1),
            )
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    check_same(result, alone)
    check_calls(log, STEPS, killed)
    of_parts = {name for name in kept if name.startswith("parts/")}
    assert len(of_parts) == 2 * len(STEPS)  # the driver has written them all
    assert leftovers(tmp_path / "run") == []


@pytest.mark.timeout(300)
def test_without_a_cluster_one_is_started_and_ended(
    series: Path, alone: pythia_fast.SweepResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    home = tempfile.mkdtemp(prefix="pfr")
    monkeypatch.setenv("RAY_TMPDIR", home)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    find = functools.cache(lambda *_: set())  # other people's on this machine are not to be used
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", find)
    try:
        result = pythia_fast.sweep(
            *(series, [4, 8]),
            tokens=IDS,
            out=tmp_path / "run",
            dtype="float32",
            progress=False,
            engine="ray",
            workers=1,
        )
        assert not ray.is_initialized()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    rows = [row for row in alone.table.to_pylist() if row["step"] in (4, 8)]
    expected = [row["value"] for row in rows if row["metric"] == "perplexity"]
    assert [row["value"] for row in result.table.to_pylist()] == expected


@pytest.mark.timeout(300)
def test_what_ray_says_of_workers_is_logged_and_not_printed(
    nodes: Nodes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Standard output is the caller's."""
    import ray

    def die() -> None:
        print("a worker's own words")
        os.kill(os.getpid(), signal.SIGKILL)

    capfd.readouterr()
    with Cluster(Workers(count=1, num_cpus=1, address=nodes.address), None):
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            ray.get(ray.remote(max_retries=0)(die).remote())
        wait(lambda: "Ray (raylet): A worker died" in caplog.text)
    assert capfd.readouterr().out == ""


def test_no_cluster_where_there_should_be_one(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(reaching, "PATIENCE_S", 0.1)
    out = tmp_path / "run"
    nobody = "127.0.0.1:1"
    with pytest.raises(WorkerError, match=f"no Ray cluster answers at {nobody}"):
        pythia_fast.sweep(
            series, tokens=IDS, out=out, engine="ray", workers=Workers(address=nobody)
        )
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(WorkerError, match=f"no Ray cluster answers at {nobody}"):
        pythia_fast.sweep(series, tokens=IDS, out=out, engine="ray")
    assert not out.exists()


def test_without_ray_the_error_names_the_extra(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "run"
    with pytest.raises(ArgumentError, match=r"ray is not installed.*pythia-fast\[ray\]"):
        pythia_fast.sweep(series, tokens=IDS, out=out, engine="ray")
    assert not out.exists()
