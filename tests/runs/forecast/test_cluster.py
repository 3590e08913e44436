"""What a sweep would take on a cluster: facts of the suite, sums, and a simulated curve."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pythia_fast
from pythia_fast.errors import ArgumentError, UnknownModelError, UnknownStepError
from pythia_fast.metrics import Perplexity
from pythia_fast.quantities import duration
from pythia_fast.runs.forecast import rates
from pythia_fast.runs.forecast.cluster import forecast
from pythia_fast.runs.forecast.cluster.forecast import CURVE
from pythia_fast.runs.forecast.cluster.rates import GPU_FLOP_PER_S
from pythia_fast.runs.forecast.cluster.work import files_on_paper
from pythia_fast.runs.work import Data, forward_flops, sweep_flops
from pythia_fast.suite import SUITE
from pythia_fast.tokens import TokenDataset

GIVEN: Mapping[str, Any] = {"compute": "400TFLOP/s", "read": "5GB/s", "verify": "2GB/s"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are measured, but not for long."""
    for name, value in (("MEASURE_S", 0.001), ("SCRATCH_BYTES", 2**16)):
        monkeypatch.setattr(rates, name, value)


@pytest.fixture
def _no_overheads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SURVEY_STEP", "START", "MODEL", "ASK", "STEP", "PUBLISH", "MESSAGE"):
        monkeypatch.setattr(forecast, f"{name}_S", 0.0)


def test_the_whole_suite() -> None:
    """Sixteen models, 154 checkpoints, 15 TB."""
    found = pythia_fast.plan_cluster(
        "all", workers=8, device="cuda", network="1GB/s", node_network="100GB/s", **GIVEN
    )
    assert tuple(model.name for model in found.models) == SUITE
    assert len(SUITE) == 16
    assert {(model.steps, model.loads) for model in found.models} == {(154, 153)}  # step 1 is 0
    parameters = [pythia_fast.spec(name).parameters for name in SUITE]
    assert found.download_bytes == sum(2 * 153 * each for each in parameters)
    assert found.download_bytes == pytest.approx(15.0e12, rel=0.01)
    shapes = [pythia_fast.spec(name).architecture for name in SUITE]
    assert found.flops == sum(153 * 512 * forward_flops(shape, 2048) for shape in shapes)
    assert tuple(row.workers for row in found.curve) == CURVE == tuple(2**n for n in range(11))
    assert found.asked == found.curve[3]
    assert (found.dtype, found.device, found.workers_per_node) == ("float16", "cuda", 8)
    assert [row.nodes for row in found.curve[:6]] == [1, 1, 1, 1, 2, 4]
    # One worker computes all the time; the network alone takes 15,020 s, whoever waits for it.
    alone_s = found.flops / 400e12
    assert alone_s < found.curve[0].total_s < 1.02 * alone_s
    assert found.curve[0].bottleneck == "compute"
    assert found.download_bytes / 1e9 < found.best.total_s < 1.05 * found.download_bytes / 1e9
    stops = found.stops_helping
    assert stops is not None
    assert stops.workers == 4
    assert "the network carries no more" in found.why
    for row in found.curve:
        assert row.speedup == pytest.approx(found.curve[0].total_s / row.total_s)
        assert row.efficiency == pytest.approx(row.speedup / row.workers)
        assert row.worker_hours == pytest.approx(row.workers * row.total_s / 3600)


@pytest.mark.usefixtures("_no_overheads")
def test_more_workers_than_steps_do_not_help() -> None:
    slow = {**GIVEN, "compute": "4TFLOP/s"}
    found = pythia_fast.plan_cluster("70m", "log", workers=6, network="1PB/s", **slow)
    row = found.stops_helping
    assert row is not None
    assert row.workers == 32  # there are 20 steps, and step 1 has the weights of step 0
    assert found.curve[-1].bottleneck == "idle"
    assert "too few steps" in found.why
    assert found.asked.workers == 6
    assert found.asked.speedup == pytest.approx(19 / 4, rel=0.02)  # four at most for each


@pytest.mark.usefixtures("_no_overheads")
def test_where_it_never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "CURVE", (1, 2, 4, 8))
    slow = {**GIVEN, "compute": "1TFLOP/s"}
    found = pythia_fast.plan_cluster("12b", network="1PB/s", **slow)
    assert found.curve[-1].efficiency > 0.9
    assert found.stops_helping is None
    assert found.best.workers == 8
    assert "Up to 8 workers" in found.why


