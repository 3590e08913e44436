"""What hashes alone give away, on listings made up for it."""

from collections.abc import Mapping

import pytest

from pythia_fast.auditing.files import file_findings
from pythia_fast.auditing.findings import Finding, explained
from pythia_fast.auditing.listing import Listed
from pythia_fast.errors import FormatError, MissingCheckpointError
from pythia_fast.hub.files import HubFile
from pythia_fast.suite import Architecture, anomalies, spec

SIZE = 1_000_000
LAST = 143_000


def listed(
    step: int | None, files: Mapping[str, str | None], read: str = "", size: int = SIZE
) -> Listed:
    every = tuple(HubFile(name, size, digest) for name, digest in files.items())
    chosen = tuple(name for name in files if not read or name.startswith(read))
    return Listed(step, every, () if step is None else chosen)


def audited(*steps: Listed, tiny: Architecture, model: str | None = None) -> list[Finding]:
    found = list(file_findings(steps, tiny, LAST))
    audited = [each.step for each in steps if each.step is not None]
    return explained(found, anomalies(model) if model else (), audited)


def test_nothing_is_found_where_nothing_is(tiny: Architecture) -> None:
    steps = [listed(step, {"pytorch_model.bin": f"of {step}"}) for step in (0, 1, 2, LAST)]
    main = listed(None, {"pytorch_model.bin": f"of {LAST}"})
    assert audited(*steps, main, tiny=tiny) == []


@pytest.mark.parametrize("model", ["70m", None])
def test_the_first_iteration_changes_nothing(model: str | None, tiny: Architecture) -> None:
    steps = [
        listed(s, {"a.bin": "x" if s < 2 else str(s), "b.bin": f"b{s // 2}"}) for s in (0, 1, 2)
    ]
    [found] = audited(*steps, tiny=tiny, model=model)
    assert (found.severity, found.kind, found.steps) == ("expected", "same weights", (0, 1))
    assert found.files == ("a.bin", "b.bin")
    assert found.issue == (spec_issue(83) if model else None)
    elsewhere = [listed(s, {"a.bin": "x"}) for s in (1, 2)]
    [found] = audited(*elsewhere, tiny=tiny, model=model)
    assert (found.severity, found.issue) == ("error", None)


def test_the_final_model_under_the_name_of_an_early_step(tiny: Architecture) -> None:
    name = "model.safetensors"
    steps = [
        listed(0, {"pytorch_model.bin": "0", name: "final"}, "pytorch"),
        listed(1_000, {"pytorch_model.bin": "1000", name: "final"}, "pytorch"),
        listed(54_000, {"pytorch_model.bin": "54", name: "second"}, "pytorch"),
        listed(56_000, {"pytorch_model.bin": "56", name: "second"}, "pytorch"),
        listed(60_000, {"pytorch_model.bin": "60", name: "its own"}, "pytorch"),
        listed(None, {"pytorch_model.bin": "final bin", name: "final"}),
    ]
    first, second = audited(*steps, tiny=tiny, model="2.8b")
    assert (first.steps, second.steps) == ((0, 1_000), (54_000, 56_000))
    assert {first.kind, second.kind} == {"shared file"}
    assert "final model" in first.meaning
    assert "in common" in second.meaning
    assert first.files == (name,)
    assert first.advice.startswith("this package reads pytorch_model.bin instead")
    assert first.issue == second.issue == spec_issue(205)
    assert first.anomaly != second.anomaly
    assert {first.severity, second.severity} == {"error"}


def test_one_shard_of_the_final_model(tiny: Architecture) -> None:
    def shards(first: str, rest: str) -> dict[str, str]:
        return {
            f"pytorch_model-0000{n}-of-00003.bin": first if n == 1 else f"{rest}{n}"
            for n in (1, 2, 3)
        }

    steps = [
        listed(50_000, shards("final1", "50")),
        listed(51_000, shards("51", "51")),
        listed(58_000, shards("final1", "58")),
        listed(LAST, shards("final1", "final")),
        listed(None, shards("final1", "final")),
    ]
    [found] = audited(*steps, tiny=tiny, model="12b")
    assert (found.kind, found.steps) == ("shared file", (50_000, 58_000))
    assert found.files == ("pytorch_model-00001-of-00003.bin",)
    assert found.issue == spec_issue(206)
    assert found.advice == "do not use these steps"


def test_a_shard_of_another_step_under_another_name(tiny: Architecture) -> None:
    steps = [
        listed(
            1, {"model-00001-of-00002.safetensors": "a", "model-00002-of-00002.safetensors": "b"}
        ),
        listed(
            2, {"model-00001-of-00002.safetensors": "c", "model-00002-of-00002.safetensors": "a"}
        ),
    ]
    [found] = audited(*steps, tiny=tiny)
    assert (found.kind, found.steps, len(found.files)) == ("shared file", (1, 2), 2)


