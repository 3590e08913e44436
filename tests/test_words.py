"""Names in messages."""

import pytest

from pythia_fast.words import alike, listed, near, near_are, nearest


@pytest.mark.parametrize(
    ("things", "most", "said"),
    [
        ([], 2, ""),
        ([7], 2, "7"),
        (range(2), 2, "0, 1"),
        (range(3), 2, "0, 1 and 1 more"),
        ((name for name in "abcdef"), 3, "a, b, c and 3 more"),
        ("ab", 1, "a and 1 more"),
        (range(2001), 1, "0 and 2,000 more"),
    ],
)
def test_the_first_are_named_and_how_many_more_there_are(things, most, said):
    assert listed(things, most) == said


def test_five_are_named_where_nobody_says_how_many():
    assert listed(range(7)) == "0, 1, 2, 3, 4 and 2 more"


@pytest.mark.parametrize(
    ("things", "said"),
    [(["a, b", "c"], "a, b; c"), (["a, b", "c", "d"], "a, b; c; and 1 more")],
)
def test_what_holds_commas_is_parted_otherwise(things, said):
    assert listed(things, 2, between="; ") == said


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("sciqq", ["piqa", "sciq"], "no task 'sciqq'; near is sciq"),
        ("ROLLING", ["piqa", "local_rolling"], "no task 'ROLLING'; near is local_rolling"),
        ("charm", ["b", "a", "b"], "no task 'charm'; there are b, a"),
        ("", list("abcdef"), "no task ''; there are a, b, c, d, e and 1 more"),
        (3, [], "no task 3"),
        ("charm", ["b"], "no task 'charm'; there is b"),
        ("task", [f"task{i}" for i in range(9)], "near are task8, task7, task6, task5, task4"),
    ],
)
def test_the_nearest_names_are_told(name, known, said):
    assert nearest("task", name, known).endswith(said)


def test_near_is_what_looks_alike_or_else_has_the_name_within():
    assert near("sciqq", ["sciq", "piqa"]) == near_are(["sciq"]) == "; near is sciq"
    assert near("local", ["local_a", "local_b"]) == "; near are local_b, local_a"
    assert near("charm", ["b"]) == near_are([]) == ""


def test_no_more_look_alike_than_are_asked_for():
    assert alike("task", [f"task{i}" for i in range(9)], 2) == ["task8", "task7"]
    assert alike("wi", ["within them", "within us", "b"], 1) == ["within them"]
