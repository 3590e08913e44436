"""What a sweep would take, known before it is begun."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pythia_fast
from pythia_fast.errors import ArgumentError, HubError, MissingCheckpointError
from pythia_fast.metrics import Perplexity
from pythia_fast.runs import rates
from pythia_fast.runs.work import Data, sweep_flops
from pythia_fast.tokens import TokenDataset

STEPS = [0, 1, 2, 4, 8, 16]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are measured, but not for long."""
    for name, value in (("MEASURE_S", 0.001), ("NETWORK_S", 0.02), ("SCRATCH_BYTES", 2**16)):
        monkeypatch.setattr(rates, name, value)


def size_of(folder: Path, step: int) -> int:
    (file,) = [path for path in (folder / f"step{step}").iterdir() if "model" in path.name]
    return file.stat().st_size


def test_of_the_hub(remote: Any, tiny_ids: np.ndarray) -> None:
    shutil.rmtree(remote.folder / "step8")
    shutil.copytree(remote.folder / "step2", remote.folder / "step8")
    remote.broken[4] = MissingCheckpointError("no branch step4")
    before = sorted(path.name for path in remote.folder.rglob("*"))
    forecast = pythia_fast.plan("14m", tokens=tiny_ids, network="2MB/s", dtype="float32")
    assert remote.opened == remote.ahead_of == []
    assert sorted(path.name for path in remote.folder.rglob("*")) == before
    by_step = {step.step: step for step in forecast.steps}
    assert list(by_step) == STEPS
    assert [step.step for step in forecast.missing] == [4]
    assert by_step[4].missing == "no branch step4"
    assert by_step[8].duplicate_of == 2
    assert by_step[8].download_bytes == 0
    assert {by_step[step].format for step in (0, 2)} == {"safetensors"}
    assert {by_step[step].format for step in (1, 16)} == {"torch"}
    assert "issues/83" in by_step[1].anomalies[0]
    assert by_step[2].commit == remote.branch(2)
    sizes = [size_of(remote.folder, step) for step in (0, 1, 2, 16)]
    assert forecast.download_bytes == forecast.disk_bytes == forecast.load_bytes == sum(sizes)
    assert forecast.largest_bytes == max(sizes)
    data, steps = Data(TokenDataset(tiny_ids)), (0, 1, 2, 16)
    assert forecast.flops == sweep_flops(remote.spec, steps, (Perplexity(),), data, 512)
    assert forecast.rates.network_bytes_per_s == 2e6
    assert not forecast.rates.network_measured
    assert forecast.stage_s["download"] == pytest.approx(sum(sizes) / 2e6)
    assert forecast.stage_s["compute"] == forecast.flops / forecast.rates.compute_flop_per_s
    assert forecast.stage_s[forecast.bottleneck] == max(forecast.stage_s.values())
    assert forecast.total_s >= forecast.stage_s[forecast.bottleneck]
    assert json.loads(json.dumps(forecast.to_dict()))["steps"][0]["step"] == 0


def test_each_step_is_loaded_where_rows_differ(remote: Any, tiny_ids: np.ndarray) -> None:
    shutil.rmtree(remote.folder / "step8")
    shutil.copytree(remote.folder / "step2", remote.folder / "step8")
    forecast = pythia_fast.plan("14m", [2, 8], tokens=tiny_ids, sequences="seen", network=1)
    sizes = [size_of(remote.folder, step) for step in (2, 8)]
    assert (forecast.download_bytes, forecast.load_bytes) == (sizes[0], sum(sizes))


def test_a_folder_has_nothing_to_come(tiny_series: Path) -> None:
    forecast = pythia_fast.plan(tiny_series, sequences=3)
    assert forecast.download_bytes == forecast.disk_bytes == 0
    assert forecast.rates.network_bytes_per_s is None
    assert forecast.load_bytes == sum(size_of(tiny_series, step) for step in STEPS)
    assert all(step.here_bytes == step.nbytes for step in forecast.steps)
    assert forecast.stage_s["download"] == 0
    assert min(forecast.stage_s["read"], forecast.stage_s["verify"]) > 0


class Growing:
    """A download that goes on."""

    def __init__(self, *received: int) -> None:
        self._received, self.asked = received, 0

    @property
    def received_bytes(self) -> int:
        self.asked += 1
        return self._received[min(self.asked, len(self._received)) - 1]


def downloads(remote: Any, monkeypatch: pytest.MonkeyPatch, *received: int) -> list[tuple]:
    asked = []

    @contextmanager
    def ahead(steps: tuple[int, ...]) -> Iterator[Growing]:
        asked.append(tuple(steps))
        yield Growing(*received)
        asked.append(("left",))

    monkeypatch.setattr(remote, "ahead", ahead)
    return asked


def test_the_network_is_measured_by_the_first_piece(
    remote: Any, tiny_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = downloads(remote, monkeypatch, 0, 0, 10, 10, 50_000, 10**9)
    forecast = pythia_fast.plan("14m", [0, 4], tokens=tiny_ids)
    assert asked == [(0, 4), ("left",)]
    assert forecast.rates.network_measured
    rate = forecast.rates.network_bytes_per_s
    assert rate is not None
    assert rate > 0
    assert forecast.stage_s["download"] == forecast.download_bytes / rate


def test_a_network_that_sends_nothing_is_an_error(
    remote: Any, tiny_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads(remote, monkeypatch, 0)
    monkeypatch.setattr(rates, "FIRST_BYTE_S", 0.01)
    with pytest.raises(HubError, match="has sent nothing"):
        pythia_fast.plan("14m", [0], tokens=tiny_ids)


def test_a_budget_below_one_checkpoint_is_told(remote: Any, tiny_ids: np.ndarray) -> None:
    largest = max(size_of(remote.folder, step) for step in STEPS)
    with pytest.raises(ArgumentError, match=f"takes {largest:,}"):
        pythia_fast.plan("14m", tokens=tiny_ids, disk_budget=largest - 1, network=1)
    forecast = pythia_fast.plan("14m", tokens=tiny_ids, disk_budget=largest, network=1)
    assert forecast.disk_bytes == largest < forecast.download_bytes


@pytest.mark.parametrize(
    "change",
    [
        {"network": "fast"},
        {"network": 0},
        {"disk_budget": "much"},
        {"sequences": 0},
        {"metrics": "bleu"},
        {"dtype": "int8"},
        {"steps": []},
    ],
    ids=str,
)
def test_bad_arguments_are_told(remote: Any, change: dict) -> None:
    with pytest.raises(ArgumentError):
        pythia_fast.plan("14m", **change)


def test_of_nothing_but_missing_steps(remote: Any) -> None:
    remote.broken = {step: MissingCheckpointError("gone") for step in STEPS}
    forecast = pythia_fast.plan("14m", network=1)
    assert len(forecast.missing) == 6
    assert forecast.flops == forecast.load_bytes == forecast.download_bytes == 0


def test_the_scratch_file_goes_away(remote: Any, tmp_path: Path) -> None:
    assert rates.read_bytes_per_s(remote, 0) > 0
    assert not list(tmp_path.rglob("*.partial"))
    assert rates.existing_parent(tmp_path / "not/there/yet") == tmp_path
