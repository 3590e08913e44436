"""Trained series pass, whatever way they take; what does not belong into them is found."""

import math
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pythia_fast.auditing import AuditReport, Finding, audit
from pythia_fast.auditing.continuity import Distances, continuity_findings
from pythia_fast.auditing.reading import Tensor, read_checkpoint
from pythia_fast.series import LocalSeries
from pythia_fast.testing import random_state_dict, tiny_suite

NAME = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
UNEXPECTED = ("out of place", "jump")


def deep(folder: Path, steps: str = "all") -> AuditReport:
    return audit(folder, steps, deep=True, progress=False)


def copied(trained: Path, to: Path) -> Path:
    return Path(shutil.copytree(trained, to / "copy"))


def walk(points: list[np.ndarray]) -> list[str]:
    distances = Distances()
    for step, values in enumerate(points):
        tensor = Tensor("F32", str(step), 0, 0, False, values.astype(np.float32))
        distances.add(step, {NAME: tensor})
    return [f"{each.kind} {each.steps}" for each in continuity_findings(distances)]


def test_a_trained_series_passes(trained: Path) -> None:
    assert [each.meaning for each in deep(trained).findings] == []


@pytest.mark.parametrize("steps", ["log", "0:81:8", "16:81:4", "0,1,2,40,44,80"])
def test_a_part_of_it_passes(trained: Path, steps: str) -> None:
    assert [each.meaning for each in deep(trained, steps).findings] == []