def test_one_long_step_is_not_said_to_keep_all_at_work() -> None:
    """A few steps of 12b beside those of 14m: four workers compute for half of their time."""
    found = pythia_fast.plan_cluster(
        ["14m", "12b"], [1000, 2000, 3000], network="1PB/s", workers=4, **GIVEN
    )
    assert found.asked.busy["compute"] < 0.9
    assert found.asked.bottleneck != "compute"
    for row in found.curve:
        assert ("all the time" in row.why) == (row.busy.get(row.bottleneck, 0) >= 0.9)


def test_more_than_one_worker() -> None:
    found = pythia_fast.plan_cluster("14m", network="1MB/s", **GIVEN)
    assert found.stops_helping is not None
    assert found.stops_helping.workers == 1
    assert found.why == (
        "More than one worker helps little: twice as many gain less than 10%, because the network "
        "carries no more."
    )


def test_where_nothing_is_to_be_loaded() -> None:
    found = pythia_fast.plan_cluster("410m-seed2", [111_000], network=1e9, workers=2, **GIVEN)
    assert found.why == "Nothing is to be loaded."
    assert found.stops_helping is None
    assert found.best.workers == 1
    assert found.asked.total_s == 0
    assert all(sum(row.spent.values()) == 1 for row in found.curve)
    assert found.why in found._repr_html_()
    assert repr(found).startswith("<ClusterForecast ")
    assert len(repr(found)) < 250


# The weights files of the Hub, in decimal bytes; of 6.9b and 12b the sum of their shards.
@pytest.mark.parametrize(
    ("name", "shards"),
    [
        *(("14m", [53.3e6]), ("70m", [166e6]), ("160m", [375e6]), ("410m", [911e6])),
        *(("1b", [2.09e9]), ("1.4b", [2.93e9]), ("2.8b", [5.68e9])),
        *(("6.9b", [9.91e9, 3.94e9]), ("12b", [9.81e9, 9.93e9, 4.11e9])),
    ],
)
def test_files_take_what_they_take_on_the_hub(name: str, shards: list[float]) -> None:
    nbytes, count = files_on_paper(pythia_fast.spec(name).architecture)
    assert nbytes == pytest.approx(sum(shards), rel=0.005)
    assert count == len(shards)


def test_the_training_data_is_told_and_not_counted() -> None:
    """143,000 steps of 1,024 rows of 2,049 tokens, two bytes each: 600 GB."""
    seen = pythia_fast.plan_cluster(
        ["70m", "160m"], [0, 1000, 143_000], sequences="seen", network="1GB/s", **GIVEN
    )
    assert seen.data_bytes == 143_000 * 1024 * 2049 * 2
    assert seen.asked.download_bytes == seen.download_bytes < 2e9
    few = pythia_fast.plan_cluster("70m", "log", sequences=7, network="1GB/s", **GIVEN)
    assert few.data_bytes == 7 * 2049 * 2
    own = pythia_fast.plan_cluster(
        "70m", "log", tokens=np.zeros((9, 5), np.uint16), network="1GB/s", **GIVEN
    )
    assert own.data_bytes == 0


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GIVEN.items() if key != name}


def test_a_folder_is_looked_into(tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path) -> None:
    found = pythia_fast.plan_cluster(
        tiny_series, [0, 2, 16], tokens=tiny_ids, sequences=7, dtype="float32", device="cpu"
    )
    (model,) = found.models
    sizes = [path.stat().st_size for step in (0, 2, 16) for path in weights_of(tiny_series, step)]
    assert (model.download_bytes, model.load_bytes) == (0, sum(sizes))
    data = Data(TokenDataset(tiny_ids))
    spec = pythia_fast.load(tiny_series).spec
    assert model.flops == sweep_flops(spec, (0, 2, 16), (Perplexity(),), data, 7)
    assert found.compute_source == found.rates["verify"].source == "measured here"
    assert found.rates["network"].value is None
    assert found.asked == found.curve[0]
    assert found.workers_per_node == 1
    assert found.asked.download_bytes == found.asked.disk_bytes == 0


def weights_of(folder: Path, step: int) -> list[Path]:
    return [path for path in (folder / f"step{step}").iterdir() if "model" in path.name]


