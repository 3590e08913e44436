"""Workers that die before they begin, fall silent or cannot work, and what cannot be had at all."""

import json
from types import SimpleNamespace

import pytest
from played_ray import HELLO, STATUS, V2, Ray, RayError, RayTaskError, played, played_kv

from pythia_fast.errors import ArgumentError, RunMismatchError, WorkerError
from pythia_fast.runs.cluster import calls, replacing
from pythia_fast.runs.cluster.calls import GIVE_UP_S, SILENT_S
from pythia_fast.runs.cluster.connecting import Cluster
from pythia_fast.runs.cluster.events import Joined, LeftOut, Lost, Silent, Told
from pythia_fast.runs.cluster.messages import Began, Finished, Order
from pythia_fast.runs.cluster.reaching import grows
from pythia_fast.runs.cluster.replacing import FIRST_TRIES, PAUSES_S
from pythia_fast.runs.folder.run_folder import versions
from pythia_fast.runs.workers import Workers


def joined(cluster: Cluster, ray: Ray, count: int = 1) -> None:
    """Let the first workers be ready."""
    for actor in ray.actors[:count]:
        actor.answer("hello", HELLO)
    cluster.first()
    cluster.events(0)


def test_who_dies_early_is_replaced_and_later_once_several_in_a_row_have(
    ray: Ray, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep goes on: there is a worker that was ready. Each pause is twice as long."""
    now_s = 0.0
    monkeypatch.setattr(replacing, "monotonic", lambda: now_s)
    with Cluster(Workers(count=2 * FIRST_TRIES + 2), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray)
        asked = len(ray.actors)

        def dies() -> None:
            nonlocal waiting
            actor, *waiting = waiting
            actor.answer("hello", RayError("no room"))
            (lost,) = cluster.events(0)
            assert isinstance(lost, Lost)
            assert not lost.joined
            cluster.replace()

        waiting = ray.actors[1:]
        for tried in range(1, FIRST_TRIES + 1):
            dies()
            assert len(ray.actors) == asked + min(tried, FIRST_TRIES - 1)
            assert len(caplog.records) == (tried == FIRST_TRIES)
        assert cluster.alive
        assert caplog.messages[-1].endswith(
            f"another is asked for in {PAUSES_S[0]:.0f} s, or once one that was is ready: no room"
        )
        asked = len(ray.actors)
        cluster.replace()  # a worker that had been ready was lost: two are owed
        now_s = PAUSES_S[0] - 1
        cluster.events(0)
        assert len(ray.actors) == asked
        now_s = PAUSES_S[0]
        cluster.events(0)
        cluster.events(0)
        assert len(ray.actors) == asked + 1
        dies()
        assert f"in {PAUSES_S[1]:.0f} s" in caplog.messages[-1]
        now_s = sum(PAUSES_S[:2]) - 1
        cluster.events(0)
        assert len(ray.actors) == asked + 1
        now_s = sum(PAUSES_S[:2])
        cluster.events(0)
        assert len(ray.actors) == asked + 2

        waiting[0].answer("hello", HELLO)
        assert [type(event) for event in cluster.events(0)] == [Joined]
        cluster.events(0)
        assert len(ray.actors) == asked + 3  # whatever was owed


def test_where_all_are_lost_it_is_tried_again_for_half_an_hour(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(replacing, "monotonic", lambda: now_s)
    with Cluster(Workers(count=1), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray)
        ray.actors[0].answer("poll", RayError("gone"))
        cluster.events(0)
        cluster.replace()
        for _ in range(FIRST_TRIES):
            assert cluster.alive
            ray.actors[-1].answer("hello", RayError("no room"))
            cluster.events(0)
            cluster.replace()
        for pause_s in PAUSES_S:
            assert cluster.alive
            assert cluster.coming
            asked = len(ray.actors)
            now_s += pause_s
            cluster.events(0)
            assert len(ray.actors) == asked + 1
            ray.actors[-1].answer("hello", RayError("no room"))
            cluster.events(0)
            cluster.replace()
        assert not cluster.alive
        assert not cluster.coming


def test_a_trial_that_is_of_another_version_is_not_the_last(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(replacing, "monotonic", lambda: now_s)
    with Cluster(Workers(count=FIRST_TRIES + 2), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray)
        for actor in ray.actors[1 : FIRST_TRIES + 1]:
            actor.answer("hello", RayError("no room"))
            cluster.events(0)
            cluster.replace()
        cluster.replace()
        for pause_s in PAUSES_S[:2]:
            asked = len(ray.actors)
            now_s += pause_s
            cluster.events(0)
            assert len(ray.actors) == asked + 1
            ray.actors[-1].answer("hello", "0.0")
            assert [type(event) for event in cluster.events(0)] == [LeftOut]


def test_no_more_workers_are_asked_for_than_there_are_steps(ray: Ray) -> None:
    for most, asked in ((3, 3), (100, 8)):
        ray.actors.clear()
        with Cluster(Workers(count=8), None) as cluster:
            cluster.begin("auto", (), most=most)
            assert len(ray.actors) == asked


def test_what_a_worker_has_told_counts_although_it_died_then(ray: Ray) -> None:
    with Cluster(Workers(count=1), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray)
        (actor,) = ray.actors
        cluster.order("worker 1", Order(0, 5, (), {}), ["work"], "70m step 5")
        actor.answer("poll", [Began(0, 5)])
        cluster.events(0)  # it is polled again, after it was ordered to compute
        actor.answer("compute", RayError("it was killed"))
        actor.answer("poll", [Finished(0, 5, "abc")])
        assert cluster.events(0) == [
            Told("worker 1", [Finished(0, 5, "abc")]),
            Lost("worker 1", "it was killed", True),
        ]
        assert cluster.events(0) == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The engine's clock, which stands still unless `now_s` is changed."""
    clock = SimpleNamespace(now_s=1000.0, sleep=lambda _: None)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr(calls, "time", clock)
    return clock


def test_a_silent_worker_is_spoken_of_once_and_given_up_in_the_end(
    ray: Ray, clock: SimpleNamespace
) -> None:
    with Cluster(Workers(count=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray)
        actor, starting = ray.actors
        clock.now_s += SILENT_S
        assert cluster.events(0) == []
        clock.now_s += 1
        assert cluster.events(0) == [Silent("worker 1", SILENT_S + 1)]
        clock.now_s += 1
        assert cluster.events(0) == []

        actor.answer("poll", [])
        assert cluster.events(0) == []
        clock.now_s += SILENT_S
        assert cluster.events(0) == []
        clock.now_s += 1
        assert cluster.events(0) == [Silent("worker 1", SILENT_S + 1)]
        clock.now_s += GIVE_UP_S - SILENT_S - 1
        assert cluster.events(0) == []
        assert not actor.killed
        clock.now_s += 1
        (lost,) = cluster.events(0)
        assert lost == Lost("worker 1", f"it has not answered for {GIVE_UP_S + 1:.0f} s", True)
        assert actor.killed
        actor.answer("poll", [Began(0, 5)])
        assert cluster.events(0) == []
        assert not starting.killed  # Ray may take its time to place one


def test_a_driver_that_was_busy_finds_no_worker_silent(ray: Ray, clock: SimpleNamespace) -> None:
    with Cluster(Workers(count=1), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray)
        ray.actors[0].answer("poll", [])
        clock.now_s += 2 * GIVE_UP_S
        assert cluster.events(0) == []
        assert cluster.alive


def test_what_a_worker_cannot_do_others_may(ray: Ray) -> None:
    with Cluster(Workers(count=3), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray)
        _, second, third = ray.actors
        second.answer("hello", RayTaskError(ArgumentError("no AMX")))
        third.answer("hello", RayTaskError(KeyError("x")))
        events = cluster.events(0)
        assert [(each.worker, each.joined) for each in events if isinstance(each, Lost)] == [
            ("worker 2", False),
            ("worker 3", False),
        ]
        assert "no AMX" in events[0].reason  # type: ignore[union-attr]
        assert "cannot begin: KeyError: 'x'" in events[1].reason  # type: ignore[union-attr]
        assert second.killed
        assert third.killed
        assert not cluster.coming


def test_what_is_wrong_with_a_call_of_a_worker_that_was_ready_is_told(ray: Ray) -> None:
    """It cannot open the work, and then no other can."""
    with Cluster(Workers(count=1), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray)
        cluster.order("worker 1", Order(0, 5, (), {}), ["work"], "70m step 5")
        ray.actors[0].answer("compute", RayTaskError(RunMismatchError("another folder")))
        with pytest.raises(RunMismatchError, match="another folder") as raised:
            cluster.events(0)
        assert raised.value.__notes__ == ["on worker 1 of there"]


def test_a_worker_is_dismissed_and_once_more(ray: Ray) -> None:
    with Cluster(Workers(count=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        joined(cluster, ray, 2)
        first, second = ray.actors
        cluster.ask_back("worker 1", 0, 5)
        first.answer("give_back", True)
        first.answer("poll", [Began(0, 5)])
        cluster.dismiss("worker 1")
        cluster.dismiss("worker 1")
        assert first.killed
        assert cluster.events(0) == []
        second.answer("poll", [Began(0, 6)])
        assert cluster.events(0) == [Told("worker 2", [Began(0, 6)])]
        cluster.dismiss("worker 2")
        assert not cluster.alive
        assert cluster.events(0) == []  # there is nothing that Ray could wait for


def test_an_address_is_not_for_who_is_connected(ray: Ray) -> None:
    with pytest.raises(ArgumentError, match=r"connected to .* already.*'10\.0\.0\.1"):
        Cluster(Workers(address="10.0.0.1:6379"), None).__enter__()
    assert ray.connected


@pytest.mark.parametrize(
    ("workers", "match"),
    [
        (Workers(count=1, resources={"fast_disk": 1}), "1 x 1 fast_disk .* more than the 0 of"),
        (Workers(count=2, memory=6 * 10**9), r"2 x 6e\+09 memory .* more than the 1e\+10 of"),
        (Workers(count=1, num_gpus=1), "1 x 1 GPU .* more than the 0 of"),
    ],
)
def test_what_this_machine_alone_does_not_offer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, match: str
) -> None:
    alone = played(monkeypatch, {"CPU": 4.0, "memory": 1e10, "slow_disk": 1.0}, connected=False)
    with pytest.raises(ArgumentError, match=match):
        Cluster(workers, None).__enter__()
    assert not alone.connected
    assert not alone.actors
    offered = Workers(count=1, memory=10**9, resources={"slow_disk": 1})
    with Cluster(offered, None) as cluster:
        assert cluster.placing.count == 1


def test_where_no_machine_can_hold_a_worker_and_none_comes_the_sweep_ends(
    ray: Ray, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Workers(count=1, num_cpus=2, memory=10**12, resources={"fast_disk": 1})
    with Cluster(workers, None) as cluster:
        cluster.begin("auto", (), most=100)
        with pytest.raises(
            ArgumentError,
            match=r"can hold a worker with 2 CPUs, 1e\+12 bytes of memory, 1 fast_disk: "
            r"the nearest has 2 CPUs, 0 bytes of memory, 0 fast_disk; ask for less",
        ):
            cluster.first()
    assert not caplog.records


def test_a_cluster_may_grow(ray: Ray, caplog: pytest.LogCaptureFixture) -> None:
    """Where machines are started when they are asked for, or where Ray does not tell."""
    status = {"autoscaler_report": {"node_type_mapping": {"abc": "ray.worker.large"}}}
    for kept in ({STATUS: json.dumps(status).encode()}, {V2: b"1"}, None):
        ray.experimental = played_kv(kept)
        workers = Workers(count=1, memory=10**12, resources={"fast_disk": 1})
        with Cluster(workers, None) as cluster:
            cluster.begin("auto", (), most=100)
            cluster.tell_waiting()
        assert "1e+12 bytes of memory, 1 fast_disk" in caplog.text
        caplog.clear()


def test_machines_of_a_kind_of_their_own_are_started_by_nobody(ray: Ray) -> None:
    """As Ray tells of a cluster that was started by hand."""
    status = {"autoscaler_report": {"node_type_mapping": {"abc": "node_abc", "d": "node_d"}}}
    for kept in ({STATUS: json.dumps(status).encode()}, {STATUS: b"{}"}, {}):
        ray.experimental = played_kv(kept)
        assert not grows(ray)


def test_machines_that_join_are_waited_for(ray: Ray, caplog: pytest.LogCaptureFixture) -> None:
    with Cluster(Workers(count=1, num_cpus=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        assert cluster.nodes == {"node 0", "node 1"}
        cluster.tell_waiting()
    assert "waiting for Ray to place one with 2 CPUs" in caplog.text


def test_a_worker_of_another_version_is_left_out_and_of_others_none_alone(
    ray: Ray, caplog: pytest.LogCaptureFixture
) -> None:
    here = versions()["pythia-fast"]
    with Cluster(Workers(count=3), None) as cluster:
        cluster.begin("auto", (), most=100)
        first, second, third = ray.actors
        first.answer("hello", "0.0")
        assert cluster.events(0) == [LeftOut("worker 1")]
        assert first.killed
        assert f"worker 1 is left out: it has pythia-fast 0.0, and here is {here}" in caplog.text
        second.answer("hello", HELLO)
        assert cluster.events(0) == [Joined("worker 2", HELLO)]
        cluster.dismiss("worker 2")
        third.answer("hello", "0.0")
        with pytest.raises(
            WorkerError, match=f"no worker is left: worker 3, .*fast 0.0, and here is {here}"
        ):
            cluster.events(0)
    assert len(ray.actors) == 3
