"""What Ray is asked for, and what becomes of workers that come, die or never come. It is played."""

import itertools
import sys
from types import ModuleType
from typing import Any

import pytest
from played_ray import HELLO, Ray, RayError, RayTaskError, played

from pythia_fast.errors import ArgumentError, RunMismatchError, SweepInterruptedError, WorkerError
from pythia_fast.runs.cluster.connecting import Cluster
from pythia_fast.runs.cluster.events import GaveBack, Joined, Lost, Told
from pythia_fast.runs.cluster.messages import Began, Finished, Order
from pythia_fast.runs.cluster.replacing import FIRST_TRIES
from pythia_fast.runs.workers import Workers


def test_what_the_user_says_of_workers_goes_to_ray(ray: Ray) -> None:
    workers = Workers(
        count=2,
        num_cpus=1.5,
        num_gpus=0.5,
        memory=10**9,
        resources={"fast_disk": 1},
        placement="DEFAULT",
        runtime_env={"env_vars": {"A": "b"}},
    )
    with Cluster(workers, None) as cluster:
        cluster.begin("auto", (), most=100)
        assert len(ray.actors) == 2
        for actor in ray.actors:
            given = dict(actor.options)
            name, at_once = given.pop("name"), given.pop("max_concurrency")
            assert name.startswith("pythia_fast ")
            assert at_once > 3
            assert given == {
                "num_cpus": 1.5,
                "num_gpus": 0.5,
                "memory": 10**9,
                "resources": {"fast_disk": 1},
                "scheduling_strategy": "DEFAULT",
                "runtime_env": {"env_vars": {"A": "b"}},
                "max_restarts": 0,
                "max_task_retries": 0,
            }
            assert actor.arguments == (1, 0.5)
    assert all(actor.killed for actor in ray.actors)
    assert ray.connected  # it was before


