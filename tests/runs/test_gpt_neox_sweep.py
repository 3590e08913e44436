"""A sweep over GPT-NeoX's own checkpoints gives what one over the Hub's layout gives."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pythia_fast
from pythia_fast.core import File
from pythia_fast.errors import RunMismatchError
from pythia_fast.runs.forecast import rates
from pythia_fast.runs.steps.share import Dealt
from pythia_fast.runs.steps.todo import Todo
from pythia_fast.series import LocalSeries
from pythia_fast.series.gpt_neox import folder as gpt_neox
from pythia_fast.suite import Architecture
from pythia_fast.testing import make_gpt_neox_series, tiny_suite


@pytest.mark.parametrize(("ranks", "layout"), [(1, "layers"), (2, "ranks"), (4, "layers")])
def test_results_are_the_same(
    small_sweep, tiny: Architecture, tmp_path: Path, ranks: int, layout: Any
) -> None:
    steps = (0, 1, 2, 4, 8, 16)
    expected = small_sweep().to_pandas()
    folder = make_gpt_neox_series(
        tmp_path / "neox", tiny, steps, seed=7, model_parallel=ranks, layout=layout
    )
    found = small_sweep(model=folder, out=tmp_path / "neox-run").to_pandas()
    assert list(found["step"]) == list(expected["step"])
    values = [name for name in found.columns if found[name].dtype == np.float64]
    values += [name for name in found.columns if found[name].dtype == np.float32]
    assert values
    for name in values:
        assert np.array_equal(found[name], expected[name], equal_nan=True)


STEPS = (0, 1, 2, 4)
COPIES = {1: 0, 4: 2}


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Four steps of two ranks, two of which have the weights of others."""
    return tiny_suite(
        *(tmp_path / "neox",),
        steps=STEPS,
        layout="gpt-neox ranks",
        model_parallel=2,
        copies=COPIES,
    )


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose ranks are merged."""
    names: list[str] = []
    assemble = gpt_neox.assemble

    def assembling(parts: Any, source: Path) -> File:
        names.append(source.name)
        return assemble(parts, source)

    monkeypatch.setattr(gpt_neox, "assemble", assembling)
    return names


def duplicates(result: pythia_fast.SweepResult) -> dict[int, int | None]:
    return {row["step"]: row["duplicate_of"] for row in result.table.to_pylist()}


@pytest.mark.parametrize("planning", [pythia_fast.plan, pythia_fast.plan_cluster])
def test_a_plan_reads_the_ranks_and_merges_nothing(
    planning: Callable[..., Any],
    twins: Path,
    merged: list[str],
    tiny_ids: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates, "MEASURE_S", 0.001)
    found = planning(twins, tokens=tiny_ids)
    assert found.flops > 0
    assert merged == []


def test_of_twins_one_is_merged_and_computed(
    small_sweep: Callable[..., pythia_fast.SweepResult], twins: Path, merged: list[str]
) -> None:
    result = small_sweep(model=twins)
    assert merged == ["global_step0", "global_step2"]
    assert duplicates(result) == dict.fromkeys(STEPS) | COPIES
    loss = result.table["loss"].to_pylist()
    assert loss[0] == loss[1] != loss[2] == loss[3]
    assert small_sweep(model=twins).table.equals(result.table)
    assert len(merged) == 2, "all is there"


def test_a_twin_of_what_is_done_takes_its_results(
    small_sweep: Callable[..., pythia_fast.SweepResult], twins: Path, merged: list[str]
) -> None:
    small_sweep(model=twins, steps=[0])
    assert merged == ["global_step0"]
    result = small_sweep(model=twins, steps=[0, 1])
    assert merged == ["global_step0"]
    assert duplicates(result) == {0: None, 1: 0}


def test_a_twin_that_is_half_done_is_finished(
    small_sweep: Callable[..., pythia_fast.SweepResult], twins: Path, merged: list[str]
) -> None:
    both = {"model": twins, "metrics": ["perplexity", "memorization"], "steps": [0, 1]}
    whole = small_sweep(**both)
    for part in (whole.path / "parts" / "step=1").glob("memorization*"):
        part.unlink()
    again = small_sweep(**both)
    assert again.table.equals(whole.table)
    assert duplicates(again) == {0: None, 1: 0}
    assert merged == ["global_step0"]


def test_a_twin_whose_first_has_changed_since_is_refused(
    small_sweep: Callable[..., pythia_fast.SweepResult], twins: Path
) -> None:
    """Its results, and those of the first, are of other weights than both have now."""
    small_sweep(model=twins, steps=[0, 1])
    for step in (0, 1):
        shutil.rmtree(twins / f"global_step{step}")
        shutil.copytree(twins / "global_step2", twins / f"global_step{step}")
    with pytest.raises(RunMismatchError, match="weights of step 0 have changed"):
        small_sweep(model=twins, steps=[0, 1])


def test_a_twin_that_changes_before_it_takes_the_results_is_told_of(
    small_sweep: Callable[..., pythia_fast.SweepResult], twins: Path
) -> None:
    """What it took is of the weights that were compared, and so it is said to be."""

    class Changing(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict[str, Any]:
            if model.step == 0:
                shutil.rmtree(twins / "global_step1")
                shutil.copytree(twins / "global_step2", twins / "global_step1")
            return dict(super().__call__(model, batch))

    asked = {"model": twins, "metrics": [Changing()], "batch_tokens": 10_000}
    small_sweep(**asked)
    with pytest.raises(RunMismatchError, match="weights of step 1 have changed"):
        small_sweep(**asked)


@pytest.mark.parametrize("ranks", [1, 2])
def test_results_of_a_first_that_has_changed_meanwhile_are_not_taken(
    small_sweep: Callable[..., pythia_fast.SweepResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ranks: int,
) -> None:
    """After it was compared, before it is loaded, it becomes what step 2 is."""
    folder = tiny_suite(
        *(tmp_path / "neox",),
        steps=STEPS,
        layout="gpt-neox layers",
        model_parallel=ranks,
        copies=COPIES,
    )
    before = small_sweep(model=folder, out=tmp_path / "before").table["loss"].to_pylist()
    ahead = LocalSeries.ahead

    def changing(series: LocalSeries, steps: Sequence[int]) -> Any:
        if steps[0] == 0:
            shutil.rmtree(folder / "global_step0")
            shutil.copytree(folder / "global_step2", folder / "global_step0")
        return ahead(series, steps)

    monkeypatch.setattr(LocalSeries, "ahead", changing)
    result = small_sweep(model=folder)
    assert result.table["loss"].to_pylist() == [before[2], *before[1:]]
    assert duplicates(result) == {0: None, 1: None, 2: 0, 4: 2}
    assert small_sweep(model=folder).table.equals(result.table)


def test_where_the_first_cannot_be_computed_the_twin_is(
    small_sweep: Callable[..., pythia_fast.SweepResult],
    twins: Path,
    merged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = pythia_fast.series.GptNeoxSeries.open

    def opening(series: Any, step: int) -> Any:
        if step == 0:
            raise OSError("no room for what is merged")
        return opened(series, step)

    monkeypatch.setattr(pythia_fast.series.GptNeoxSeries, "open", opening)
    result = small_sweep(model=twins, on_error="skip")
    assert [failure.step for failure in result.failures] == [0]
    assert duplicates(result) == {1: None, 2: None, 4: 2}
    assert merged == ["global_step2", "global_step1"]


def test_a_twin_to_which_another_process_gave_results_meanwhile(
    small_sweep: Callable[..., pythia_fast.SweepResult],
    twins: Path,
    merged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody here has seen the weights that the two have in common."""
    survey = Todo.survey

    def overtaken(self: Todo, **dealt: Any) -> Dealt:
        surveyed = survey(self, **dealt)
        monkeypatch.setattr(Todo, "survey", survey)
        small_sweep(model=twins, steps=[1])
        small_sweep(model=twins, steps=[0, 1])
        return surveyed

    monkeypatch.setattr(Todo, "survey", overtaken)
    result = small_sweep(model=twins)
    assert duplicates(result) == {0: 1, 1: None, 2: None, 4: 2}
    assert merged == ["global_step1", "global_step2"]


def test_twins_stay_in_one_share(
    small_sweep: Callable[..., pythia_fast.SweepResult], twins: Path, merged: list[str]
) -> None:
    parts = [small_sweep(model=twins, worker=f"{index}/2") for index in (1, 2)]
    steps = sorted(sorted(part.table["step"].to_pylist()) for part in parts)
    assert steps == [[0, 1], [2, 4]]
    assert sorted(merged) == ["global_step0", "global_step2"]
