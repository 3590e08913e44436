"""Sweeps over a series that is downloaded from a Hub on this machine."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

import pythia_fast
from pythia_fast.errors import (
    ArgumentError,
    HubError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
)
from pythia_fast.hub import download
from pythia_fast.runs import sweeping
from pythia_fast.runs.forecast import rates
from pythia_fast.series import LocalSeries, listed
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import Architecture
from pythia_fast.testing import HubServer, make_series

Sweep = Callable[..., pythia_fast.SweepResult]
Interrupted = Callable[[Callable[[], bool]], AbstractContextManager[None]]
REPO = "EleutherAI/pythia-14m"
STEPS = (0, 1, 2, 4, 8)


@pytest.fixture
def folder(tiny: Architecture, tmp_path: Path) -> Path:
    """Checkpoints of which the second has the weights of the first, and one is in shards."""
    folder = make_series(tmp_path / "published", tiny, (0, 2, 4))
    make_series(folder, tiny, (8,), shard_bytes=100_000)
    shutil.copytree(folder / "step0", folder / "step1")
    return folder


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    branches = {f"step{step}": folder / f"step{step}" for step in STEPS}
    with HubServer({REPO: branches}, redirect=True) as hub:
        yield hub


@pytest.fixture
def hub_sweep(
    hub: HubServer,
    tiny: Architecture,
    small_sweep: Sweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Sweep:
    """`small_sweep` of the tiny series that `hub` has, from one store, with a new object each."""
    spec = replace(pythia_fast.spec("14m"), architecture=tiny, steps=(*STEPS, 16))

    def open_series(
        model: str | Path, *, disk_budget: int | None = None, **_: object
    ) -> HubSeries | LocalSeries:
        if isinstance(model, Path):
            return LocalSeries(model)
        return HubSeries(spec, tmp_path / "hub", endpoint=hub.url, disk_budget=disk_budget)

    for module in ("sweeping", "forecast.here"):
        monkeypatch.setattr(f"pythia_fast.runs.{module}.open_series", open_series)

    def run(**changes: object) -> pythia_fast.SweepResult:
        return small_sweep(**({"model": "14m", "steps": list(STEPS)} | changes))

    return run


def weights_bytes(folder: Path, step: int) -> int:
    files = (folder / f"step{step}").iterdir()
    return sum(f.stat().st_size for f in files if f.suffix in (".bin", ".safetensors"))


def downloads(hub: HubServer) -> list[str]:
    weights = (".bin", ".safetensors")
    return sorted({r.path for r in hub.requests if r.method == "GET" and r.path.endswith(weights)})


def test_the_values_are_those_of_the_files(
    hub_sweep: Sweep, small_sweep: Sweep, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    result = hub_sweep()
    local = small_sweep(model=folder, out=tmp_path / "local")
    for column in ("step", "value", "loss", "weights_sha256", "duplicate_of", "status"):
        assert result.table[column].to_pylist() == local.table[column].to_pylist()
    assert all(len(commit) == 40 for commit in result.table["commit"].to_pylist())
    assert not [path for path in downloads(hub) if "/step1/" in path]
    times = {row["step"]: row for row in result.times.to_pylist()}
    for step in (0, 2, 4, 8):
        assert 0 < times[step]["received_bytes"] <= weights_bytes(folder, step)
    assert times[1]["received_bytes"] == 0
    assert set(result.remarks) == {0, 1}
    before = len(hub.requests)
    assert hub_sweep().table.equals(result.table)
    assert len(downloads(hub)) == len(set(downloads(hub)))
    assert not [r for r in hub.requests[before:] if "/resolve/" in r.path]


def test_a_budget_of_one_checkpoint(
    hub_sweep: Sweep, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    budget = max(weights_bytes(folder, step) for step in STEPS) + 8192 * 4
    whole = hub_sweep(out=tmp_path / "whole")
    shutil.rmtree(tmp_path / "hub")
    result = hub_sweep(disk_budget=budget)
    assert result.table.equals(whole.table)
    blobs = [path for path in (tmp_path / "hub").rglob("blobs/*") if path.stat().st_size > 10_000]
    assert sum(path.stat().st_blocks * 512 for path in blobs) <= budget


def test_a_budget_that_is_too_small_is_told_before_any_byte(
    hub_sweep: Sweep, hub: HubServer
) -> None:
    with pytest.raises(ArgumentError, match="budget"):
        hub_sweep(disk_budget=1000)
    assert downloads(hub) == []


def test_a_missing_branch_and_missing_files(
    hub_sweep: Sweep, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(folder / "step2", tmp_path / "bare"))
    (bare / "model.safetensors").unlink(missing_ok=True)
    (bare / "pytorch_model.bin").unlink(missing_ok=True)
    hub.publish(REPO, "step2", bare)
    steps = [*STEPS, 16]
    with pytest.raises(SweepError, match=r"2 of 6 steps cannot be had: step 2: .*step 16: "):
        hub_sweep(steps=steps)
    assert downloads(hub) == []
    result = hub_sweep(steps=steps, on_error="skip")
    assert result.table["step"].to_pylist() == [0, 1, 4, 8]
    assert [failure.step for failure in result.failures] == [2, 16]


def test_a_branch_that_moves(
    hub_sweep: Sweep, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    first = hub_sweep(steps=[0, 2])
    then = dict(
        zip(first.table["step"].to_pylist(), first.table["commit"].to_pylist(), strict=True)
    )
    noted = Path(shutil.copytree(folder / "step2", tmp_path / "noted"))
    (noted / "README.md").write_text("a note")
    hub.publish(REPO, "step2", noted)
    (first.path / "parts/step=2/perplexity-00000.parquet").unlink()
    rows = hub_sweep(steps=[0, 2]).table.to_pylist()
    assert {row["step"]: row["commit"] for row in rows} == then
    hub.publish(REPO, "step2", folder / "step4")
    before = len(hub.requests)
    with pytest.raises(RunMismatchError, match="weights of step 2 have changed on the Hub"):
        hub_sweep(steps=[0, 2])
    assert not [r for r in hub.requests[before:] if "/resolve/" in r.path]
    (first.path / "commits/step=2.json").unlink()
    shutil.rmtree(first.path / "parts/step=2")
    rows = hub_sweep(steps=[0, 2, 4]).table.to_pylist()
    assert rows[1]["weights_sha256"] == rows[2]["weights_sha256"]


def test_a_download_that_never_ends_does_not_hold_up_an_interrupt(
    hub_sweep: Sweep, hub: HubServer, interrupted: Interrupted
) -> None:
    hub.hang("/resolve/", times=1000)
    with (
        interrupted(lambda: hub.spoiled.get("hang", 0) > 0),
        pytest.raises(SweepInterruptedError, match="0 of 5 steps"),
    ):
        hub_sweep()


def test_what_the_plan_has_fetched_is_used(
    hub_sweep: Sweep, hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MEASURE_S", 0.001), ("NETWORK_S", 0.05), ("SCRATCH_BYTES", 2**16)):
        monkeypatch.setattr(rates, name, value)
    forecast = pythia_fast.plan("14m", list(STEPS), sequences=4)
    assert forecast.rates.network_measured
    assert forecast.download_bytes == sum(weights_bytes(folder, step) for step in (0, 2, 4, 8))
    again = pythia_fast.plan("14m", list(STEPS), sequences=4, network="1GB/s")
    assert again.download_bytes < forecast.download_bytes
    received = sum(row["received_bytes"] for row in hub_sweep().times.to_pylist())
    assert received <= again.download_bytes


def test_why_the_network_cannot_be_measured_is_told(
    hub_sweep: Sweep, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(rates, "IDLE_S", 0.3)
    hub.fail("model", status=403, times=10_000)
    with pytest.raises(HubError, match="403"):
        pythia_fast.plan("14m", list(STEPS), sequences=4)


def test_a_transfer_that_ends_before_all_is_there_is_measured_to_its_end(
    hub_sweep: Sweep, hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-ahead fetches no more than its depth; the server bounds the rate from above."""
    monkeypatch.setattr(rates, "IDLE_S", 0.5)
    monkeypatch.setattr(rates, "NETWORK_S", 60.0)
    hub.slow("model", bytes_per_s=2e6, times=1000)
    series = sweeping.open_series("14m")  # type: ignore[attr-defined]
    rate = rates.network_bytes_per_s(series, [0], 10**12)
    assert 0 < rate <= download.CONNECTIONS * 2e6


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_away_does_not_hold_up_what_is_here(
    hub_sweep: Sweep, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(listed, "UNREACHED_S", 0.2)
    first = hub_sweep(steps=[0, 1, 2])
    hub.fail("", status=status, times=100_000)
    again = hub_sweep(steps=[0, 1, 2], out=tmp_path / "anew")
    columns = ["step", "value", "commit", "weights_sha256"]
    assert again.table.select(columns).equals(first.table.select(columns))
    with pytest.raises(SweepError, match=r"2 of 3 steps cannot be had: step 4: .* step 8: "):
        hub_sweep(steps=[0, 4, 8], out=tmp_path / "more")
    some = hub_sweep(steps=[0, 4, 8], out=tmp_path / "more", on_error="skip")
    assert some.table["step"].to_pylist() == [0]
    assert [failure.step for failure in some.failures] == [4, 8]


def test_a_run_goes_on_at_its_own_commits_while_the_hub_is_away(
    hub_sweep: Sweep, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    """The branch was listed at other weights since, by another run with the same store."""
    first = hub_sweep(steps=[0, 2])
    (first.path / "parts/step=2/perplexity-00000.parquet").unlink()
    hub.publish(REPO, "step2", folder / "step4")
    hub_sweep(steps=[0, 2], out=tmp_path / "other")
    hub.fail("", status=503, times=100_000)
    with pytest.raises(RunMismatchError, match="weights of step 2 have changed on the Hub"):
        hub_sweep(steps=[0, 2])
