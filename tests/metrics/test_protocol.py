"""Names, settings and summaries of metrics, a user's own among them."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import Memorization, Perplexity, identity, resolve, summarize
from pythia_fast.model import Model


class Length:
    """The smallest metric there can be."""

    name = "length"

    def __call__(self, model: Model, batch: object) -> dict:
        return {"length": batch.lengths_B}


def test_names_and_objects_resolve_in_canonical_order() -> None:
    own = Length()
    assert resolve([own, "memorization", Perplexity(per_token=True)]) == (
        Perplexity(per_token=True),
        Memorization(),
        own,
    )
    assert resolve("perplexity") == (Perplexity(),)
    assert resolve(own) == (own,)


@pytest.mark.parametrize("metrics", [[], "perplexty", [Perplexity(), "perplexity"], [3], [Length]])
def test_what_is_no_metric_is_refused(metrics: object) -> None:
    with pytest.raises(ArgumentError):
        resolve(metrics)


def test_a_name_that_is_no_file_name_is_refused() -> None:
    metric = Length()
    metric.name = "../x"
    with pytest.raises(ArgumentError, match="letters, digits"):
        resolve(metric)
    metric.name = "x" * 101
    with pytest.raises(ArgumentError, match=r"100 characters at most; x{40}… has 101"):
        resolve(metric)
    metric.name = "x" * 100
    assert resolve(metric) == (metric,)


def test_a_name_of_a_built_in_metric_is_for_its_kind_alone() -> None:
    own = Length()
    own.name = "perplexity"
    with pytest.raises(ArgumentError, match="give Length another `name`, or derive it from Perp"):
        resolve(own)

    class More(Perplexity):
        pass

    assert resolve(More())[0].name == "perplexity"


def test_settings_are_part_of_the_identity() -> None:
    assert identity(Memorization())["settings"] == {"prompt": 32, "continuation": 32}
    assert identity(Memorization(prompt=8)) != identity(Memorization())
    own = Length()
    own.layer = 3
    assert identity(own)["settings"] == {"layer": 3}


def test_plain_values_of_the_class_are_settings_too() -> None:
    """`k = 5` in the class is how most people write it; another k is another metric."""

    class TopK(Length):
        k = 5

    assert identity(TopK())["settings"] == {"k": 5}
    own = TopK()
    own.k = 1
    assert identity(own)["settings"] == {"k": 1}


def test_slots_are_settings_too() -> None:
    class Slotted:
        name = "slotted"
        __slots__ = ("k", "unset")

        def __init__(self, k: int) -> None:
            self.k = k

    assert identity(Slotted(3))["settings"] == {"k": 3}


@pytest.mark.parametrize("settings", [None, [1], 3])
def test_settings_that_are_no_dict_are_refused(settings: object) -> None:
    own = Length()
    own.settings = settings
    with pytest.raises(ArgumentError, match="is a dict"):
        identity(own)


def test_a_summary_that_is_no_dict_is_refused() -> None:
    own = Length()
    own.summarize = lambda sequences: None
    with pytest.raises(ArgumentError, match="a dict of names to numbers"):
        summarize(own, pa.table({"sequence": [1]}))


def test_a_setting_that_is_no_plain_value_is_refused() -> None:
    own = Length()
    own.probe = object()
    with pytest.raises(ArgumentError, match="settings"):
        identity(own)


def test_an_explicit_settings_property_wins() -> None:
    @dataclasses.dataclass
    class Probe(Length):
        weights: object

        @property
        def settings(self) -> dict:
            return {"probe": "v1"}

    assert identity(Probe(object()))["settings"] == {"probe": "v1"}


def test_the_default_summary_is_the_mean_of_each_number() -> None:
    table = pa.table({"sequence": [5, 6], "a": [1, 2], "b": [True, False], "word": ["x", "y"]})
    assert summarize(Length(), table) == {"a": 1.5, "b": 0.5}


def test_other_code_is_another_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual loop in a notebook: the class is changed, its name and settings are not."""
    codes = []
    for number in (1, 2):
        (tmp_path / f"own_{number}.py").write_text(
            f"class Own:\n    name = 'own'\n    def __call__(self, model, batch):\n"
            f"        return {{'x': batch.lengths_B * {number}}}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        codes.append(identity(__import__(f"own_{number}").Own())["code"])
    assert len(set(codes)) == 2
    assert None not in codes
    assert identity(Perplexity())["code"] is None
