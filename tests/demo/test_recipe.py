from itertools import pairwise

import pytest

from pythia_fast.demo import Recipe
from pythia_fast.errors import ArgumentError


def test_what_is_saved_is_log_spaced_and_even():
    steps = Recipe().saved_steps
    assert steps[0] == 0
    assert steps[-1] == 600
    assert {2**i for i in range(10)} <= set(steps)
    assert set(range(0, 601, 50)) <= set(steps)
    assert list(steps) == sorted(set(steps))


def test_the_last_step_is_saved_whatever_its_number():
    assert Recipe(steps=77, repetitions=(0,)).saved_steps == (0, 1, 2, 4, 8, 16, 32, 50, 64, 77)


def test_the_learning_rate_rises_stays_and_falls():
    recipe = Recipe()
    rates = [recipe.learning_rate_at(step) for step in range(1, 601)]
    assert rates[0] == pytest.approx(recipe.learning_rate / 20)
    assert rates[19:360] == [recipe.learning_rate] * 341
    assert rates[-1] == pytest.approx(recipe.learning_rate / 240)
    assert all(later < earlier for earlier, later in pairwise(rates[360:]))


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"tokens": 60}, {"steps": 10}, {"canaries_each": 0}, {"save_every": 0}],
)
def test_a_recipe_that_cannot_be_made_is_refused(wrong):
    with pytest.raises(ArgumentError):
        Recipe(**wrong)