def test_a_made_up_suite_passes(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", layout="torch")
    assert [each.meaning for each in deep(suite).findings] == []


@pytest.fixture(scope="module")
def read(trained: Path) -> dict[int, Mapping[str, Tensor]]:
    """The trained series, each checkpoint read once."""
    series = LocalSeries(trained)
    with ThreadPoolExecutor(2) as pool:
        return {step: read_checkpoint(series.open(step), pool) for step in series.steps}


def found_in(
    places: Sequence[int], contents: Sequence[int], read: Mapping[int, Mapping[str, Tensor]]
) -> list[Finding]:
    distances = Distances()
    for place, content in zip(places, contents, strict=True):
        distances.add(place, read[content])
    return list(continuity_findings(distances))


def test_no_choice_of_trained_steps_is_suspected(read: dict[int, Mapping[str, Tensor]]) -> None:
    random = np.random.default_rng(1)
    steps = np.array(sorted(read))
    for _ in range(60):
        size = random.integers(3, len(steps), endpoint=True)
        chosen = sorted(random.choice(steps, size, replace=False).tolist())
        assert found_in(chosen, chosen, read) == [], chosen


def test_nearly_all_swaps_of_steps_that_are_not_near_are_found(
    read: dict[int, Mapping[str, Tensor]],
) -> None:
    random = np.random.default_rng(2)
    steps = sorted(read)
    swaps = [(i, j) for i in range(1, len(steps)) for j in range(i + 6, len(steps))]
    tried = random.choice(swaps, 50, replace=False).tolist()
    found = 0
    for i, j in tried:
        contents = list(steps)
        contents[i], contents[j] = contents[j], contents[i]
        findings = found_in(steps, contents, read)
        suspected = {step for each in findings for step in each.steps}
        found += bool({steps[i], steps[j]} & suspected)
    assert found >= 0.95 * len(tried)


@pytest.mark.parametrize(("one", "other"), [(20, 80), (8, 48), (24, 56)])
def test_two_steps_that_changed_places(trained: Path, tmp_path: Path, one: int, other: int) -> None:
    folder = copied(trained, tmp_path)
    (folder / f"step{one}").rename(folder / "held")
    (folder / f"step{other}").rename(folder / f"step{one}")
    (folder / "held").rename(folder / f"step{other}")
    found = [each for each in deep(folder).findings if each.kind == "out of place"]
    inner = {step for step in (one, other) if step != 80}  # the last has one neighbour only
    assert {step for each in found for step in each.steps} == inner
    assert {each.severity for each in found} == {"error"}


def test_a_foreign_shard_among_good_ones(trained: Path, tmp_path: Path) -> None:
    """As in 12b at step 50000: the input embedding and the first layer are another step's."""
    from safetensors.torch import load_file, save_file

    folder = copied(trained, tmp_path)
    weights = load_file(folder / "step40/model.safetensors")
    for name, tensor in load_file(folder / "step80/model.safetensors").items():
        if "embed_in" in name or "layers.0." in name:
            weights[name] = tensor
    save_file(weights, folder / "step40/model.safetensors")
    report = deep(folder)
    places = [each for each in report.findings if each.kind == "out of place"]
    assert [each.steps for each in places] == [(40,)]
    assert set(places[0].tensors) <= {"embed_in", "layers.0.attention", "layers.0.mlp"}
    [shared] = [each for each in report.findings if each.kind == "shared tensor"]
    assert shared.steps == (40, 80)
    assert all("embed_in" in name or "layers.0." in name for name in shared.tensors)
    assert report.exit_code == 4


def test_a_start_that_is_another_runs(trained: Path, tmp_path: Path) -> None:
    from pythia_fast.series import write_checkpoint

    folder = copied(trained, tmp_path)
    architecture = LocalSeries(folder).spec.architecture
    shutil.rmtree(folder / "step0")
    write_checkpoint(folder / "step0", random_state_dict(architecture, seed=9), architecture)
    found = [each for each in deep(folder).findings if each.kind in UNEXPECTED]
    assert [(each.kind, each.steps) for each in found] == [("jump", (0, 1))]
    assert len(found[0].tensors) >= 4


@pytest.mark.parametrize("seed", range(5))
def test_ways_that_training_may_take(seed: int) -> None:
    random = np.random.default_rng(seed)
    start, direction = random.normal(size=(2, 5000))
    strides = random.normal(size=(40, 5000)) * 0.05
    assert walk([start + 0.05 * n * direction for n in range(40)]) == [], "straight"
    assert walk(list(start + np.cumsum(strides, axis=0))) == [], "at random"
    assert walk(list(start + strides)) == [], "noise around one place"
    turning = [math.cos(n / 6) * start + math.sin(n / 6) * direction for n in range(40)]
    assert walk(turning) == [], "in a circle"
    growing = [start + direction * 1e-3 * 1.5**n for n in range(15)]
    assert walk(growing) == [], "faster and faster, as in a warm-up"
    still = [start + direction * 0.3 * (1 - 0.8**n) for n in range(40)]
    assert walk(still) == [], "slower and slower"


def test_what_stands_still_or_is_not_finite_is_passed_over() -> None:
    start = np.ones(100)
    assert walk([start] * 9) == []
    assert walk([np.zeros(100)] * 9) == []
    broken = start.copy()
    broken[3] = np.nan
    assert walk([start, start, broken, start, start, start, start]) == []


def test_a_good_step_between_two_copies_is_not_accused() -> None:
    random = np.random.default_rng(0)
    start, direction = random.normal(size=(2, 5000))
    points = [start + 0.05 * n * direction for n in range(12)]
    points[4] = points[6]
    assert walk(points) == []
    rounded = [*points[:4], points[6] * (1 + 2.0**-12), *points[5:]]
    assert walk(rounded) == []


def test_a_series_that_goes_on_from_another_one() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 5000))
    strides = np.cumsum(random.normal(size=(20, 5000)) * 0.02, axis=0)
    assert walk([*(first + strides[:10]), *(second + strides[10:])]) == ["jump (9, 10)"]


def test_distances_are_those_of_torch(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 4, 8), layout="torch")
    table = deep(suite).distances.to_pylist()
    assert len(table) == 2 * (2 + 2 * 2)
    load = {
        step: torch.load(suite / f"step{step}/pytorch_model.bin", weights_only=True)
        for step in (0, 4, 8)
    }
    for row in table:
        prefix = row["group"]
        a, b = (
            torch.cat(
                [
                    tensor.double().flatten()
                    for name, tensor in load[row[end]].items()
                    if prefix in name and tensor.ndim == 2
                ]
            )
            for end in ("step", "following")
        )
        expected = (b - a).norm() / max(a.norm(), b.norm())
        assert row["distance"] == pytest.approx(expected.item(), rel=1e-9)