def test_a_shard_that_is_there_twice(tiny: Architecture) -> None:
    [found] = audited(listed(1, {"x.bin": "a", "y.bin": "a"}), tiny=tiny)
    assert (found.kind, found.files) == ("repeated file", ("x.bin", "y.bin"))


def test_missing_and_malformed_steps(tiny: Architecture) -> None:
    missing = Listed(111_000, (), (), error=MissingCheckpointError("no weights"))
    broken = Listed(5, (), (), error=FormatError("index.json", "nonsense"))
    found = audited(missing, broken, tiny=tiny, model="410m-seed2")
    assert [(f.kind, f.steps, f.issue) for f in found if f.kind in ("missing", "unreadable")] == [
        ("unreadable", (5,), None),
        ("missing", (111_000,), spec_issue(202)),
    ]


def test_sizes(tiny: Architecture) -> None:
    least = 2 * tiny.parameters
    steps = [listed(s, {"x.bin": str(s)}, size=least + 1000) for s in range(5)]
    steps += [
        listed(6, {"x.bin": "6"}, size=least - 1),
        listed(7, {"x.bin": "7"}, size=2 * least),
        listed(8, {"x.safetensors": "8"}, size=least),
    ]
    found = {each.kind: each.steps for each in audited(*steps, tiny=tiny)}
    assert found == {"too small": (6,), "other size": (7,), "other layout": (8,)}


def test_other_layouts_are_no_mistake(tiny: Architecture) -> None:
    one = [listed(s, {"x.bin": str(s)}) for s in (0, 2, 4)]
    two = [listed(s, {"a.bin": f"a{s}", "b.bin": f"b{s}"}, size=SIZE // 2) for s in (1, 3)]
    [found] = audited(*one, *two, tiny=tiny)
    assert (found.severity, found.kind, found.steps) == ("expected", "other layout", (1, 3))


def test_a_file_without_a_checksum(tiny: Architecture) -> None:
    [found] = audited(listed(1, {"x.bin": None}), listed(2, {"x.bin": None}), tiny=tiny)[:1]
    assert (found.severity, found.kind, found.files) == ("warning", "no checksum", ("x.bin",))


def test_what_files_cannot_show_is_said_all_the_same(tiny: Architecture) -> None:
    steps = [listed(step, {"x.bin": str(step)}) for step in (0, 4, 1000)]
    [found] = audited(*steps, tiny=tiny, model="160m-weight-seed1")
    assert (found.severity, found.kind, found.issue) == ("warning", "reported", spec_issue(203))
    assert found.steps == (4, 1000), "of those that were looked at"


@pytest.mark.parametrize("steps", [(0,), (4,), (1, 4, 1000)])
def test_a_seam_that_no_audited_steps_lie_across_is_not_reported(
    steps: tuple[int, ...], tiny: Architecture
) -> None:
    listings = [listed(step, {"x.bin": str(step)}) for step in steps]
    assert audited(*listings, tiny=tiny, model="160m-weight-seed1") == []


def test_the_last_norm_of_gpt_neox_says_nothing(tiny: Architecture) -> None:
    """A file of its own, the same for all ranks, and for all steps until it begins to move."""

    def files(step: int, norm: str = "constant") -> dict[str, str]:
        layers = (0, 2, 3, tiny.layers + 4)
        found = {name(layer, rank): f"{step} {layer} {rank}" for layer in layers for rank in (0, 1)}
        return found | {name(tiny.layers + 3, rank): norm for rank in (0, 1)}

    def name(layer: int, rank: int) -> str:
        return f"layer_{layer:02}-model_{rank:02}-model_states.pt"

    assert audited(*(listed(step, files(step)) for step in (0, 1, 2)), tiny=tiny) == []
    copied = [listed(0, files(0)), listed(1, files(0)), listed(2, files(2))]
    [found] = audited(*copied, tiny=tiny)
    assert (found.kind, found.steps, found.severity) == ("same weights", (0, 1), "expected")
    moved = [listed(0, files(0)), listed(1, files(0, norm="moved")), listed(2, files(2))]
    [found] = audited(*moved, tiny=tiny)
    assert (found.kind, found.steps) == ("shared file", (0, 1))
    one = files(5) | {name(3, 1): "5 3 0"}
    [found] = audited(listed(5, one), tiny=tiny)
    assert (found.kind, found.files) == ("repeated file", (name(3, 0), name(3, 1)))


def spec_issue(number: int) -> str:
    assert spec("70m").name == "70m"
    return f"https://github.com/EleutherAI/pythia/issues/{number}"
