"""Who waits for whose results."""

from pythia_fast.runs.steps.waiting import Waiting


def test_those_that_wait_can_take_what_is_finished() -> None:
    waiting = Waiting()
    waiting.put([1, 2], 0)
    waiting.put([], 5)
    assert waiting.steps == (1, 2)
    waiting.finish(0, "abc")
    assert list(waiting.ready) == [(1, 0), (2, 0)]
    assert waiting.steps == (1, 2)
    assert waiting.finished_with("abc") == 0
    waiting.finish(7, "abc")
    assert waiting.finished_with("abc") == 0, "the first stays"
    waiting.finish(8, None)
    assert waiting.finished_with("def") is None


def test_one_after_the_other_is_tried() -> None:
    waiting = Waiting()
    waiting.put([1, 2], 0)
    assert waiting.following(0) == 1
    assert waiting.steps == (2,)
    assert waiting.following(1) == 2
    assert waiting.following(2) is None
    assert waiting.steps == ()


def test_damaged_results_are_taken_by_nobody() -> None:
    """One is computed, the others wait for it; those of other weights still take theirs."""
    waiting = Waiting()
    waiting.finish(0, "abc")
    waiting.let_take([1, 2, 3], 0)
    waiting.let_take([9], 8)
    assert waiting.ready.popleft() == (1, 0)
    waiting.instead(1, 0)
    assert waiting.finished_with("abc") is None
    assert list(waiting.ready) == [(9, 8)]
    waiting.finish(1, "abc")
    assert list(waiting.ready) == [(9, 8), (2, 1), (3, 1)]
