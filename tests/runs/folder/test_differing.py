"""In what two specifications differ."""

import pytest

from pythia_fast.runs.folder.differing import differences

DIGEST, OTHER = "a" * 64, "b" * 64
THERE = {
    "model": "x",
    "limit": 3,
    "tasks": {"piqa": {"requests": DIGEST, "num_fewshot": 0}, "sciq": {"requests": DIGEST}},
}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (THERE | {"limit": 2}, "limit: there 3, asked for 2"),
        (THERE | {"limit": None}, "limit: there 3, asked for null"),
        (
            THERE | {"tasks": THERE["tasks"] | {"piqa": {"requests": OTHER, "num_fewshot": 1}}},
            "tasks.piqa.requests: another; tasks.piqa.num_fewshot: there 0, asked for 1",
        ),
        (
            THERE | {"tasks": {"sciq": {"requests": DIGEST}, "arc": {"requests": DIGEST}}},
            "tasks.arc: not there, but asked for; tasks.piqa: only there",
        ),
        ({key: THERE[key] for key in ("limit", "tasks")}, 'model: only there "x"'),
        (THERE | {"model": "y" * 100}, f'model: there "x", asked for "{"y" * 59}…'),
    ],
)
def test_only_what_differs_is_told(asked: dict, said: str) -> None:
    assert differences(THERE, asked) == said


def test_of_many_differences_the_first_are_told() -> None:
    told = differences({}, {str(i): i for i in range(100)})
    assert told.startswith("0: not there, but asked for 0; 1: not there")
    assert told.endswith("; and 94 more")
    assert len(told) < 300
