"""Who does what next: nothing lost, nothing done twice, whatever dies and whenever."""

from typing import Any

import pytest
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
from pythia_fast.runs.dispatch import KEEPS, LOOK_AHEAD, RETRIES, Dispatcher, Task


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


class Deaths(RuleBasedStateMachine):
    """Workers that come, work, answer and die in any order; poisoned steps kill for sure."""

    @initialize(
        costs=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1.0, 1.5, 4.0])), max_size=12),
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
        self.given_up: set[Task] = set()
        self.names = 0

    @precondition(lambda self: len(self.held) < 4)
    @rule()
    def join(self) -> None:
        self.names += 1
        self.dispatcher.join(f"w{self.names}")
        self.held[f"w{self.names}"] = []

    @rule()
    def hand_out(self) -> None:
        idle_before = {name for name, held in self.held.items() if not held}
        for name, task in self.dispatcher.assignments():
            assert task not in self.over
            assert all(task not in held for held in self.held.values())
            if task in self.suspects:
                assert name in idle_before
                assert not self.held[name]
            assert not self.suspects & set(self.held[name])
            self.held[name].append(task)
        assert self.dispatcher.assignments() == []
        waiting = set(self.all) - self.over - {t for held in self.held.values() for t in held}
        if waiting:  # nobody is left without while something waits
            assert all(self.held.values())

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
        task = self.held[name][0]
        if task in self.poisoned:
            self.die(name)
            return
        self.dispatcher.finished(name, task)
        self.held[name].remove(task)
        self._end(task)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        self.die(data.draw(st.sampled_from(sorted(self.held))))

    def die(self, name: str) -> None:
        held = self.held.pop(name)
        given_up = self.dispatcher.lost(name)
        blamed = [task for task in held if task in self.begun] or held[:1]
        assert set(given_up) <= (set(blamed) if len(held) == 1 else set())
        self.suspects |= set(blamed)
        for task in held:
            self.begun.discard(task)
        for task in given_up:
            self.given_up.add(task)
            self._end(task)

    def _end(self, task: Task) -> None:
        assert task not in self.over
        self.over.add(task)
        self.suspects.discard(task)
        self.begun.discard(task)

    @rule()
    def want_back(self) -> None:
        wanted = self.dispatcher.wanted_back()
        if wanted is None:
            return
        name, task = wanted
        assert task in self.held[name]
        assert task not in self.begun
        assert len(self.held[name]) > 1
        assert not all(self.held.values())
        assert wanted not in self.asked
        self.asked.add(wanted)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def answer(self, data: Any) -> None:
        name, task = data.draw(st.sampled_from(sorted(self.asked, key=repr)))
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

    def teardown(self) -> None:
        """From wherever it is, it comes to an end, and only what kills is given up."""
        if not hasattr(self, "all"):
            return
        self.kills = 0
        before = set(self.given_up)
        while not self.dispatcher.over:
            if not self.held:
                self.join()
            self.hand_out()
            name = next(name for name, held in self.held.items() if held)
            task = self.held[name][0]
            self.dispatcher.begun(name, task)
            self.begun.add(task)
            if task in self.poisoned:
                self.die(name)
                self.kills += 1
            else:
                self.dispatcher.finished(name, task)
                self.held[name].remove(task)
                self._end(task)
            assert self.kills <= (RETRIES + 2) * len(self.poisoned)
        assert self.over == set(self.all)
        assert self.given_up - before <= self.poisoned


TestDeaths = Deaths.TestCase
TestDeaths.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
