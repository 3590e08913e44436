"""A simulated sweep, against what can be worked out by hand, step by step, or by bounds."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.dispatch import Task
from pythia_fast.runs.simulation import SPENT, Cluster, Simulated, SimulatedStep, simulate
from pythia_fast.runs.simulation.flows import Flows, Wire
from pythia_fast.series.lookahead import WITHOUT_BUDGET


def some(count: int, download: float, load: float, compute_s: float) -> list[SimulatedStep]:
    return [
        SimulatedStep(Task(0, step, compute_s), download, load, compute_s) for step in range(count)
    ]


def simulated(steps: Sequence[SimulatedStep], **changes: float | None) -> Simulated:
    return simulate(steps, replace(Cluster(), **changes))


def test_one_worker_that_computes_longest():
    found = simulated(
        some(10, 100, 100, 5.0),
        network=100.0,
        read=200.0,
        begin_s=2.0,
        start_s=3.0,
        model_s=1.0,
        step_s=0.25,
        publish_s=0.125,
    )
    first_s = 2 + 3 + 1 + 1 + 0.5  # the first checkpoint is in its arena
    assert found.total_s == pytest.approx(first_s + 10 * 5.25 + 0.125)
    assert found.bottleneck == "compute"
    assert found.spent["compute"] == pytest.approx(50 / found.total_s)
    assert found.spent["start"] == pytest.approx((2 + 3 + 1 + 10 * 0.25) / found.total_s)
    assert found.spent["read"] == pytest.approx(0.5 / found.total_s)
    assert found.spent["download"] == pytest.approx(1 / found.total_s)
    assert found.download_bytes == found.load_bytes == 1000
    assert found.busy["download"] == pytest.approx(1000 / 100 / found.total_s)


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


def test_with_one_arena_reading_and_computing_take_turns():
    steps = some(5, 0, 100, 2.0)
    assert simulated(steps, read=100.0).total_s == pytest.approx(1 + 5 * 2)
    assert simulated(steps, read=100.0, arenas=1).total_s == pytest.approx(5 * (1 + 2))


def test_with_room_for_one_checkpoint_everything_takes_turns():
    steps = some(5, 100, 100, 2.0)
    found = simulated(steps, network=50.0, read=100.0, disk_budget_bytes=100)
    assert found.total_s == pytest.approx(5 * (2 + 1 + 2))
    assert found.disk_bytes == 100
    free = simulated(steps, network=50.0, read=100.0)
    assert free.total_s == pytest.approx(5 * 2 + 1 + 2)
    assert free.disk_bytes == 300  # computed, read and coming


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
    assert (found.total_s, found.download_bytes) == (0, 0)


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
        st.tuples(st.integers(0, 2), st.floats(0.1, 9.0), st.floats(0.1, 9.0), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([None, 10.0, 25.0]),
    st.booleans(),
)
def test_no_faster_than_can_be_and_no_slower_than_one_thing_at_a_time(
    work, workers, per_node, budget, asks
):
    steps = [
        SimulatedStep(Task(model, n, cost), nbytes * 1000 if comes else 0, nbytes * 1000, cost)
        for n, (model, cost, nbytes, comes) in enumerate(work)
    ]
    cluster = Cluster(
        workers=workers,
        workers_per_node=per_node,
        network=3000.0,
        node_network=2000.0,
        verify=1500.0,
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
    least = 1.0 + max(downloads / 3000, sum(step.compute_s for step in steps) / workers, longest)
    assert least <= found.total_s
    alone = [
        step.download_bytes / 1500 + step.load_bytes / 4000 + step.load_bytes / 1500
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


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=10),
    st.floats(1.0, 100.0),
    st.floats(1.0, 100.0),
    st.floats(1.0, 100.0),
)
def test_a_wire_is_shared_fairly(places, total, own, each):
    wire = Wire(total, own, each)
    for transfers in places:
        wire.changed(0, transfers)
    limits = [min(own / n, each) for n in places for _ in range(n)]
    expected = progressive_filling(total, limits)
    found = [wire.rate(n) for n in places for _ in range(n)]
    assert found == pytest.approx(expected, rel=1e-6)


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
