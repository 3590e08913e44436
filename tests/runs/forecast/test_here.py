"""What a sweep would take, known before it is begun."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pythia_fast
from pythia_fast.errors import ArgumentError, HubError, MissingCheckpointError, WriteError
from pythia_fast.metrics import Perplexity
from pythia_fast.runs.forecast import rates
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
    compute_s = forecast.flops / forecast.rates.compute_flop_per_s
    assert forecast.stage_s["compute"] == pytest.approx(compute_s)
    assert forecast.stage_s[forecast.bottleneck] == max(forecast.stage_s.values())
    assert repr(forecast).startswith("<Forecast 14m in float32 on cpu: 6 steps (1 missing), ")
    assert len(repr(forecast)) < 200
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

    failed: Exception | None = None
    waits_for_room = False

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


def test_the_scratch_file_has_no_name(
    remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nothing is left of it by a process that is killed."""
    read_rate, seen = rates._read_rate, []

    def look(file: Any) -> float:
        seen.append(sorted(tmp_path.iterdir()))
        return read_rate(file)

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(rates, "_read_rate", look)
    rate = rates.read_bytes_per_s(remote, 0)
    assert rate is not None
    assert rate > 0
    assert seen == [before]


def test_a_place_that_cannot_be_written_has_no_rate(
    remote: Any, tiny_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "not here")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    forecast = pythia_fast.plan("14m", [0], tokens=tiny_ids, network=1)
    assert forecast.rates.read_bytes_per_s is None
    assert forecast.stage_s["read"] == 0


RATES = rates.Rates(
    compute_flop_per_s=1e13,
    sha256_bytes_per_s=1e9,
    read_bytes_per_s=5e8,
    network_bytes_per_s=1e6,
    network_measured=False,
)


@pytest.mark.parametrize("steps", [[2], [0, 16]], ids=str)
@pytest.mark.parametrize("slow", ["download", "verify", "read", "compute"])
def test_the_stages_overlap_but_for_the_first_and_the_last_step(
    remote: Any, tiny_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch, slow: str, steps: list[int]
) -> None:
    known = {
        "download": RATES,
        "verify": replace(RATES, sha256_bytes_per_s=1e3),
        "read": replace(RATES, read_bytes_per_s=1e3),
        "compute": replace(RATES, compute_flop_per_s=1e3),
    }[slow]
    monkeypatch.setattr("pythia_fast.runs.forecast.here._rates", lambda *_: known)
    forecast = pythia_fast.plan("14m", steps, tokens=tiny_ids, network="1MB")
    data = Data(TokenDataset(tiny_ids))
    compute_s = (
        sweep_flops(remote.spec, [steps[0]], (Perplexity(),), data, 512) / known.compute_flop_per_s
    )
    first, last = size_of(remote.folder, steps[0]), size_of(remote.folder, steps[-1])
    both = first + last if len(steps) == 2 else first
    read = known.read_bytes_per_s
    assert read is not None
    assert forecast.bottleneck == slow
    expected = {
        "download": both / 1e6 + last / read + compute_s,
        "verify": both / known.sha256_bytes_per_s + last / read + compute_s,
        "read": first / 1e6 + both / read + compute_s,
        "compute": first / 1e6 + first / read + len(steps) * compute_s,
    }
    assert forecast.total_s == pytest.approx(expected[slow])
    arrive_s = max(first / 1e6, first / known.sha256_bytes_per_s)
    assert forecast.first_s == pytest.approx(arrive_s + first / read)


class Clock:
    """A time that only goes on while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(rates.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(rates.time, "sleep", self.sleep)

    def sleep(self, wait_s: float) -> None:
        self.now_s += wait_s


class Steady:
    """Brings `bytes_per_s`, `whole` in all, from `latency_s` on; then fails, if so."""

    waits_for_room = False

    def __init__(
        self, clock: Clock, whole: int, latency_s: float, failure: Exception | None = None
    ) -> None:
        self._clock, self._whole, self._begin_s = clock, whole, clock.now_s + latency_s
        self._failure = failure

    @property
    def received_bytes(self) -> int:
        return min(self._whole, max(0, int((self._clock.now_s - self._begin_s) * 1e6)))

    @property
    def failed(self) -> Exception | None:
        return self._failure if self.received_bytes == self._whole else None


def measured(remote: Any, monkeypatch: pytest.MonkeyPatch, ahead: object) -> float:
    monkeypatch.setattr(remote, "ahead", lambda _: nullcontext(ahead))
    return rates.network_bytes_per_s(remote, [0], 10**9)


@pytest.mark.parametrize("whole", [10**5, 10**6, 10**8])
def test_only_the_time_in_which_something_comes_counts(
    remote: Any, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    """A look-ahead may have fetched all that it does, and masks are not fetched at all."""
    monkeypatch.setattr(rates, "NETWORK_S", 3.0)
    clock = Clock(monkeypatch)
    rate = measured(remote, monkeypatch, Steady(clock, whole, latency_s=2.0))
    assert rate == pytest.approx(1e6, rel=0.01)


@pytest.mark.parametrize("whole", [0, 700])
def test_why_nothing_comes_is_told(
    remote: Any, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    """Also where a small file has come before the weights are refused."""
    ahead = Steady(Clock(monkeypatch), whole, 1.0, WriteError(28, "the disk is full"))
    with pytest.raises(WriteError, match="the disk is full"):
        measured(remote, monkeypatch, ahead)


def test_waiting_for_room_is_told(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Growing(0)
    ahead.waits_for_room = True
    Clock(monkeypatch)
    with pytest.raises(HubError, match="has waited 120 s for room"):
        measured(remote, monkeypatch, ahead)


def test_one_malformed_step_of_a_folder_is_one_step_with_an_error(
    tiny_series: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_series, tmp_path / "tiny"))
    for step in (0, 4):
        (file,) = [path for path in (folder / f"step{step}").iterdir() if "model" in path.name]
        file.write_bytes(b"no weights" * 1000)
    forecast = pythia_fast.plan(folder, sequences=3)
    assert [step.step for step in forecast.missing] == [0, 4]
    assert forecast.load_bytes == sum(size_of(folder, step) for step in (1, 2, 8, 16))


def test_a_budget_need_not_hold_what_takes_none_of_it(
    remote: Any, tiny_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in another cache, and those of steps that cannot be had."""
    survey, largest = remote.survey, max(size_of(remote.folder, step) for step in STEPS)

    def elsewhere(steps: Any) -> Any:
        return {
            step: replace(
                revision,
                elsewhere_bytes=revision.nbytes - 100 if step != 4 else 0,
                error=MissingCheckpointError("gone") if step == 4 else None,
            )
            for step, revision in survey(steps).items()
        }

    monkeypatch.setattr(remote, "survey", elsewhere)
    forecast = pythia_fast.plan("14m", tokens=tiny_ids, disk_budget=1000, network=1)
    assert forecast.largest_bytes <= largest


def test_files_are_hashed_side_by_side(
    remote: Any, tiny_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "sha256_bytes_per_s", lambda: 100.0)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    for steps, expected in (([0], 100.0), ([0, 1], 200.0), (STEPS, 300.0)):
        forecast = pythia_fast.plan("14m", steps, tokens=tiny_ids, network=1)
        assert forecast.rates.sha256_bytes_per_s == expected
