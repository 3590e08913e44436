"""A simulated sweep, against what can be worked out by hand, step by step, or by bounds."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.dispatching.dispatch import Task
from pythia_fast.runs.forecast.simulation import (
    BUSY,
    SPENT,
    Cluster,
    Simulated,
    SimulatedStep,
    simulate,
)
from pythia_fast.runs.forecast.simulation.flows import Flows, Kind, Place, Wire
from pythia_fast.series.lookahead import WITHOUT_BUDGET


def some(count: int, download: float, load: float, compute_s: float) -> list[SimulatedStep]:
    return [
        SimulatedStep(Task(0, step, compute_s), download, load, compute_s) for step in range(count)
    ]


def simulated(steps: Sequence[SimulatedStep], **changes: float | None) -> Simulated:
    return simulate(steps, replace(Cluster(), **changes))


def test_one_worker_that_computes_longest():
    found = simulated(
        some(40, 100, 100, 5.0),
        network=100.0,
        read=200.0,
        begin_s=2.0,
        start_s=3.0,
        model_s=1.0,
        step_s=0.25,
        publish_s=0.125,
    )
    first_s = 2 + 3 + 1 + 1 + 0.5  # the first checkpoint is in its arena
    assert found.total_s == pytest.approx(first_s + 40 * 5.25 + 0.125)
    assert found.bottleneck == "compute"
    assert found.spent["compute"] == pytest.approx(200 / found.total_s)
    assert found.spent["start"] == pytest.approx((2 + 3 + 1 + 40 * 0.25) / found.total_s)
    assert found.spent["read"] == pytest.approx(0.5 / found.total_s)
    assert found.spent["download"] == pytest.approx(1 / found.total_s)
    assert found.download_bytes == found.load_bytes == 4000
    assert found.busy["download"] == pytest.approx(4000 / 100 / found.total_s)


def test_one_worker_that_waits_for_the_network():
    found = simulated(some(10, 100, 100, 1.0), network=50.0, read=1000.0)
    assert found.total_s == pytest.approx(10 * 2 + 0.1 + 1)
    assert found.bottleneck == "download"


def test_hashing_that_is_slower_than_the_network_holds_it_back():
    found = simulated(some(10, 100, 100, 1.0), network=500.0, verify=50.0)
    assert found.total_s == pytest.approx(10 * 2 + 1)
    assert found.bottleneck == "verify"
    assert found.spent["verify"] > found.spent["download"] == 0


def test_a_folder_is_hashed_after_it_was_read():
    found = simulated(some(4, 0, 100, 1.0), read=100.0, verify=50.0)
    assert found.total_s == pytest.approx(4 * (1 + 2) + 1)
    assert found.download_bytes == found.disk_bytes == 0
    assert found.bottleneck == "verify"


def test_the_workers_of_a_node_share_its_cores_to_hash_folders():
    steps = some(64, 0, 1e10, 1.0)
    cluster = {"workers": 8, "workers_per_node": 8, "verify": 1e9, "read": 1e11}
    found = simulated(steps, **cluster, node_verify=2e9)
    assert 640e9 / 2e9 <= found.total_s < 1.05 * 640e9 / 2e9
    assert found.bottleneck == "verify"
    assert 0.95 < found.busy["verify"] <= 1
    assert simulated(steps, **cluster).total_s == pytest.approx(8 * (10 + 0.8), rel=0.05)
    two = simulated(steps, **{**cluster, "workers_per_node": 4}, node_verify=2e9)
    assert two.total_s == pytest.approx(found.total_s / 2, rel=0.05)


def test_what_is_hashed_is_what_comes_and_what_folders_hold():
    steps = [
        SimulatedStep(Task(int(step > 0), step, 1.0), 1e10 if step == 0 else 0, 1e10, 1.0)
        for step in range(64)
    ]
    found = simulated(steps, verify=1e9, read=1e11, network=1e10)
    assert found.total_s == pytest.approx(64 * 10 + 64 * 0.1, rel=0.01)
    assert found.bottleneck == "verify"
    assert 0.9 < found.busy["verify"] <= 1


def test_downloads_have_their_part_of_the_cores_and_folders_the_rest():
    """Two workers of a node: what comes has no more than the wire gives it."""
    steps = [
        SimulatedStep(Task(0, 0, 2.0), 100, 100, 1.0),
        SimulatedStep(Task(1, 0, 1.0), 0, 300, 1.0),
    ]
    cluster = {"workers": 2, "workers_per_node": 2, "node_verify": 100.0}
    assert simulated(steps, **cluster, network=25.0).total_s == pytest.approx(1 + 4)
    # Half of the cores each until the download is there, which takes 2 s.
    assert simulated(steps, **cluster).total_s == pytest.approx(2 + 2 + 1)


def test_the_files_of_a_download_are_hashed_side_by_side():
    for files in (1, 2, 5):
        steps = [replace(step, files=files) for step in some(10, 100, 100, 1.0)]
        for network, rate in ((500.0, min(50.0 * files, 500.0)), (80.0, min(50.0 * files, 80.0))):
            found = simulated(steps, network=network, verify=50.0)
            assert found.total_s == pytest.approx(10 * 100 / rate + 1 if rate < 100 else 11, abs=1)
        folder = [replace(step, download_bytes=0) for step in steps]
        assert simulated(folder, verify=50.0).total_s == pytest.approx(10 * 2 + 1)


def test_files_are_larger_than_what_comes_by_what_is_made():
    steps = [replace(step, file_bytes=200) for step in some(5, 100, 100, 2.0)]
    found = simulated(steps, network=50.0, read=100.0)
    assert (found.download_bytes, found.load_bytes) == (500, 500)
    assert (found.disk_bytes, found.kept_bytes) == (600, 1000)
    hashed = simulated(steps, network=500.0, verify=20.0)
    assert hashed.total_s == pytest.approx(5 * 10 + 2)
    assert hashed.busy["verify"] == pytest.approx(50 / 52)
    assert simulated(steps, disk_budget_bytes=200).disk_bytes == 200
    with pytest.raises(ArgumentError, match="takes 200"):
        simulated(steps, disk_budget_bytes=199)


def test_with_one_arena_reading_and_computing_take_turns():
    steps = some(5, 0, 100, 2.0)
    assert simulated(steps, read=100.0).total_s == pytest.approx(1 + 5 * 2)
    assert simulated(steps, read=100.0, arenas=1).total_s == pytest.approx(5 * (1 + 2))


def test_with_room_for_one_checkpoint_everything_takes_turns():
    steps = some(5, 100, 100, 2.0)
    found = simulated(steps, network=50.0, read=100.0, disk_budget_bytes=100)
    assert found.total_s == pytest.approx(5 * (2 + 1 + 2))
    assert found.disk_bytes == 100
    assert found.spent["disk"] == pytest.approx(4 * 2 / 25)  # while it computed there was no room
    assert found.spent["download"] == pytest.approx(2 / 25)
    assert found.bottleneck == "disk"
    free = simulated(steps, network=50.0, read=100.0)
    assert free.total_s == pytest.approx(5 * 2 + 1 + 2)
    assert free.disk_bytes == 300  # computed, read and coming
    assert free.kept_bytes == 500
    assert free.spent["disk"] == 0


def test_workers_share_the_network():
    steps = some(8, 100, 100, 0.0)
    for workers in (1, 2, 8):
        found = simulated(steps, workers=workers, network=50.0)
        assert found.total_s == pytest.approx(8 * 2)
    assert simulated(steps, workers=8, step_network=50.0).total_s == pytest.approx(2)
    of_two = simulated(steps, workers=8, workers_per_node=4, node_network=50.0)
    assert of_two.total_s == pytest.approx(8)


def test_slow_downloads_come_side_by_side():
    steps = some(9, 100, 100, 0.0)
    assert simulated(steps, step_network=50.0).total_s == pytest.approx(9 * 2)
    for at_once, total_s in ((3, 3 * 2), (9, 3 * 2)):  # a worker holds three
        found = simulated(steps, step_network=50.0, at_once=at_once)
        assert found.total_s == pytest.approx(total_s)
    assert simulated(steps, step_network=50.0, network=100.0, at_once=3).total_s == pytest.approx(9)


def test_what_is_told_late_is_held_for_longer():
    """Of three steps that a worker holds one is done, so that two come side by side, not three."""
    steps = some(9, 100, 100, 0.0)
    changes = {"step_network": 50.0, "at_once": 3}
    assert simulated(steps, **changes, batches=1).total_s == pytest.approx((1 + 3) * 2)
    assert simulated(steps, **changes, batches=None).total_s == pytest.approx(3 * 2)
    steps = some(8, 0, 0, 1.0)
    for batches in (None, 1, 4):  # what is computed all the time is no longer for it
        assert simulated(steps, workers=2, batches=batches).total_s == pytest.approx(4)


def test_workers_of_a_node_share_its_disk():
    steps = some(8, 0, 100, 0.0)
    assert simulated(steps, workers=4, workers_per_node=4, read=50.0).total_s == pytest.approx(16)
    assert simulated(steps, workers=4, workers_per_node=2, read=50.0).total_s == pytest.approx(8)


def test_as_many_workers_as_steps_and_more():
    steps = some(6, 0, 0, 3.0)
    for workers, total_s in ((1, 18), (2, 9), (4, 6), (6, 3), (7, 3)):
        assert simulated(steps, workers=workers).total_s == pytest.approx(total_s)
    found = simulated(steps, workers=12)
    assert found.idle == (0.0,) * 6 + (1.0,) * 6
    assert found.spent["idle"] == pytest.approx(0.5)


def test_a_stage_that_is_not_busy_is_not_the_reason():
    """One step that takes longest: all computing is done in half of the time of the workers."""
    steps = [SimulatedStep(Task(0, n, cost), 0, 0, cost) for n, cost in enumerate((8.0, 3.0, 3.0))]
    found = simulated(steps, workers=2)
    assert found.total_s == pytest.approx(8)
    assert found.busy["compute"] == pytest.approx(14 / 16)
    assert found.bottleneck == "idle"
    assert simulated(some(16, 0, 0, 1.0), workers=2).bottleneck == "compute"
    # The network is busy for half of the time in which there is nothing else to do.
    slow = simulated(some(4, 100, 100, 1.0), network=100.0, ask_s=2.0)
    assert slow.busy["download"] < BUSY
    assert slow.bottleneck == "download"


def test_a_change_of_model_starts_anew():
    steps = [
        SimulatedStep(Task(model, step, 1.0), 100, 100, 1.0)
        for model in (0, 1)
        for step in range(3)
    ]
    found = simulated(steps, network=100.0, model_s=10.0)
    assert found.total_s == pytest.approx(2 * (10 + 1 + 3))
    assert found.switches == 1
    # Of two workers one has two steps of the first model, and the network to itself after that.
    two = simulated(steps, workers=2, network=200.0, model_s=10.0)
    assert two.total_s == pytest.approx(10 + 1 + 2 + 10 + 0.5 + 1)
    assert two.switches == 2


def test_asking_overlaps_with_what_comes_meanwhile():
    steps = some(6, 100, 100, 0.0)
    assert simulated(steps, network=100.0, ask_s=0.5).total_s == pytest.approx(0.5 + 6)
    assert simulated(steps, network=100.0, ask_s=2.0).total_s == pytest.approx(6 * 2 + 1)


def test_what_a_slow_worker_has_not_begun_goes_to_an_idle_one():
    costs = (4.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    steps = [SimulatedStep(Task(0, n, cost), 0, 0, cost) for n, cost in enumerate(costs)]
    # Handed out at once: 4 + 1 + 1 and 1 + 1 + 1. One of the first worker's is taken back.
    assert simulated(steps, workers=2, arenas=1).total_s == pytest.approx(5)


def test_what_is_over_in_no_time_that_the_clock_can_tell():
    steps = some(20, 1e9, 1e9, 1e6)
    found = simulated(steps, workers=3, network=1e18, read=1e18, begin_s=1e9)
    assert found.total_s == pytest.approx(1e9 + 7e6)


def test_nothing_to_do():
    found = simulated([], workers=3)
    assert (found.total_s, found.download_bytes, found.disk_bytes) == (0, 0, 0)
    assert found.spent == dict.fromkeys(SPENT, 0) | {"idle": 1}
    assert (found.bottleneck, found.idle) == ("idle", (1.0, 1.0, 1.0))


def test_what_makes_no_sense():
    with pytest.raises(ArgumentError, match="disk budget of 99 bytes"):
        simulated(some(1, 100, 100, 1.0), disk_budget_bytes=99)
    with pytest.raises(ArgumentError, match="given already"):
        simulated(some(1, 0, 0, 1.0) * 2)
    changes = {
        "workers": 0,
        "batches": 0,
        "network": -1.0,
        "read": math.nan,
        "step_network": 0.0,
        "node_verify": 0,
        "start_s": -1.0,
        "model_s": math.inf,
    }
    for name, value in changes.items():
        with pytest.raises(ArgumentError, match=name):
            Cluster(**{name: value})


times = st.floats(0.0, 5.0)


@given(
    st.lists(st.tuples(times, times, times), min_size=1, max_size=12),
    st.integers(0, 11),
    st.integers(1, 2),
)
def test_one_worker_keeps_the_order_of_a_pipeline(stages, look_ahead, arenas):
    """Step by step: each stage begins when it is free, its input there, and a place for it."""
    steps = [
        SimulatedStep(Task(0, n, 0.0), download + 1e-6, read, compute)
        for n, (download, read, compute) in enumerate(stages)
    ]
    came, taken, read_end, ended = [], [], [], [0.0] * arenas
    for n, step in enumerate(steps):
        held = max(0.0, ended[n - look_ahead - 1 + arenas]) if n > look_ahead else 0.0
        place = taken[n - WITHOUT_BUDGET] if n >= WITHOUT_BUDGET else 0.0
        came.append(max(came[-1] if came else 0.0, held, place) + step.download_bytes)
        taken.append(max(came[-1], read_end[-1] if read_end else 0.0, ended[n]))
        read_end.append(taken[-1] + step.load_bytes)
        ended.append(max(read_end[-1], ended[-1]) + step.compute_s)
    found = simulated(steps, network=1.0, read=1.0, arenas=arenas, look_ahead=look_ahead)
    assert found.total_s == pytest.approx(ended[-1], abs=1e-3)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            *(st.integers(0, 2), st.floats(0.1, 9.0), st.floats(0.1, 9.0), st.booleans()),
            *(st.integers(1, 3), st.floats(1.0, 1.5)),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([None, 14.0, 25.0]),
    st.booleans(),
    st.sampled_from([None, 1500.0, 2500.0]),
    st.integers(1, 3),
)
def test_no_faster_than_can_be_and_no_slower_than_one_thing_at_a_time(
    work, workers, per_node, budget, asks, node_verify, at_once
):
    steps = [
        SimulatedStep(
            *(Task(model, n, cost), nbytes * 1000 if comes else 0, nbytes * 1000, cost),
            file_bytes=nbytes * 1000 * more,
            files=files,
        )
        for n, (model, cost, nbytes, comes, files, more) in enumerate(work)
    ]
    cluster = Cluster(
        workers=workers,
        workers_per_node=per_node,
        network=3000.0,
        node_network=2000.0,
        verify=1500.0,
        node_verify=node_verify,
        at_once=at_once,
        read=4000.0,
        start_s=1.0,
        model_s=0.5,
        step_s=0.1,
        publish_s=0.1,
        message_s=0.01,
        disk_budget_bytes=None if budget is None else int(budget * 1000),
        ask_s=0.2 * asks,
        batches=2 if asks else None,
    )
    found = simulate(steps, cluster)
    downloads = sum(step.download_bytes for step in steps)
    longest = max(step.compute_s for step in steps)
    nodes = -(-workers // per_node)
    least = 1.0 + max(
        downloads / 3000,
        sum(step.compute_s for step in steps) / workers,
        longest,
        sum(step.load_bytes for step in steps) / (4000 * nodes),
        sum(step.disk_bytes for step in steps) / ((node_verify or math.inf) * nodes),
    )
    assert least <= found.total_s + 1e-6
    alone = [
        step.download_bytes / 2000 + step.load_bytes / 4000 + step.disk_bytes / 1500
        + step.compute_s + 0.1 + 0.1 + 0.01 + 0.5 + 0.2
        for step in steps
    ]  # fmt: skip
    assert found.total_s <= 1.0 + sum(alone)
    assert sum(found.spent.values()) == pytest.approx(1)
    assert all(found.spent[name] >= -1e-9 for name in SPENT)
    assert all(0 <= part <= 1 + 1e-9 for part in (*found.busy.values(), *found.idle))
    assert found.load_bytes == pytest.approx(sum(step.load_bytes for step in steps))
    assert found.download_bytes >= downloads - 1e-6  # what was taken back may come twice
    if budget is not None:
        assert found.disk_bytes <= budget * 1000
    assert found.kept_bytes >= found.disk_bytes or not downloads
    assert simulate(steps, cluster) == found


def progressive_filling(total: float, limits: list[float]) -> list[float]:
    """Raise all rates together; those at their limit stay, until the wire is full."""
    rates = [0.0] * len(limits)
    while growing := [n for n, limit in enumerate(limits) if rates[n] < limit]:
        room = total - sum(rates)
        step = min(room / len(growing), min(limits[n] - rates[n] for n in growing))
        if step <= 1e-12 * total:
            break
        for n in growing:
            rates[n] += step
    return rates


rates = st.one_of(st.just(math.inf), st.floats(1.0, 100.0))


@given(st.lists(st.integers(0, 8), min_size=1, max_size=10), *[st.floats(1.0, 100.0)] * 3)
def test_a_wire_is_shared_fairly(places, total, own, each):
    wire, kind = Wire(total, own, each), Kind(1, 1.0)
    told = [Place(((kind, transfers),) if transfers else ()) for transfers in places]
    for place in told:
        wire.changed(Place(), place)
    limits = [min(own / n, each) for n in places for _ in range(n)]
    expected = progressive_filling(total, limits)
    found = [
        wire.shares(place).coming[kind]
        for place, n in zip(told, places, strict=True)
        if n
        for _ in range(n)
    ]
    assert found == pytest.approx(expected, rel=1e-6)


def filled(sharing, limits, groups) -> list[float]:
    """Raise all rates together; those at their limit stay, and those in a group that is full.

    `groups` are (total, weight of each): so much of what is shared does a unit of its rate take.
    """
    rates, stays = [0.0] * sharing, [False] * sharing
    while not all(stays):
        room = min(limits[n] - rates[n] for n in range(sharing) if not stays[n])
        for total, weights in groups:
            growing = sum(w for w, stay in zip(weights, stays, strict=True) if not stay)
            used = sum(w * rate for w, rate in zip(weights, rates, strict=True))
            if growing and total < math.inf:
                room = min(room, (total - used) / growing)
        for n in range(sharing):
            rates[n] += 0.0 if stays[n] else max(room, 0.0)
            stays[n] |= rates[n] >= limits[n] * (1 - 1e-9)
        for total, weights in groups:
            used = sum(w * rate for w, rate in zip(weights, rates, strict=True))
            if used >= total * (1 - 1e-9):
                stays = [stay or w > 0 for w, stay in zip(weights, stays, strict=True)]
    return rates


@given(
    st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=4),
    *(rates, rates, st.floats(1.0, 20.0), st.floats(5.0, 100.0)),
)
def test_a_wire_with_kinds_that_are_hashed_at_other_rates(places, total, own, core, cores):
    """Against all constraints at once, of downloads whose bytes are each hashed once."""
    wire = Wire(total, own, math.inf, core, cores)
    kinds = {files: Kind(files, 1.0) for files in (1, 2, 3)}
    told = [
        Place(tuple((kinds[n], here.count(n)) for n in (1, 2, 3) if n in here)) for here in places
    ]
    for place in told:
        wire.changed(Place(), place)
    of = [(number, files) for number, here in enumerate(places) for files in here]
    groups = [(total, [1.0] * len(of))] + [
        (min(own, cores), [float(place == number) for place, _ in of])
        for number in range(len(places))
    ]
    expected = filled(len(of), [core * files for _, files in of], groups)
    found = [wire.shares(told[place]).coming[kinds[files]] for place, files in of]
    assert found == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 4), st.integers(0, 4), st.floats(1.0, 3.0), st.floats(5.0, 100.0))
def test_cores_are_never_more_than_full(coming, hashing, hashed, cores):
    wire, kind = Wire(core=20.0, cores=cores), Kind(2, hashed)
    place = Place(((kind, coming),) if coming else (), hashing)
    wire.changed(Place(), place)
    shares = wire.shares(place)
    of_coming = shares.coming.get(kind, 0.0) * hashed
    assert of_coming <= 40.0 * (1 + 1e-9)
    assert shares.hashing <= 20.0 * (1 + 1e-9)
    used = coming * of_coming + hashing * shares.hashing
    could = 40.0 * coming + 20.0 * hashing
    assert used == pytest.approx(min(cores, could))
    assert (kind in shares.hash_bound) == bool(coming)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(10**3, 10**9)), min_size=1, max_size=8))
def test_transfers_at_one_rate_end_when_a_fluid_would(arrivals):
    """Of equal sharing of 100 MB a second, against time in steps from event to event."""
    arrivals = sorted(arrivals)
    flows, now, waiting, ends = Flows(), 0.0, list(enumerate(arrivals)), {}
    while waiting or len(flows):
        begin = waiting[0][1][0] if waiting else math.inf
        now = min(begin, flows.next_s)
        for key in flows.pop_ended(now):
            ends[key] = now
        while waiting and waiting[0][1][0] <= now:
            key, (_, nbytes) = waiting.pop(0)
            flows.add(now, key, nbytes)
        flows.set_rate(now, 1e8 / max(1, len(flows)))
    left = {key: float(nbytes) for key, (_, nbytes) in enumerate(arrivals)}
    now, expected = 0.0, {}
    while left:
        there = [key for key in left if arrivals[key][0] <= now]
        later = [begin for begin, _ in arrivals if begin > now]
        if not there:
            now = min(later)
            continue
        rate = 1e8 / len(there)
        step = min(min(left[key] for key in there) / rate, min(later, default=math.inf) - now)
        for key in there:
            left[key] -= rate * step
            if left[key] <= 0.5:
                expected[key] = now + step
                del left[key]
        now += step
    assert ends == pytest.approx(expected, abs=1e-5)
