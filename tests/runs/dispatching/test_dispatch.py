"""Who does what next: nothing lost, nothing done twice, whatever dies and whenever."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.dispatching.blame import Blame
from pythia_fast.runs.dispatching.dispatch import (
    KEEPS,
    LOOK_AHEAD,
    RETRIES,
    SHUN_AFTER,
    Dispatcher,
    Task,
)


def tasks(*costs: float, model: int = 0) -> list[Task]:
    return [Task(model, step, cost) for step, cost in enumerate(costs)]


def joined(dispatcher: Dispatcher, *workers: str) -> Dispatcher:
    for worker in workers:
        dispatcher.join(worker)
    return dispatcher


def steps(given: list[tuple[str, Task]]) -> list[tuple[str, int]]:
    return [(worker, task.step) for worker, task in given]


def test_everybody_gets_one_before_anybody_gets_a_second():
    dispatcher = joined(Dispatcher(tasks(*[1] * 9), look_ahead=1), "a", "b", "c")
    given = steps(dispatcher.assignments())
    assert given == [("a", 0), ("b", 1), ("c", 2), ("a", 3), ("b", 4), ("c", 5)]
    assert dispatcher.assignments() == []
    assert [task.step for task in dispatcher.held("b")] == [1, 4]
    assert dispatcher.workers == ("a", "b", "c")


def test_the_most_costly_comes_first_and_seconds_go_to_who_has_least():
    dispatcher = joined(Dispatcher(tasks(1, 5, 2, 9)), "a", "b")
    assert steps(dispatcher.assignments()) == [("a", 3), ("b", 1), ("b", 2), ("a", 0)]


def test_one_worker_without_look_ahead_holds_one():
    dispatcher = joined(Dispatcher(tasks(1, 1), look_ahead=0), "a")
    ((_, first),) = dispatcher.assignments()
    dispatcher.begun("a", first)
    assert dispatcher.assignments() == []
    dispatcher.finished("a", first)
    ((_, second),) = dispatcher.assignments()
    dispatcher.finished("a", second)
    assert dispatcher.over


def test_the_default_look_ahead():
    dispatcher = joined(Dispatcher(tasks(*[1] * 9)), "a")
    assert len(dispatcher.assignments()) == 1 + LOOK_AHEAD


def test_a_worker_keeps_to_its_model_among_equals():
    both = [*tasks(1, 1, 1, 1), *tasks(1, 1, 1, 1, model=1)]
    dispatcher = joined(Dispatcher(both, look_ahead=0), "a", "b")
    first = dispatcher.assignments()
    assert [task.model for _, task in first] == [0, 0]
    for worker, task in first:
        dispatcher.finished(worker, task)
    second = dispatcher.assignments()
    assert [task.model for _, task in second] == [0, 0]
    dispatcher.finished(*second[0])
    ((_, third),) = dispatcher.assignments()
    assert third.model == 1
    dispatcher.add([Task(0, 9, 1.0)])
    dispatcher.finished("a", third)
    ((_, fourth),) = dispatcher.assignments()
    assert fourth.model == 1  # it keeps to what it has now


@pytest.mark.parametrize(("cost", "model"), [(KEEPS * 10, 0), (KEEPS * 9, 1)])
def test_a_worker_leaves_its_model_where_much_more_costly_steps_wait(cost, model):
    dispatcher = joined(Dispatcher([Task(0, 0, 20.0), Task(0, 1, cost), Task(1, 0, 10.0)]), "a")
    assert [task.model for _, task in dispatcher.assignments()][:2] == [0, model]


def test_what_another_has_not_begun_is_asked_back():
    dispatcher = joined(Dispatcher(tasks(*[1] * 6)), "a", "b")
    given = dispatcher.assignments()
    held = {worker: [task for who, task in given if who == worker] for worker in "ab"}
    assert dispatcher.wanted_back() is None  # nobody is idle
    dispatcher.begun("a", held["a"][0])
    dispatcher.begun("a", held["a"][1])
    for task in held["b"]:
        dispatcher.finished("b", task)
    assert dispatcher.wanted_back() == ("a", held["a"][2])
    assert dispatcher.wanted_back() is None  # it is asked once
    dispatcher.taken_back("a", held["a"][2], given=True)
    assert dispatcher.assignments() == [("b", held["a"][2])]
    assert dispatcher.wanted_back() is None


def test_who_has_begun_meanwhile_keeps_it():
    dispatcher = joined(Dispatcher(tasks(1, 1, 1)), "a")
    held = [task for _, task in dispatcher.assignments()]
    dispatcher.join("b")
    assert dispatcher.wanted_back() == ("a", held[2])
    dispatcher.taken_back("a", held[2], given=False)
    assert dispatcher.wanted_back() == ("a", held[1])  # two are left to it
    dispatcher.begun("a", held[0])
    dispatcher.finished("a", held[1])
    dispatcher.taken_back("a", held[1], given=False)  # late, and no error
    assert dispatcher.wanted_back() is None
    with pytest.raises(ArgumentError, match="does not hold"):
        dispatcher.taken_back("a", held[1], given=True)


def late(*costs: float, models: tuple[int, ...] = (0,) * 9) -> tuple[Dispatcher, list[Task]]:
    """`a` was there first and took three; `b` got the rest. Both have begun with their first."""
    all_of_them = [
        Task(model, *each) for model, each in zip(models, enumerate(costs), strict=False)
    ]
    dispatcher = joined(Dispatcher(all_of_them), "a")
    held = [task for _, task in dispatcher.assignments()]
    joined(dispatcher, "b")
    held += [task for _, task in dispatcher.assignments()]
    dispatcher.begun("a", held[0])
    dispatcher.begun("b", held[3])
    return dispatcher, held


def test_who_comes_late_shares_what_the_first_was_given():
    dispatcher, held = late(1, 1, 1, 1)
    assert dispatcher.wanted_back() == ("a", held[2])
    assert dispatcher.wanted_back() is None
    dispatcher.taken_back("a", held[2], given=True)
    assert dispatcher.assignments() == [("b", held[2])]
    assert dispatcher.wanted_back() is None


def test_what_was_begun_is_not_shared():
    dispatcher, held = late(1, 1, 1, 1)
    dispatcher.begun("a", held[1])
    dispatcher.begun("a", held[2])
    assert dispatcher.wanted_back() is None
    dispatcher, held = late(1, 1, 1, 1)
    assert dispatcher.wanted_back() == ("a", held[2])
    dispatcher.taken_back("a", held[2], given=False)
    assert dispatcher.wanted_back() == ("a", held[1])  # two are left to it


@pytest.mark.parametrize(
    ("costs", "models", "shared"),
    [
        ((1, 1, 1, 1), (0, 0, 0, 0), True),
        ((1, 1, 1, 1, 1), (0, 0, 0, 0, 0), False),  # three and two
        ((9, 8, 7, 7), (0, 0, 0, 0), True),
        ((4, 3, 3, 3), (0, 0, 0, 1), False),  # another model would have to be made for it
        ((40, 3, 3, 3), (0, 0, 0, 0), True),
        ((40, 3, 3, 3, 3), (0, 0, 0, 0, 0), False),  # as many steps, if less work
    ],
)
def test_it_is_shared_where_all_are_done_sooner(costs, models, shared):
    dispatcher, held = late(*costs, models=models)
    assert dispatcher.wanted_back() == (("a", held[2]) if shared else None)


def test_it_is_not_shared_with_who_cannot_hold_it():
    dispatcher, held = late(1, 1, 1, 1, 0.9, models=(0, 0, 0, 1, 0))
    assert dispatcher.held("b") == (held[3], held[4])  # the model that it had last is that of a
    dispatcher.unfit("b", 0)
    dispatcher.finished("a", held[0])
    assert dispatcher.assignments() == [("a", held[4])]
    assert dispatcher.wanted_back() is None


def test_one_step_fewer_is_no_reason_to_share():
    dispatcher, held = late(40, 3, 3, 3)
    dispatcher.finished("a", held[2])
    assert dispatcher.wanted_back() is None
    dispatcher.finished("b", held[3])
    assert dispatcher.wanted_back() == ("a", held[1])


def test_it_is_not_shared_while_something_waits_that_nobody_there_can_do():
    dispatcher, held = late(1, 1, 1, 1)
    dispatcher.add([Task(1, 9, 1.0)])
    dispatcher.unfit("a", 1)
    dispatcher.unfit("b", 1)
    assert dispatcher.assignments() == []
    assert dispatcher.wanted_back() is None
    dispatcher.give_up(1)
    assert dispatcher.wanted_back() == ("a", held[2])


def test_it_is_not_shared_while_a_suspect_waits():
    """Who would get it may be let run empty for that one."""
    dispatcher, held = late(1, 1, 1, 1)
    joined(dispatcher, "c")
    dispatcher.add([Task(0, 9, 1.0)])
    ((_, fatal),) = dispatcher.assignments()
    dispatcher.begun("c", fatal)
    dispatcher.lost("c")
    assert dispatcher.assignments() == []
    assert dispatcher.wanted_back() is None
    dispatcher.finished("b", held[3])
    assert dispatcher.assignments() == [("b", fatal)]
    assert dispatcher.wanted_back() is None  # b is alone with it
    dispatcher.finished("b", fatal)
    assert dispatcher.wanted_back() == ("a", held[2])


def test_it_is_not_shared_where_that_takes_as_long():
    dispatcher = joined(Dispatcher(tasks(5, 2, 2)), "a")
    held = [task for _, task in dispatcher.assignments()]
    dispatcher.add([Task(0, 9, 7.0)])
    assert dispatcher.assignments() == []
    joined(dispatcher, "b")
    assert steps(dispatcher.assignments()) == [("b", 9)]
    assert dispatcher.wanted_back() is None  # 7 and 2 beside 5 and 2
    dispatcher.finished("b", dispatcher.held("b")[0])
    assert dispatcher.wanted_back() == ("a", held[2])


@drawn(
    count=st.integers(0, 20),
    arriving=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    look_ahead=st.integers(0, 3),
)
def test_however_late_they_come_nobody_holds_two_more_than_another(count, arriving, look_ahead):
    dispatcher = Dispatcher(tasks(*[1] * count), look_ahead=look_ahead)
    for turn, group in enumerate(arriving):
        joined(dispatcher, *(f"w{turn}.{each}" for each in range(group)))
        dispatcher.assignments()
        asked = 0
        while (wanted := dispatcher.wanted_back()) is not None:
            dispatcher.taken_back(*wanted, given=True)
            assert dispatcher.assignments()
            asked += 1
        assert asked <= count
        held = [len(dispatcher.held(worker)) for worker in dispatcher.workers]
        assert sum(held) == min(count, len(held) * (look_ahead + 1))
        assert max(held) - min(held) <= 1


def test_the_one_thing_that_a_worker_holds_is_not_asked_back():
    dispatcher = joined(Dispatcher(tasks(1)), "a", "b")
    dispatcher.assignments()
    assert dispatcher.wanted_back() is None


def test_what_a_dead_worker_had_begun_is_tried_alone_and_the_rest_anywhere():
    dispatcher = joined(Dispatcher(tasks(*[1] * 6)), "a", "b")
    given = dispatcher.assignments()
    first, second, third = (task for worker, task in given if worker == "a")
    dispatcher.begun("a", first)
    dispatcher.begun("a", second)
    assert dispatcher.lost("a") == []
    assert dispatcher.assignments() == []  # b is full
    of_b = dispatcher.held("b")
    dispatcher.finished("b", of_b[0])
    assert dispatcher.assignments() == []  # b is let run empty, for the suspects
    dispatcher.join("c")
    assert dispatcher.assignments() == [("c", first)]  # and nothing else
    dispatcher.finished("b", of_b[1])
    dispatcher.finished("b", of_b[2])
    assert dispatcher.assignments() == [("b", second)]
    dispatcher.finished("b", second)
    assert dispatcher.assignments() == [("b", third)]
    dispatcher.finished("c", first)
    dispatcher.finished("b", third)
    assert dispatcher.over


def test_a_step_that_kills_is_given_up_and_no_other():
    dispatcher = Dispatcher(tasks(3, 2, 1))
    deaths = 0
    given_up: list[Task] = []
    while not dispatcher.over:
        dispatcher.join("a")
        alive = True
        while alive and not dispatcher.over:
            dispatcher.assignments()
            task = dispatcher.held("a")[0]
            dispatcher.begun("a", task)
            if task.step == 1:
                given_up += dispatcher.lost("a")
                deaths += 1
                alive = False
            else:
                dispatcher.finished("a", task)
    assert [task.step for task in given_up] == [1]
    assert deaths == RETRIES + 2  # the first time it was not alone


def test_a_worker_that_dies_before_it_has_said_what_it_began():
    dispatcher = Dispatcher(tasks(2, 1))
    for _ in range(RETRIES + 1):
        dispatcher.join("a")
        dispatcher.assignments()
        assert dispatcher.lost("a") == []
    dispatcher.join("a")
    dispatcher.assignments()
    assert [task.step for task in dispatcher.lost("a")] == [0]


def test_a_lost_worker_s_answer_is_not_waited_for():
    dispatcher = joined(Dispatcher(tasks(1, 1, 1)), "a")
    held = [task for _, task in dispatcher.assignments()]
    dispatcher.join("b")
    assert dispatcher.wanted_back() == ("a", held[2])
    dispatcher.lost("a")
    dispatcher.taken_back("a", held[2], given=False)
    assert [task for _, task in dispatcher.assignments()] == [held[0]]


def on_hosts(dispatcher: Dispatcher, **hosts: str) -> Dispatcher:
    for worker, host in hosts.items():
        dispatcher.join(worker, host)
    return dispatcher


def test_a_suspect_waits_for_a_worker_of_another_host():
    dispatcher = on_hosts(Dispatcher(tasks(9, 1, 1, 1), look_ahead=1), bad="B", good="G")
    first = dispatcher.assignments()
    assert steps(first) == [("bad", 0), ("good", 1), ("good", 2), ("bad", 3)]
    dispatcher.begun("bad", first[0][1])
    assert dispatcher.lost("bad") == []
    dispatcher.join("bad again", "B")
    assert steps(dispatcher.assignments()) == [("bad again", 3)]  # not 0
    dispatcher.add([Task(0, 4, 1.0), Task(0, 5, 1.0)])
    assert steps(dispatcher.assignments()) == [("bad again", 4)]
    dispatcher.finished("good", first[1][1])
    assert dispatcher.assignments() == []  # it is let run empty
    dispatcher.finished("good", first[2][1])
    assert steps(dispatcher.assignments()) == [("good", 0)]


def test_where_no_other_host_is_left_a_suspect_goes_to_the_same():
    dispatcher = on_hosts(Dispatcher(tasks(1)), a="A", b="B")
    dispatcher.assignments()
    dispatcher.lost("a")
    dispatcher.join("a again", "A")
    dispatcher.lost("b")
    assert steps(dispatcher.assignments()) == [("a again", 0)]


def test_a_step_that_kills_everywhere_dies_in_turn_on_two_hosts_and_shuns_neither():
    dispatcher = on_hosts(Dispatcher(tasks(1)), w0="A", w1="B")
    died = []
    given_up: list[Task] = []
    while not dispatcher.over:
        ((worker, _),) = dispatcher.assignments()
        host = "AB"[int(worker[1:]) % 2]
        given_up += dispatcher.lost(worker)
        died.append(host)
        dispatcher.join(f"w{int(worker[1:]) + 2}", host)
    assert [task.step for task in given_up] == [0]
    assert len(died) == RETRIES + 1
    assert set(died) == {"A", "B"}
    assert not dispatcher.shuns("A")
    assert not dispatcher.shuns("B")


def test_on_one_host_that_is_not_alone_nothing_is_given_up():
    dispatcher = on_hosts(Dispatcher(tasks(1)), a0="A")
    for number in range(RETRIES):
        dispatcher.assignments()
        assert dispatcher.lost(f"a{number}") == []
        dispatcher.join(f"a{number + 1}", "A")
    ((worker, step),) = dispatcher.assignments()
    dispatcher.join("b", "B")
    assert dispatcher.lost(worker) == []  # B has not had it
    dispatcher.join("a again", "A")
    assert dispatcher.assignments() == [("b", step)]
    assert dispatcher.lost("b") == [step]


def test_what_a_machine_refused_is_done_on_another_once():
    dispatcher = on_hosts(Dispatcher(tasks(3, 2, 1, 1), look_ahead=0), a="A", b="B", a2="A")
    (_, first), (_, second), (_, third) = dispatcher.assignments()
    dispatcher.begun("a", first)
    assert dispatcher.refused("a", first)
    assert dispatcher.held("a") == ()
    assert steps(dispatcher.assignments()) == [("a", 3)]
    dispatcher.finished("a2", third)
    assert dispatcher.assignments() == []
    dispatcher.finished("b", second)
    assert dispatcher.assignments() == [("b", first)]
    assert not dispatcher.refused("b", first)
    dispatcher.finished("a", *dispatcher.held("a"))
    assert dispatcher.over


def test_what_the_only_machine_refused_is_over():
    dispatcher = on_hosts(Dispatcher(tasks(1, 1), look_ahead=0), a="A", a2="A")
    (_, first), (_, second) = dispatcher.assignments()
    assert not dispatcher.refused("a", first)
    with pytest.raises(ArgumentError, match="does not hold"):
        dispatcher.refused("a", first)
    assert not dispatcher.refused("a2", second)
    assert dispatcher.over


def test_a_host_is_shunned_whose_workers_die_one_after_the_other():
    dispatcher = on_hosts(Dispatcher(tasks(*[1] * 9), look_ahead=0), good="G", bad0="B")
    dispatcher.assignments()

    def dies(number: int) -> None:
        dispatcher.lost(f"bad{number}")
        dispatcher.join(f"bad{number + 1}", "B")
        dispatcher.assignments()

    for number in range(SHUN_AFTER - 1):
        dies(number)
        assert not dispatcher.shuns("B")
    # A step that is refused says nothing for the machine, and one that is done does.
    assert dispatcher.refused("bad2", dispatcher.held("bad2")[0])
    dispatcher.assignments()
    dies(2)
    assert dispatcher.shuns("B")
    assert not dispatcher.shuns("G")
    dispatcher.finished("good", dispatcher.held("good")[0])
    assert dispatcher.shuns("B")
    dispatcher.finished("bad3", dispatcher.held("bad3")[0])
    assert not dispatcher.shuns("B")
    for number in range(3, 3 + SHUN_AFTER):
        dies(number)
    assert dispatcher.shuns("B")
    dispatcher.lost("good")  # a bad machine is better than none
    assert not dispatcher.shuns("B")
    assert not dispatcher.shuns("never seen")


def test_two_bad_machines_excuse_each_other_until_a_good_one_did_what_they_died_with():
    blame = Blame()
    for task in tasks(*[1] * SHUN_AFTER):
        blame.died("B", [task], alone=True)
    assert blame.deaths("B") == SHUN_AFTER
    for task in tasks(*[1] * SHUN_AFTER):
        blame.died("C", [task], alone=True)
    assert blame.deaths("B") == blame.deaths("C") == 0
    for task in tasks(*[1] * SHUN_AFTER):
        blame.finished("G", task)
    assert blame.deaths("B") == blame.deaths("C") == SHUN_AFTER


def test_what_waits_for_another_host_does_not_keep_the_rest_from_who_is_idle():
    dispatcher = on_hosts(Dispatcher(tasks(*[1] * 4)), good="G", bad="B")
    given = dispatcher.assignments()
    assert steps(given) == [("good", 0), ("bad", 1), ("good", 2), ("bad", 3)]
    dispatcher.begun("good", given[0][1])
    dispatcher.begun("bad", given[1][1])
    dispatcher.begun("bad", given[3][1])
    dispatcher.lost("bad")
    dispatcher.join("bad again", "B")
    assert dispatcher.assignments() == []
    assert dispatcher.wanted_back() == ("good", given[2][1])
    dispatcher.taken_back("good", given[2][1], given=True)
    assert dispatcher.assignments() == [("bad again", given[2][1])]


def played(
    costs: list[float],
    hosts: dict[str, int],
    *,
    bad: str = "",
    refusing: str = "",
    poisoned: Collection[int] = (),
    hungry: Collection[int] = (),
    workers: int = 1,
    shunning: bool = False,
) -> tuple[set[int], set[int], dict[str, int]]:
    """A sweep on hosts that need so many ticks for a step, every dead worker replaced at once.

    Workers of `bad` hosts die after one tick, those of `refusing` ones refuse after one. A hungry
    step takes all memory of its host after one tick, and all workers there with it. With
    `shunning` whoever joins from a shunned host is dismissed, as long as it is.
    Returns the steps that are done, those that are not, and how many workers each host lost.
    """
    dispatcher = Dispatcher(tasks(*costs))
    running: dict[str, tuple[str, Task, int]] = {}  # host, what it computes, ticks left
    host_of: dict[str, str] = {}
    done: set[int] = set()
    failed: set[int] = set()
    lost = dict.fromkeys(hosts, 0)
    absent = [host for host in hosts for _ in range(workers)]

    def arrive() -> None:
        for host in tuple(absent):
            if not (shunning and dispatcher.shuns(host)):
                absent.remove(host)
                name = f"w{len(host_of)}"
                dispatcher.join(name, host)
                host_of[name] = host

    for _ in range(100_000):
        arrive()
        while dispatcher.assignments():
            pass
        if dispatcher.over:
            return done, failed, lost
        while (wanted := dispatcher.wanted_back()) is not None:
            dispatcher.taken_back(*wanted, given=True)
            dispatcher.assignments()
        for worker in dispatcher.workers:
            held = dispatcher.held(worker) if worker in dispatcher.workers else ()
            host = host_of[worker]
            if not held:
                continue
            for task in held[:2]:  # one is read while another is computed
                dispatcher.begun(worker, task)
            task = held[0]
            eats = task.step in hungry and host not in refusing
            fatal = eats or host in bad or (task.step in poisoned and host not in refusing)
            ticks = 1 if fatal or host in refusing else hosts[host]
            *_, before, left = running.get(worker, (host, task, ticks))
            left = (left if before == task else ticks) - 1
            running[worker] = (host, task, left)
            if left:
                continue
            del running[worker]
            if fatal:
                with_it = [each for each in dispatcher.workers if host_of[each] == host]
                for dead in with_it if eats else [worker]:
                    running.pop(dead, None)
                    failed |= {task.step for task in dispatcher.lost(dead)}
                    lost[host] += 1
                    absent.append(host)
                arrive()
            elif host in refusing:
                if not dispatcher.refused(worker, task):
                    failed.add(task.step)
            else:
                dispatcher.finished(worker, task)
                done.add(task.step)
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("shunning", [False, True])
def test_a_bad_machine_takes_no_innocent_step_with_it(shunning):
    hosts = {"G": 20, "B": 1}
    done, failed, lost = played([1.0] * 40, hosts, bad="B", shunning=shunning)
    assert done == set(range(40))
    assert not failed
    assert lost["G"] == 0
    if shunning:
        assert lost["B"] == SHUN_AFTER


@drawn(
    costs=st.lists(st.sampled_from([1.0, 2.0, 5.0]), max_size=25),
    good=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    bad=st.integers(0, 2),
    refusing=st.integers(0, 1),
    poisoned=st.sets(st.integers(0, 24), max_size=2),
    workers=st.integers(1, 3),
    shunning=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_whatever_machines_are_bad_the_good_ones_do_it_all(
    costs, good, bad, refusing, poisoned, workers, shunning
):
    # The only good host, if several steps kill there, can look as bad as the bad ones.
    if len(good) == 1 and poisoned:
        bad, shunning = min(bad, 1), False
    hosts = dict(zip("GHI", good, strict=False)) | dict.fromkeys("BC"[:bad], 1)
    hosts |= dict.fromkeys("R"[:refusing], 1)
    done, failed, lost = played(
        costs,
        hosts,
        bad="BC",
        refusing="R",
        poisoned=poisoned,
        workers=workers,
        shunning=shunning,
    )
    poisoned &= set(range(len(costs)))
    assert failed == poisoned
    assert done == set(range(len(costs))) - poisoned
    deaths = sum(lost[host] for host in hosts if host in "GHI")
    # Two that kill excuse each other once, and are then tried where nothing else is done.
    assert deaths <= (RETRIES + 3) * len(poisoned)


def test_a_step_that_takes_all_memory_fails_alone():
    """It kills every worker of its machine, each time; the steps beside it are tried elsewhen."""
    done, failed, _ = played([1.0] * 6, {"G": 3}, hungry=[0], workers=2)
    assert failed == {0}
    assert done == set(range(1, 6))


@drawn(
    costs=st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=1, max_size=25),
    hosts=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    hungry=st.sets(st.integers(0, 24), max_size=3),
    poisoned=st.sets(st.integers(0, 24), max_size=2),
    workers=st.integers(1, 4),
)
@settings(max_examples=300, deadline=None)
def test_whatever_takes_all_memory_no_innocent_step_fails(costs, hosts, hungry, poisoned, workers):
    done, failed, lost = played(
        costs,
        dict(zip("GHI", hosts, strict=False)),
        hungry=hungry,
        poisoned=poisoned,
        workers=workers,
    )
    guilty = (hungry | poisoned) & set(range(len(costs)))
    assert failed == guilty
    assert done == set(range(len(costs))) - guilty
    assert sum(lost.values()) <= workers * (2 * RETRIES + 4) * len(guilty)


def test_while_a_step_is_tried_quietly_its_machine_does_nothing_else():
    dispatcher = joined(Dispatcher(tasks(*[1] * 9), look_ahead=0), "a", "b")
    for turn in range(2):  # the second time alone, and in company
        first, second = dispatcher.assignments()
        for worker, task in (first, second):
            dispatcher.begun(worker, task)
            assert dispatcher.lost(worker) == []
        joined(dispatcher, "a", "b")
        assert {first[1].step, second[1].step} == {0, 1}, turn
    ((worker, task),) = dispatcher.assignments()
    assert task.step == 0
    assert dispatcher.wanted_back() is None
    dispatcher.finished(worker, task)
    ((worker, task),) = dispatcher.assignments()
    assert task.step == 1
    dispatcher.finished(worker, task)
    assert sorted(task.step for _, task in dispatcher.assignments()) == [2, 3]


def test_steps_that_turned_up_later():
    dispatcher = joined(Dispatcher([]), "a")
    assert dispatcher.over
    dispatcher.add([Task(0, 7, 1.0)])
    assert not dispatcher.over
    assert steps(dispatcher.assignments()) == [("a", 7)]


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_a_cost_is_a_number(cost):
    with pytest.raises(ArgumentError, match="cost"):
        Dispatcher([Task(0, 0, cost)])


def test_what_cannot_be():
    with pytest.raises(ArgumentError, match="look_ahead"):
        Dispatcher([], look_ahead=-1)
    dispatcher = joined(Dispatcher(tasks(1)), "a")
    with pytest.raises(ArgumentError, match="there already"):
        dispatcher.join("a")
    with pytest.raises(ArgumentError, match="given already"):
        dispatcher.add(tasks(2))
    with pytest.raises(ArgumentError, match="does not hold"):
        dispatcher.finished("a", Task(0, 0, 1.0))
    for ask in (dispatcher.lost, dispatcher.held):
        with pytest.raises(ArgumentError, match="no worker named 'b'"):
            ask("b")


@dataclass
class Death:
    """What a worker had begun, the step that was alone in it, and whether all else was idle."""

    host: str
    begun: list[Task]
    alone: Task | None
    quiet: bool
    excused: bool = False


class Deaths(RuleBasedStateMachine):
    """Workers that come, work, refuse, answer and die in any order.

    Poisoned steps kill for sure, and on the host X everything does.
    """

    @initialize(
        costs=st.lists(
            st.tuples(st.integers(0, 2), st.sampled_from([1.0, 1.5, 4.0])), min_size=3, max_size=12
        ),
        poisoned=st.sets(st.integers(0, 11), max_size=2),
        look_ahead=st.integers(0, 3),
    )
    def begin(self, costs: Any, poisoned: set[int], look_ahead: int) -> None:
        self.look_ahead = look_ahead
        self.all = [Task(model, step, cost) for step, (model, cost) in enumerate(costs)]
        self.poisoned = {task for task in self.all if task.step in poisoned}
        self.dispatcher = Dispatcher(self.all, look_ahead=look_ahead)
        self.held: dict[str, list[Task]] = {}
        self.begun: set[Task] = set()
        self.asked: set[tuple[str, Task]] = set()
        self.suspects: set[Task] = set()
        self.over: set[Task] = set()
        self.done: set[Task] = set()
        self.given_up: set[Task] = set()
        self.names = 0
        self.host: dict[str, str] = {}
        self.failed_on: dict[Task, Counter[str]] = {task: Counter() for task in self.all}
        self.died_on: dict[Task, set[str]] = {task: set() for task in self.all}
        self.refused_by: dict[Task, str] = {}
        self.died: list[Death] = []
        self.deaths: dict[str, list[Death]] = {host: [] for host in "ABX"}  # since one finished
        self.in_company: set[str] = set()
        self.need_quiet: set[Task] = set()
        self.quietly: dict[Task, str] = {}  # who was given a step where nothing else was done

    def died_alone(self, task: Task) -> list[str]:
        return [death.host for death in self.died if death.alone == task and not death.excused]

    @property
    def hosts(self) -> set[str]:
        return {self.host[name] for name in self.held}

    def shunned(self, host: str) -> bool:
        against = [
            death
            for death in self.deaths[host]
            if all(task in self.done or len(self.died_on[task]) < 2 for task in death.begun)
        ]
        return len(against) >= SHUN_AFTER and bool(self.hosts - {host})

    def is_quiet(self, workers: list[str]) -> bool:
        """Whether one of these has a step that is to be alone on its host."""
        return any(self.quietly.get(task) == each for each in workers for task in self.held[each])

    def beside(self, name: str) -> list[str]:
        """Who has something to do on the same host."""
        host = self.host[name]
        return [
            other
            for other in self.held
            if other != name and self.host[other] == host and self.held[other]
        ]

    def may_have(self, host: str, task: Task) -> bool:
        """Whether no other host has failed less often at a suspect."""
        times = self.failed_on[task]
        return times[host] == min(times[each] for each in self.hosts)

    @precondition(lambda self: len(self.held) < 4)
    @rule(host=st.sampled_from("ABX"))
    def join(self, host: str) -> None:
        self.names += 1
        self.dispatcher.join(f"w{self.names}", host)
        self.held[f"w{self.names}"] = []
        self.host[f"w{self.names}"] = host

    @rule()
    def hand_out(self) -> None:
        idle_before = {name for name, held in self.held.items() if not held}
        for name, task in self.dispatcher.assignments():
            assert task not in self.over
            assert all(task not in held for held in self.held.values())
            if task in self.suspects:
                assert name in idle_before
                assert not self.held[name]
                assert self.may_have(self.host[name], task)
            assert not self.suspects & set(self.held[name])
            others = self.beside(name)
            assert not self.is_quiet(others)
            if not self.held[name] and others:
                assert task not in self.need_quiet
                self.in_company |= {name, *others}
            if task in self.need_quiet:
                self.quietly[task] = name
            self.held[name].append(task)
        assert self.dispatcher.assignments() == []
        waiting = set(self.all) - self.over - {t for held in self.held.values() for t in held}
        for name in (name for name, held in self.held.items() if not held):
            host = self.host[name]
            if self.is_quiet(self.beside(name)):
                continue
            if any(self.may_have(host, task) for task in waiting & self.need_quiet):
                continue
            # Nobody is left without while something waits that he may have.
            assert waiting <= self.suspects
            for task in waiting - self.need_quiet:
                avoided = self.shunned(host) or self.refused_by.get(task) == host
                assert avoided or not self.may_have(host, task)
                assert len(self.hosts) > 1

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def begin_one(self, data: Any) -> None:
        name = data.draw(st.sampled_from([name for name, held in self.held.items() if held]))
        task = next((t for t in self.held[name] if t not in self.begun), None)
        if task is not None:
            self.dispatcher.begun(name, task)
            self.begun.add(task)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def finish_or_die(self, data: Any) -> None:
        name = data.draw(st.sampled_from([name for name, held in self.held.items() if held]))
        self.work(name)

    def work(self, name: str) -> None:
        task = self.held[name][0]
        if task in self.poisoned or self.host[name] == "X":
            self.die(name)
            return
        self.dispatcher.finished(name, task)
        self._finish(name, task)

    def _drop(self, name: str, task: Task) -> None:
        self.held[name].remove(task)
        if not self.held[name]:
            self.in_company.discard(name)

    def _finish(self, name: str, task: Task) -> None:
        self._drop(name, task)
        self.deaths[self.host[name]].clear()
        self.done.add(task)
        self._end(task)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def refuse(self, data: Any) -> None:
        name = data.draw(st.sampled_from([name for name, held in self.held.items() if held]))
        task = data.draw(st.sampled_from(self.held[name]))
        again = len(self.hosts) > 1 and task not in self.refused_by
        assert self.dispatcher.refused(name, task) == again
        if not again:
            self._finish(name, task)
            return
        self._drop(name, task)
        self.begun.discard(task)
        self.refused_by[task] = self.host[name]
        self.failed_on[task][self.host[name]] += 1
        self.suspects.add(task)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        self.die(data.draw(st.sampled_from(sorted(self.held))))

    def die(self, name: str) -> None:
        host, hosts = self.host[name], self.hosts
        held = self.held.pop(name)
        given_up = self.dispatcher.lost(name)
        blamed = [task for task in held if task in self.begun] or held[:1]
        alone = held[0] if len(held) == 1 else None
        self.died.append(Death(host, blamed, alone, name not in self.in_company))
        self.deaths[host].append(self.died[-1])
        for task in blamed:
            self.failed_on[task][host] += 1
            self.died_on[task].add(host)
        self._excuse([death for death in self.deaths[host] if death.begun and not death.quiet])
        assert given_up == [
            task
            for task in blamed
            if len(self.died_alone(task)) > RETRIES
            and (len(set(self.died_alone(task))) > 1 or len(hosts) == 1)
        ]
        assert len(held) == 1 or not given_up
        self.suspects |= set(blamed)
        for task in held:
            self.begun.discard(task)
        for task in given_up:
            self.given_up.add(task)
            self._end(task)

    def _excuse(self, together: list[Death]) -> None:
        """Nobody is blamed for deaths of which another step can have been the cause."""
        for death in together:
            if death.alone is None or death.excused:
                continue
            if any(death.alone not in each.begun for each in together):
                death.excused = True
                if sum(death.alone in each.begun for each in self.died) > 1:
                    self.need_quiet.add(death.alone)

    def _end(self, task: Task) -> None:
        assert task not in self.over
        self.over.add(task)
        self.suspects.discard(task)
        self.need_quiet.discard(task)
        self.begun.discard(task)

    @rule()
    def want_back(self) -> None:
        wanted = self.dispatcher.wanted_back()
        if wanted is None:
            return
        name, task = wanted
        assert task in self.held[name]
        assert task not in self.begun
        waiting = set(self.all) - self.over - {t for held in self.held.values() for t in held}
        assert waiting <= self.suspects
        fewest = min(map(len, self.held.values()))
        assert len(self.held[name]) >= fewest + 2
        if fewest:  # nobody is idle
            assert not waiting
            assert not any(each in self.held.get(who, ()) for who, each in self.asked)
            assert any(
                len(held) <= len(self.held[name]) - 2
                and held[-1].model == task.model
                and sum(each.cost for each in (*held, task))
                < sum(each.cost for each in self.held[name])
                for held in self.held.values()
            )
        assert wanted not in self.asked
        self.asked.add(wanted)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def answer(self, data: Any) -> None:
        self.give_back(*data.draw(st.sampled_from(sorted(self.asked, key=repr))))

    def give_back(self, name: str, task: Task) -> None:
        self.asked.remove((name, task))
        held = self.held.get(name, [])
        given = task in held and task not in self.begun
        if task in held and not given:
            self.begun.add(task)
        self.dispatcher.taken_back(name, task, given=given)
        if given:
            held.remove(task)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "all"):
            return
        assert set(self.dispatcher.workers) == set(self.held)
        for name, held in self.held.items():
            assert list(self.dispatcher.held(name)) == held
            assert len(held) <= 1 + self.look_ahead
        assert self.dispatcher.over == (len(self.over) == len(self.all))
        for host in "ABX":
            assert self.dispatcher.shuns(host) == self.shunned(host)

    def teardown(self) -> None:
        """From wherever it is, it comes to an end, and only what kills is given up.

        Whoever dies is replaced at once, on the same host.
        """
        if not hasattr(self, "all"):
            return
        kills: Counter[Task] = Counter()
        before = set(self.given_up)
        # What was killed alone on a good host had its chance there.
        unlucky = {task for task in self.all if set(self.died_alone(task)) - {"X"}}
        if not self.hosts - {"X"}:
            self.join("A")
        while not self.dispatcher.over:
            self.hand_out()
            self.want_back()
            while self.asked:
                self.give_back(*min(self.asked, key=repr))
                self.hand_out()
                self.want_back()
            # The bad ones first: it is they who do harm.
            busy = [name for name, held in self.held.items() if held]
            name = min(busy, key=lambda name: self.host[name] != "X")
            task = self.held[name][0]
            self.dispatcher.begun(name, task)
            self.begun.add(task)
            self.work(name)
            if name not in self.held:
                kills[task] += self.host[name] != "X"
                self.join(self.host[name])
            # One that was not alone, or was excused as the first; `RETRIES` in company that another
            # step's death excuses later; one of a worker that had the step already when it came to
            # need quiet; and those that count.
            assert kills[task] <= 1 + RETRIES + 1 + (RETRIES + 1)
        assert self.over == set(self.all)
        assert self.given_up - before <= self.poisoned | unlucky


TestDeaths = Deaths.TestCase
TestDeaths.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