def test_a_folder_beside_the_suite(tiny_series: Path) -> None:
    found = pythia_fast.plan_cluster(["14m", tiny_series], "0,1,2", network=1e9, **GIVEN)
    first, second = found.models
    assert (first.steps, first.loads, second.loads) == (3, 2, 3)
    assert first.source == "EleutherAI/pythia-14m"
    assert second.download_bytes == 0


def test_what_is_missing_is_told() -> None:
    found = pythia_fast.plan_cluster("410m-seed2", [110_000, 111_000], network=1e9, **GIVEN)
    assert found.missing == {"410m-seed2": (111_000,)}
    assert found.models[0].loads == 1


def test_seen_sequences_cost_more_in_later_steps() -> None:
    found = pythia_fast.plan_cluster(
        "70m", [0, 1, 1000, 2000], sequences="seen", network=1e9, **GIVEN
    )
    (model,) = found.models
    each = forward_flops(pythia_fast.spec("70m").architecture, 2048)
    assert model.loads == 4  # step 1 looks at rows of its own, with the files of step 0
    assert model.download_bytes == 3 * 2 * pythia_fast.spec("70m").parameters
    assert model.flops == (0 + 1 + 1000 + 2000) * 1024 * each


def test_a_gpu_that_is_not_here_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = pythia_fast.plan_cluster(
        "70m", "last", device="cuda", network=1e9, **_without("compute")
    )
    assert found.compute_source == "assumed"
    assert found.models[0].compute_flop_per_s == GPU_FLOP_PER_S == pytest.approx(395.6e12)


def test_machines_that_are_not_here_have_neither_its_cores_nor_its_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(rates, "sha256_bytes_per_s", lambda: 1.3e9)
    monkeypatch.setattr(rates, "read_bytes_per_s", lambda *_: pytest.fail("the disk is elsewhere"))
    found = pythia_fast.plan_cluster("70m", "last", device="cuda", network=1e9)
    told = found.to_dict()["rates"]
    assert told["verify"] == {"of": "a file", "value": 1.3e9, "source": "assumed"}
    assert told["node_verify"]["value"] is told["read"]["value"] is None
    given = pythia_fast.plan_cluster("70m", "last", device="cuda", network=1e9, read="2GB/s")
    assert given.to_dict()["rates"]["read"] == {"of": "a node", "value": 2e9, "source": "given"}


def test_machines_like_this_one_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "sha256_bytes_per_s", lambda: 1e9)
    monkeypatch.setattr(rates, "read_bytes_per_s", lambda *_: 3e9)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    found = pythia_fast.plan_cluster("70m", "last", device="cpu", network=1e9, compute="1T")
    assert {name: rate.value for name, rate in found.rates.items()} == {
        "network": 1e9,
        "node_network": None,
        "verify": 1e9,
        "node_verify": 6e9,
        "read": 3e9,
    }
    assert found.rates["node_verify"].source == "measured here"


@pytest.mark.parametrize(("workers_per_node", "each"), [(1, 6), (2, 3), (4, 1), (9, 1)])
def test_a_worker_has_its_part_of_the_threads(
    monkeypatch: pytest.MonkeyPatch, workers_per_node: int, each: int
) -> None:
    known = {"now": 6}
    monkeypatch.setattr("torch.get_num_threads", lambda: known["now"])
    monkeypatch.setattr("torch.set_num_threads", lambda count: known.update(now=count))
    during = []

    def measured(*_: object) -> float:
        during.append(known["now"])
        if len(during) > 1:
            raise ArgumentError("of the second it cannot be measured")
        return 1e12

    monkeypatch.setattr(rates, "compute_flop_per_s", measured)
    given = {**_without("compute"), "network": 1e9, "workers_per_node": workers_per_node}
    pythia_fast.plan_cluster("70m", "last", device="cpu", **given)
    assert (during, known["now"]) == ([each], 6)
    with pytest.raises(ArgumentError, match="of the second"):
        pythia_fast.plan_cluster("70m", "last", device="cpu", **given)
    assert known["now"] == 6


