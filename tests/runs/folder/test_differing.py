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


def metric(**more: object) -> dict:
    own = {"name": "mine", "type": "m:Mine", "settings": {"k": 1}, "code": DIGEST}
    return {"metrics": [{"name": "perplexity", "code": None}, own | more]}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (metric(code=OTHER), "the code of the metric 'mine' is another"),
        (metric(code=None), "the code of the metric 'mine' is another"),
        (metric(settings={"k": 2}), "metric 'mine': settings.k: there 1, asked for 2"),
        (metric(type="n:Mine"), 'metric \'mine\': type: there "m:Mine", asked for "n:Mine"'),
        (metric(name="own"), 'metrics: there "perplexity, mine", asked for "perplexity, own"'),
        ({"metrics": ["mine"]}, "metrics: "),
        ({"metrics": None}, "metrics: "),
    ],
)
def test_of_metrics_it_is_told_which_and_what(asked: dict, said: str) -> None:
    assert differences(metric(), asked).startswith(said)


def rows(first: int, count: int, stride: int = 1) -> dict:
    return {"first": first, "count": count, "stride": stride}


@pytest.mark.parametrize(
    ("sequences", "said"),
    [
        (rows(0, 4), 'there "0:6", asked for "0:4"'),
        (rows(1, 3, 2), 'there "0:6", asked for "1:7:2"'),
        ("seen", 'there "0:6", asked for "seen"'),
    ],
)
def test_other_sequences_are_not_other_data(sequences: object, said: str) -> None:
    there = {"tokens": DIGEST, "sequences": rows(0, 6)}
    asked = {"tokens": OTHER, "sequences": sequences}
    assert differences(there, asked) == f"the sequences are others: {said}"
    assert differences(there, there | {"tokens": OTHER}) == "tokens: another"


def test_values_that_begin_alike_are_not_both_told() -> None:
    assert differences({"x": "y" * 100}, {"x": "y" * 101}) == "x: another"


def test_of_many_differences_the_first_are_told() -> None:
    told = differences({}, {str(i): i for i in range(100)})
    assert told.startswith("0: not there, but asked for 0; 1: not there")
    assert told.endswith("; and 94 more")
    assert len(told) < 300
