"""Models that some workers cannot hold: who gets their steps, and when nobody does."""

import pytest

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.dispatching.dispatch import RETRIES, Dispatcher, Task


def two_models(*, look_ahead: int = 0) -> Dispatcher:
    both = [Task(model, step, 2.0 - model) for model in (0, 1) for step in range(4)]
    dispatcher = Dispatcher(both, look_ahead=look_ahead)
    dispatcher.join("a", "small")
    dispatcher.join("b", "large")
    return dispatcher


def models(given: list[tuple[str, Task]]) -> list[tuple[str, int]]:
    return [(worker, task.model) for worker, task in given]


def test_who_cannot_hold_a_model_gets_steps_of_others():
    dispatcher = two_models(look_ahead=1)
    assert models(dispatcher.assignments()) == [("a", 0), ("b", 0), ("a", 0), ("b", 0)]
    dispatcher.unfit("a", 0)
    assert dispatcher.held("a") == ()
    assert models(dispatcher.assignments()) == [("a", 1), ("a", 1)]
    dispatcher.join("c", "small")  # as the first of its machine found
    assert models(dispatcher.assignments()) == [("c", 1), ("c", 1)]
    assert dispatcher.fits(0)
    assert dispatcher.hosts_without(0) == {"small"}
    assert dispatcher.hosts_without(1) == set()


def test_of_a_machine_that_holds_a_model_one_worker_alone_is_left_out():
    dispatcher = two_models()
    dispatcher.join("c", "large")
    given = dict(dispatcher.assignments())
    dispatcher.unfit("b", 0)
    assert dispatcher.hosts_without(0) == {"large"}
    dispatcher.unfit("a", 0)
    assert dispatcher.fits(0)  # "c" has not said yet that it cannot
    assert dispatcher.hosts_without(0) == {"small", "large"}
    dispatcher.begun("c", given["c"])
    assert dispatcher.hosts_without(0) == {"small"}
    dispatcher.finished("c", given["c"])
    assert models(dispatcher.assignments()) == [("a", 1), ("b", 1), ("c", 0)]
    dispatcher.join("d", "large")
    assert models(dispatcher.assignments()) == [("d", 0)]


def test_a_step_that_kills_fails_alone_though_no_other_machine_holds_its_model():
    dispatcher = Dispatcher([Task(0, step, 1.0) for step in range(4)], look_ahead=0)
    dispatcher.join("a", "small")
    dispatcher.assignments()
    dispatcher.unfit("a", 0)
    for number in range(RETRIES + 1):
        dispatcher.join(f"b{number}", "large")
        ((worker, task),) = dispatcher.assignments()
        assert task.step == 0
        dispatcher.begun(worker, task)
        given_up = dispatcher.lost(worker)
        assert not dispatcher.shuns("large")
    assert given_up == [Task(0, 0, 1.0)]
    dispatcher.join("c", "large")
    ((_, task),) = dispatcher.assignments()
    assert task.step == 1


def test_what_nobody_can_hold_is_given_up_and_the_rest_is_done():
    dispatcher = two_models()
    held = dict(dispatcher.assignments())
    dispatcher.begun("b", held["b"])
    dispatcher.lost("b")  # a suspect is given up as well
    assert dispatcher.fits(0)
    dispatcher.unfit("a", 0)
    assert not dispatcher.fits(0)
    assert sorted(task.step for task in dispatcher.give_up(0)) == [0, 1, 2, 3]
    assert dispatcher.give_up(0) == []
    done = 0
    while given := dispatcher.assignments():
        for worker, task in given:
            assert task.model == 1
            dispatcher.finished(worker, task)
            done += 1
    assert done == 4
    assert dispatcher.over


def test_a_suspect_waits_for_a_machine_that_can_hold_it():
    """Not for the one where nothing has died, which cannot."""
    dispatcher = Dispatcher([Task(0, 0, 1.0)])
    dispatcher.join("a", "large")
    ((_, task),) = dispatcher.assignments()
    dispatcher.begun("a", task)
    dispatcher.lost("a")
    dispatcher.join("b", "small")
    assert dispatcher.assignments() == [("b", task)]
    dispatcher.unfit("b", 0)
    assert dispatcher.assignments() == []
    dispatcher.join("c", "large")
    assert dispatcher.assignments() == [("c", task)]
    dispatcher.join("d", "small")
    dispatcher.lost("c")
    assert dispatcher.assignments() == []  # it was alone in "c", and is so in the next


def test_nothing_is_asked_back_that_no_idle_worker_can_hold():
    dispatcher = Dispatcher([Task(0, step, 1.0) for step in range(3)])
    dispatcher.join("a", "large")
    dispatcher.join("b", "small")
    dispatcher.assignments()
    dispatcher.unfit("b", 0)
    dispatcher.assignments()
    assert len(dispatcher.held("a")) == 3
    assert dispatcher.wanted_back() is None
    dispatcher.join("c", "large")
    wanted = dispatcher.wanted_back()
    assert wanted is not None
    assert wanted[0] == "a"


def test_of_what_a_worker_holds_that_is_asked_back_which_the_idle_one_can_do():
    dispatcher = Dispatcher([Task(1, 0, 9.0), Task(1, 1, 9.0), Task(0, 2, 1.0), Task(0, 3, 1.0)])
    dispatcher.join("a", "large")
    assert models(dispatcher.assignments()) == [("a", 1), ("a", 1), ("a", 0)]
    dispatcher.join("b", "small")
    assert models(dispatcher.assignments()) == [("b", 0)]
    dispatcher.unfit("b", 0)
    assert dispatcher.assignments() == []  # one of model 0 waits for "a"
    wanted = dispatcher.wanted_back()
    assert wanted == ("a", Task(1, 1, 9.0))
    dispatcher.taken_back(*wanted, given=True)
    assert models(dispatcher.assignments()) == [("b", 1), ("a", 0)]


def test_of_a_worker_that_is_not_there_nothing_is_taken():
    with pytest.raises(ArgumentError, match="no worker named 'x'"):
        two_models().unfit("x", 0)