def test_a_disk_budget_is_each_node_s(monkeypatch: pytest.MonkeyPatch) -> None:
    nbytes, _ = files_on_paper(pythia_fast.spec("70m").architecture)
    free = pythia_fast.plan_cluster("70m", network="1GB/s", **GIVEN)
    tight = pythia_fast.plan_cluster("70m", network="1GB/s", disk_budget=nbytes, **GIVEN)
    assert tight.asked.disk_bytes == tight.asked.kept_bytes == nbytes < free.asked.disk_bytes
    assert free.asked.kept_bytes == 153 * nbytes
    assert tight.asked.total_s > free.asked.total_s
    # It is said before anything is measured, and of which model.
    monkeypatch.setattr(rates, "sha256_bytes_per_s", lambda: pytest.fail("it was measured"))
    monkeypatch.setattr(rates, "compute_flop_per_s", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(ArgumentError, match=f"disk budget.*checkpoint of 70m takes {nbytes:,}"):
        pythia_fast.plan_cluster(["14m", "70m"], network="1GB/s", disk_budget=nbytes - 1)


@pytest.mark.usefixtures("_no_overheads")
def test_a_disk_budget_that_costs_time_is_the_reason() -> None:
    """Room for two checkpoints of 12b, which eight workers of a node want."""
    given = {**GIVEN, "verify": "10GB/s", "workers": 8, "device": "cuda", "network": "10GB/s"}
    free = pythia_fast.plan_cluster("12b", **given)
    tight = pythia_fast.plan_cluster("12b", disk_budget="48GB", **given)
    assert tight.asked.total_s > 1.5 * free.asked.total_s
    assert tight.asked.bottleneck == "disk"
    assert tight.asked.spent["disk"] > tight.asked.spent["download"]
    assert free.asked.spent["disk"] == 0
    assert tight.asked.why == "the disk budget has no room for more"


@pytest.mark.parametrize("place", [2, 10])
def test_workers_that_make_it_slower_are_told(place: int) -> None:
    found = pythia_fast.plan_cluster("70m", "log", network="1PB/s", **GIVEN)
    assert "take longer" not in found.why
    rows = list(found.curve)
    before = min(rows[:place], key=lambda row: row.total_s)
    rows[place] = slower = replace(
        rows[place], total_s=2 * before.total_s, bottleneck="disk", busy={}
    )
    assert replace(found, curve=tuple(rows)).why.endswith(
        f". {slower.workers} workers take longer than {before.workers}: "
        f"{duration(slower.total_s)}, not {duration(before.total_s)}, because the disk budget has "
        "no room for more."
    )


def test_as_json_and_in_a_notebook() -> None:
    found = pythia_fast.plan_cluster("70m", "log", workers=3, network="10MB/s", **GIVEN)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["asked"]["workers"] == 3
    assert told["why"] == found.why
    assert told["rates"]["network"] == {"of": "all", "value": 1e7, "source": "given"}
    assert math.isclose(sum(told["asked"]["spent"].values()), 1)
    assert told["overheads"].pop("step_s")["source"] == "measured before"
    assert told["overheads"].keys() == {
        f"{name}_s" for name in ("begin", "start", "model", "ask", "publish", "message")
    }
    assert {each["source"] for each in told["overheads"].values()} == {"assumed"}
    html = found._repr_html_()
    assert html.count("<tr>") >= len(CURVE)
    assert found.why in html


def test_bad_arguments(tiny_series: Path) -> None:
    def planned(models: Any, steps: Any = "log", **changes: Any) -> None:
        pythia_fast.plan_cluster(models, steps, **{**GIVEN, "network": 1e9, **changes})

    with pytest.raises(ArgumentError, match="--network"):
        planned("70m", network=None)
    for name in ("workers", "workers_per_node"):
        for value in (0, -1, 1.5, True):
            with pytest.raises(ArgumentError, match=name):
                planned("70m", **{name: value})
        with pytest.raises(ArgumentError, match="10,000 or less, not 10,001"):
            planned("70m", **{name: 10_001})
    with pytest.raises(ArgumentError, match="70m more than once"):
        planned(["70m", "pythia-70m"])
    with pytest.raises(ArgumentError, match="none was given"):
        planned([])
    with pytest.raises(UnknownModelError, match="70m"):
        planned("71m")
    with pytest.raises(UnknownStepError):
        planned("70m", [3])
    with pytest.raises(ArgumentError, match="dtype"):
        planned("70m", dtype="float8")
    with pytest.raises(ArgumentError, match="nowhere"):
        planned("70m", device="nowhere")
    with pytest.raises(ArgumentError, match="no device 'cuda:first'"):
        planned("70m", device="cuda:first")
    with pytest.raises(ArgumentError, match="bits"):
        planned("70m", network="10Gb/s")
    with pytest.raises(ArgumentError, match="TFLOP"):
        planned("70m", compute="fast")