def test_workers_come_tell_and_die(ray: Ray) -> None:
    with Cluster(Workers(count=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        first, second = ray.actors
        second.answer("hello", HELLO)
        assert cluster.first() == HELLO
        assert cluster.events(0) == [Joined("worker 2", HELLO)]
        assert cluster.events(0) == []
        cluster.order("worker 2", Order(0, 5, (), {}), ["work"], "70m step 5")
        cluster.ask_back("worker 2", 0, 5)
        second.answer("give_back", False)
        second.answer("poll", [Began(0, 5)])
        assert cluster.events(0) == [
            Told("worker 2", [Began(0, 5)]),
            GaveBack("worker 2", 0, 5, False),
        ]
        second.answer("poll", [Finished(0, 5, "abc")])
        second.answer("compute", None)
        assert cluster.events(0) == [Told("worker 2", [Finished(0, 5, "abc")])]
        cluster.order("worker 2", Order(0, 6, (), {}), ["work"], "70m step 6")
        gone = RayError("Some words. The actor is dead because its node has died.")
        for method in ("compute", "poll"):
            second.answer(method, gone)
        assert cluster.events(0) == [Lost("worker 2", "its node has died.", True)]
        assert second.killed  # also where it only cannot be reached
        assert cluster.events(0) == []
        assert cluster.add() == "worker 3"
        first.answer("hello", HELLO)
        assert cluster.events(0) == [Joined("worker 1", HELLO)]
        first.answer("poll", [])
        assert cluster.events(0) == []
        assert len(first.calls["poll"]) == 1  # it is asked again


def test_who_dies_while_another_joins_is_replaced(ray: Ray) -> None:
    with Cluster(Workers(count=3), None) as cluster:
        cluster.begin("auto", (), most=100)
        ray.actors[0].answer("hello", RayError("killed"))
        ray.actors[1].answer("hello", HELLO)
        assert cluster.first() == HELLO
        assert len(ray.actors) == 4


def test_none_can_begin(ray: Ray) -> None:
    with Cluster(Workers(count=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        for actor in ray.actors:
            actor.answer("hello", RayError("no room"))
        add = cluster.add

        def adding() -> str:
            name = add()
            ray.actors[-1].answer("hello", RayError("no room"))
            return name

        cluster.add = adding  # type: ignore[method-assign]
        with pytest.raises(WorkerError, match=f"{FIRST_TRIES} workers in a row have died.*no room"):
            cluster.first()


def test_who_joins_between_shows_that_workers_can_begin(ray: Ray) -> None:
    with Cluster(Workers(count=2 * FIRST_TRIES), None) as cluster:
        cluster.begin("auto", (), most=100)
        *early, joining = ray.actors[:FIRST_TRIES]
        late = ray.actors[FIRST_TRIES : 2 * FIRST_TRIES - 1]
        for actors, answer in ((early, RayError("no")), ([joining], HELLO), (late, RayError("no"))):
            for actor in actors:
                actor.answer("hello", answer)
            assert len(cluster.events(0)) == len(actors)


def test_what_no_worker_can_do_is_told_by_its_own_error(ray: Ray) -> None:
    with Cluster(Workers(count=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        ray.actors[0].answer("hello", RayTaskError(KeyError("x")))
        ray.actors[1].answer("hello", RayTaskError(RunMismatchError("the tokens are others")))
        with pytest.raises(RunMismatchError, match="the tokens are others") as raised:
            cluster.first()
        assert raised.value.__notes__ == ["on worker 2 of the cluster"]


def test_what_several_in_a_row_cannot_do_ends_the_sweep(ray: Ray) -> None:
    with Cluster(Workers(count=FIRST_TRIES + 1), None) as cluster:
        cluster.begin("auto", (), most=100)
        for actor in ray.actors[: FIRST_TRIES - 1]:
            actor.answer("hello", RayTaskError(KeyError("x")))
            (lost,) = cluster.events(0)
            assert isinstance(lost, Lost)
        ray.actors[FIRST_TRIES - 1].answer("hello", RayTaskError(KeyError("y")))
        with pytest.raises(
            WorkerError, match=r"worker 3 of the cluster cannot begin: KeyError: 'y'"
        ):
            cluster.first()


@pytest.mark.parametrize("first", [True, False])
def test_the_first_that_cannot_begin_is_lost_as_a_later_one_is(ray: Ray, first: bool) -> None:
    with Cluster(Workers(count=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        bad, good = ray.actors
        answers = [(bad, RayTaskError(ArgumentError("no AMX"))), (good, HELLO)]
        events = []
        for actor, answer in answers if first else reversed(answers):
            actor.answer("hello", answer)
            events += cluster.events(0)
        assert {type(event) for event in events} == {Joined, Lost}
        assert bad.killed
        assert not good.killed


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("GPU quantities >1 must", " be whole numbers."), ">1 must be whole numbers"),
        (TypeError("'env_vars' must be of type Dict[str, str]"), "'env_vars' must be of type"),
    ],
)
def test_what_ray_does_not_take_is_told_in_its_words(
    ray: Ray, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def remote(_: type) -> Any:
        raise error

    monkeypatch.setattr(ray, "remote", remote)
    with (
        Cluster(Workers(count=1, num_gpus=1.5), None) as cluster,
        pytest.raises(ArgumentError, match=f"Ray takes no such workers: .*{words}"),
    ):
        cluster.begin("auto", (), most=100)


@pytest.mark.parametrize("before", [SweepInterruptedError("3 of 7 are kept"), None])
def test_who_presses_twice_leaves_no_worker_alive(
    ray: Ray, monkeypatch: pytest.MonkeyPatch, before: Exception | None
) -> None:
    """And is told what the first error says."""

    def wait(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    def interrupted() -> None:
        with Cluster(Workers(count=2), None) as cluster:
            cluster.begin("auto", (), most=100)
            for actor in ray.actors:
                actor.answer("hello", HELLO)
            cluster.first()
            monkeypatch.setattr(ray, "wait", wait)
            if before is not None:
                raise before

    with pytest.raises(type(before) if before else KeyboardInterrupt) as raised:
        interrupted()
    assert raised.value is before or before is None
    assert all(actor.killed for actor in ray.actors)


def test_it_is_said_that_none_is_there_yet(
    ray: Ray, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(Workers(count=1, num_cpus=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        (actor,) = ray.actors
        waits = itertools.count()
        wait = ray.wait

        def waiting(*arguments: Any, **named: Any) -> Any:
            if next(waits) == 6:
                actor.answer("hello", HELLO)
            return wait(*arguments, **named)

        monkeypatch.setattr(ray, "wait", waiting)
        assert cluster.first() == HELLO
    said = [record.getMessage() for record in caplog.records]
    assert said == [said[0]] * 3
    assert "waiting for Ray to place one with 2 CPUs" in said[0]


def test_what_cannot_come_is_not_waited_for_at_the_end(ray: Ray) -> None:
    with Cluster(Workers(count=2), None) as cluster:
        cluster.begin("auto", (), most=100)
        there, never = ray.actors
        there.answer("hello", HELLO)
        cluster.first()
        cluster.events(0)
        assert cluster.coming
    assert "stop" in there.calls
    assert "stop" not in never.calls
    assert there.killed
    assert never.killed


def test_this_machine_alone_must_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = played(monkeypatch, {"CPU": 4.0}, connected=False)
    with pytest.raises(ArgumentError, match=r"5 x 1 CPU for the workers are more than the"):
        Cluster(Workers(count=5), None).__enter__()
    assert not alone.connected
    with Cluster(Workers(count=4), None) as cluster:
        assert alone.connected
        assert (cluster.placing.count, cluster.placing.cpus) == (4, 1)
    assert not alone.connected  # what it has started it ends


@pytest.mark.parametrize("connected", [True, False])
def test_what_ray_prints_is_logged_unless_the_caller_has_connected(
    monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    worker: Any = ModuleType("ray._private.worker")
    worker.print_worker_logs = printing = object()
    monkeypatch.setitem(sys.modules, "ray._private.worker", worker)
    played(monkeypatch, {"CPU": 4.0}, connected=connected)
    with Cluster(Workers(count=1), None):
        assert (worker.print_worker_logs is printing) == connected
    assert worker.print_worker_logs is printing
    with pytest.raises(ArgumentError):
        Cluster(Workers(count=1, num_gpus=0), "cuda").__enter__()
    assert worker.print_worker_logs is printing
