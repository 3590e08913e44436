"""Several models in one sweep: as if each had a call of its own, but checked together first."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pythia_fast
from pythia_fast.errors import (
    ArgumentError,
    MissingCheckpointError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
    TokenRangeError,
    UnknownModelError,
    UnknownStepError,
)
from pythia_fast.runs.folder.parts import runs_in
from pythia_fast.runs.local import LocalEngine
from pythia_fast.series import Checkpoint, LocalSeries
from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series

STEPS = (0, 1, 4)
SHAPES = {"wide": (1, 128, 8), "deep": (3, 32, 4), "tiny": (2, 64, 4)}
BY_SIZE = ["deep", "tiny", "wide"]
Several = Callable[..., pythia_fast.SweepResults]


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three models of other shapes, two with the same steps. Not to be written to."""
    folder = tmp_path_factory.mktemp("suites")
    shape = {"vocab_rows": 160, "rotary_dims": 4, "max_positions": 128}
    return {
        name: make_series(
            folder / name,
            Architecture(layers=layers, width=width, heads=heads, intermediate=4 * width, **shape),
            STEPS,
            seed=seed,
        )
        for seed, (name, (layers, width, heads)) in enumerate(SHAPES.items())
    }


@pytest.fixture
def several(suites: dict[str, Path], tiny_ids: np.ndarray, tmp_path: Path) -> Several:
    """Sweep all three into `tmp_path / "runs"`; any argument may be replaced."""

    def run(**changes: Any) -> pythia_fast.SweepResults:
        arguments: dict[str, Any] = {"model": list(suites.values()), "tokens": tiny_ids}
        arguments |= {"out": tmp_path / "runs", "progress": False, "dtype": "float32"}
        return pythia_fast.sweep(**(arguments | changes))

    return run


@pytest.fixture
def copies(suites: dict[str, Path], tmp_path: Path) -> list[Path]:
    """The three to be written to."""
    return [Path(shutil.copytree(path, tmp_path / "own" / path.name)) for path in suites.values()]


def break_step(series: Path, step: int) -> None:
    """Cut off the end of a step's weights."""
    (file,) = [path for path in (series / f"step{step}").iterdir() if "model" in path.name]
    file.write_bytes(file.read_bytes()[:-100])


def computed(runs: Path) -> set[tuple[str, int]]:
    """Which steps of which models have any result."""
    return {
        (path.parts[-4], int(path.parts[-2].removeprefix("step=")))
        for path in runs.glob("*/parts/step=*/*.parquet")
    }


def test_each_model_has_what_a_call_of_its_own_gives(
    several: Several, suites: dict[str, Path], tiny_ids: np.ndarray, tmp_path: Path
) -> None:
    metrics = ("perplexity", "memorization")
    results = several(metrics=metrics, sequences=7)
    assert list(results) == list(suites)
    assert results.path == tmp_path / "runs"
    for name, series in suites.items():
        alone = pythia_fast.sweep(
            series,
            tokens=tiny_ids,
            metrics=metrics,
            sequences=7,
            dtype="float32",
            out=tmp_path / "alone" / name,
            progress=False,
        )
        assert results[name].path == tmp_path / "runs" / name
        assert results[name].record["hash"] == alone.record["hash"]
        assert results[name].table.equals(alone.table)
        assert results[name].sequences.equals(alone.sequences)


def test_tables_hold_all_models_in_order(several: Several) -> None:
    results = several(metrics=("perplexity", "memorization"), sequences=5)
    keys = [(row["model"], row["step"], row["metric"]) for row in results.table.to_pylist()]
    assert keys == [
        (name, step, metric)
        for name in SHAPES
        for step in STEPS
        for metric in ("perplexity", "memorization")
    ]
    for name, result in results.items():
        of_it = pa.compute.equal(results.table["model"], name)
        assert results.table.filter(of_it).to_pylist() == result.table.to_pylist()
        of_it = pa.compute.equal(results.sequences["model"], name)
        assert results.sequences.filter(of_it).drop_columns("model").equals(result.sequences)
    assert results.table.column_names == result.table.column_names
    assert results.sequences.column_names[:3] == ["model", "step", "sequence"]
    assert len(results.sequences) == 3 * 3 * 5
    assert results.times["model"].to_pylist() == [name for name in SHAPES for _ in STEPS]
    assert results.times["step"].to_pylist() == list(STEPS) * 3
    assert min(results.times["compute_s"].to_pylist()) > 0
    assert (results.failures, results.gaps, results.remarks) == ({}, {}, {})
    levels = results.intervals(0.9)
    assert levels["model"].to_pylist() == results.table["model"].to_pylist()
    assert set(levels["level"].to_pylist()) == {0.9}


def test_a_default_folder_is_the_one_of_a_call_of_its_own(
    several: Several,
    suites: dict[str, Path],
    tiny_ids: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments: dict[str, Any] = {"cache_dir": tmp_path / "cache", "out": None, "steps": [0]}
    results = several(**arguments)
    assert results.path is None
    assert {result.path.parent for result in results.values()} == {tmp_path / "cache" / "runs"}
    alone = several(**arguments, model=suites["tiny"], progress=True)
    assert isinstance(alone, pythia_fast.SweepResult)
    assert alone.path == results["tiny"].path
    assert "nothing left to compute" in capsys.readouterr().err
    anew = several(**arguments, resume=False)
    assert not {each.path for each in anew.values()} & {each.path for each in results.values()}
    assert anew.table.equals(results.table)


def test_a_list_of_one_is_several_too(several: Several, suites: dict[str, Path]) -> None:
    results = several(model=(str(suites["tiny"]),), steps=[0])
    assert isinstance(results, pythia_fast.SweepResults)
    assert results["tiny"].path.parent == results.path


def test_the_same_call_goes_on(
    several: Several, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = several()
    shutil.rmtree(tmp_path / "runs/deep/parts/step=4")
    shutil.rmtree(tmp_path / "runs/tiny")
    again = several(progress=True)
    assert again.table.equals(first.table)
    lines = capsys.readouterr().err.splitlines()
    assert f"wide: nothing left to compute: all is in {tmp_path / 'runs/wide'}" in lines
    assert [line.split(",")[0] for line in lines if "to load" in line] == [
        "deep: 1 step to load",
        "tiny: 3 steps to load",
    ]


class TestWhatIsCheckedBeforeAnyWork:
    """Nothing is computed, of none of them."""

    @pytest.fixture(autouse=True)
    def nothing_computed(self, tmp_path: Path) -> Any:
        yield
        assert computed(tmp_path / "runs") == set()

    def test_no_models(self, several: Several) -> None:
        with pytest.raises(ArgumentError, match="no models: name one, several or 'all'"):
            several(model=[])

    @pytest.mark.parametrize("model", [5, [5], [None, "70m"], [["70m"]]])
    def test_what_names_no_model(self, several: Several, model: Any) -> None:
        with pytest.raises(ArgumentError, match="a model is a name or a folder, not"):
            several(model=model)

    def test_one_named_twice(self, several: Several, suites: dict[str, Path]) -> None:
        with pytest.raises(ArgumentError, match="the model deep is named twice"):
            several(model=[*suites.values(), str(suites["deep"])])
        with pytest.raises(ArgumentError, match="the model 70m is named twice"):
            several(model=["70m", "EleutherAI/pythia-70m"])

    def test_two_folders_of_one_name(
        self, several: Several, suites: dict[str, Path], copies: list[Path]
    ) -> None:
        with pytest.raises(ArgumentError, match="have the same name") as caught:
            several(model=[suites["deep"], copies[1]])
        assert str(suites["deep"]) in str(caught.value)
        assert str(copies[1]) in str(caught.value)

    def test_an_unknown_one(self, several: Several, suites: dict[str, Path]) -> None:
        with pytest.raises(UnknownModelError, match="no model '71m'"):
            several(model=[suites["deep"], "71m"])

    def test_a_step_that_one_lacks(self, several: Several, copies: list[Path]) -> None:
        shutil.rmtree(copies[2] / "step4")
        with pytest.raises(UnknownStepError, match="4"):
            several(model=copies, steps=[0, 4])

    def test_a_token_that_one_does_not_know(
        self, several: Several, suites: dict[str, Path], tiny_ids: np.ndarray, tmp_path: Path
    ) -> None:
        small = Architecture(
            layers=1, width=32, heads=4, vocab_rows=100, intermediate=64, rotary_dims=4
        )
        other = make_series(tmp_path / "small", small, (0,))
        with pytest.raises(TokenRangeError, match="100 rows"):
            several(model=[suites["deep"], other], steps=[0])
        assert not (tmp_path / "runs").exists()

    def test_sequences_that_are_none(self, several: Several, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match=r"^sequences 99: selects none of the 24 sequences"):
            several(sequences=slice(99, None))
        assert not (tmp_path / "runs").exists()

    def test_missing_checkpoints_of_the_last(self, several: Several, copies: list[Path]) -> None:
        shutil.rmtree(copies[2] / "step4")
        (copies[2] / "step4").symlink_to(copies[2] / "gone")
        with pytest.raises(SweepError, match=r"^tiny: 1 of 3 steps cannot be had") as caught:
            several(model=copies)
        assert isinstance(caught.value.__cause__, MissingCheckpointError)


def test_out_may_not_be_a_run_itself(
    several: Several, suites: dict[str, Path], tmp_path: Path
) -> None:
    several(model=suites["deep"], steps=[0])
    with pytest.raises(RunMismatchError, match="is the run folder of one model"):
        several()
    assert not (tmp_path / "runs/deep").exists()


def test_one_model_does_not_go_where_several_are(several: Several, suites: dict[str, Path]) -> None:
    several(steps=[0])
    with pytest.raises(RunMismatchError, match="not a run folder"):
        several(model=suites["deep"])


def test_a_budget_that_is_none_is_told_before_data_is_opened(
    several: Several, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="no size"):
        several(disk_budget="much", tokens=tmp_path / "nowhere")
    assert not (tmp_path / "runs").exists()


def test_a_folder_says_what_it_was_asked_for_though_the_next_cannot_be_made(
    several: Several, tmp_path: Path
) -> None:
    (tmp_path / "runs/deep").mkdir(parents=True)
    (tmp_path / "runs/deep/mine").write_text("not a run")
    with pytest.raises(RunMismatchError, match="not a run folder"):
        several()
    found = pythia_fast.status(tmp_path / "runs/wide")
    assert not found.complete
    assert found.counts["perplexity"].not_begun == len(STEPS)


def test_resume_false_wants_new_folders(several: Several) -> None:
    several(steps=[0])
    with pytest.raises(RunMismatchError, match="resume is False"):
        several(steps=[0, 1], resume=False)


@pytest.fixture
def damaged_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a step is not there yet when the steps are surveyed."""
    monkeypatch.setattr(LocalSeries, "_look_into", lambda *_: None)


@pytest.mark.usefixtures("damaged_later")
def test_the_first_failure_ends_it(several: Several, copies: list[Path], tmp_path: Path) -> None:
    break_step(copies[1], 1)
    with pytest.raises(SweepError, match=r"^deep: step 1 failed: ") as caught:
        several(model=copies)
    assert caught.value.__cause__ is not None
    assert computed(tmp_path / "runs") == {*(("wide", step) for step in STEPS), ("deep", 0)}


def test_what_is_broken_in_the_last_is_told_before_the_first_is_computed(
    several: Several, copies: list[Path], tmp_path: Path
) -> None:
    break_step(copies[1], 1)
    with pytest.raises(SweepError, match=r"^deep: 1 of 3 steps cannot be had: step 1: "):
        several(model=copies)
    assert computed(tmp_path / "runs") == set()


@pytest.mark.usefixtures("damaged_later")
def test_failures_are_skipped_and_the_next_model_computed(
    several: Several, copies: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_step(copies[0], 4)
    break_step(copies[1], 1)
    results = several(model=copies, on_error="skip", progress=True)
    assert {name: [each.step for each in found] for name, found in results.failures.items()} == {
        "wide": [4],
        "deep": [1],
    }
    assert list(results.gaps) == ["wide", "deep"]
    assert [gap.step for gap in results.gaps["deep"]] == [1]
    assert len(results.table) == 7
    assert "2 failed" in repr(results)
    assert "1 step without all results: 4" in results._repr_html_()
    said = capsys.readouterr().err
    assert "deep: step 1 failed and is left out" in said
    assert "wide: step 4 failed and is left out" in said
    for copy, step in ((copies[0], 4), (copies[1], 1)):
        shutil.rmtree(copy / f"step{step}")
    with pytest.raises(UnknownStepError):
        several(model=copies, steps=STEPS)


CALLS_LEFT = [0]  # not in the metric, whose state would be part of what is asked for


class Stops:
    """A metric of one's own, during which Ctrl-C is pressed at one of its calls."""

    name = "stops"

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict[str, Any]:
        CALLS_LEFT[0] -= 1
        if CALLS_LEFT[0] == 0:
            raise KeyboardInterrupt
        return {"width": np.full(len(batch.ids_BT), model.spec.architecture.width)}


def test_an_interrupt_in_the_second_and_going_on(several: Several, tmp_path: Path) -> None:
    metrics = [Stops()]
    whole = several(metrics=metrics, out=tmp_path / "whole")
    CALLS_LEFT[0] = 5  # one batch a step: the second step of the second model
    with pytest.raises(SweepInterruptedError, match=r"^deep: interrupted: . of 3 steps"):
        several(metrics=metrics)
    assert computed(tmp_path / "runs") >= {("wide", step) for step in STEPS}
    assert not any(name == "tiny" for name, _ in computed(tmp_path / "runs"))
    assert several(metrics=metrics).table.equals(whole.table)
    read = pythia_fast.SweepResults(tmp_path / "runs", metrics=metrics)
    assert read["wide"].table.equals(whole["wide"].table)


def test_what_another_process_finishes_meanwhile_is_not_loaded(
    several: Several,
    suites: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the first model is computed here, all of the second is done by another sweep."""
    opened: list[tuple[str, int]] = []
    own_open = LocalSeries.open

    def other(*_: object) -> None:
        several(model=suites["deep"], out=tmp_path / "runs" / "deep", metrics=["perplexity"])
        opened.clear()

    def open_it(series: LocalSeries, step: int) -> Checkpoint:
        opened.append((series.name, step))
        return own_open(series, step)

    own_run = LocalEngine.run

    def run(engine: LocalEngine, *arguments: Any) -> None:
        own_run(engine, *arguments)
        if opened and opened[-1][0] == "wide":
            other()

    monkeypatch.setattr(LocalSeries, "open", open_it)
    monkeypatch.setattr(LocalEngine, "run", run)
    results = several()
    assert sorted(opened) == [("tiny", step) for step in STEPS]
    assert len(results.table) == 9


class OnlyWide:
    """A metric of one's own that has a number more for one of the models."""

    name = "own"

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict[str, Any]:
        rows = len(batch.ids_BT)
        wide = model.spec.architecture.width == 128
        extra = {"wide": np.ones(rows, np.int64)} if wide else {}
        return {"some": np.zeros(rows), **extra}


def test_models_may_have_numbers_that_others_lack(several: Several, suites: Any) -> None:
    results = several(
        model=[suites["deep"], suites["wide"]], metrics=[OnlyWide()], steps=[0], sequences=2
    )
    assert results.table["wide"].to_pylist() == [None, 1.0]
    assert results.sequences["wide"].to_pylist() == [None, None, 1, 1]
    assert results.table.column_names[-1] == "version"


class TestTheObject:
    """`SweepResults` from results, from a folder, and elsewhere."""

    def test_from_a_folder_the_smallest_comes_first(self, several: Several, tmp_path: Path) -> None:
        given = several(steps=[0])
        (tmp_path / "runs" / "notes").mkdir()
        (tmp_path / "runs" / "readme.txt").write_text("mine")
        read = pythia_fast.SweepResults(tmp_path / "runs")
        assert list(read) == [path.name for path in runs_in(tmp_path / "runs")] == BY_SIZE
        assert read.path == given.path
        assert read["wide"].table.equals(given["wide"].table)
        assert len(read) == 3
        assert "wide" in read
        with pytest.raises(KeyError):
            read["70m"]

    def test_from_a_folder_of_such_folders(self, several: Several, tmp_path: Path) -> None:
        several(steps=[0], out=tmp_path / "all/runs")
        (tmp_path / "all/runs/tiny").rename(tmp_path / "all/tiny")
        shutil.copytree(tmp_path / "all/tiny", tmp_path / "all/tiny/kept")  # a run holds no runs
        read = pythia_fast.SweepResults(tmp_path / "all")
        assert [run.path for run in read.values()] == [
            tmp_path / "all/runs/deep",
            tmp_path / "all/tiny",
            tmp_path / "all/runs/wide",
        ]
        with pytest.raises(MissingCheckpointError, match="such as runs/deep: give one"):
            pythia_fast.SweepResult(tmp_path / "all")

    def test_a_folder_without_runs(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(MissingCheckpointError, match="holds no run folders"):
                pythia_fast.SweepResults(path)

    def test_one_result_of_several_is_told_what_to_use(
        self, several: Several, tmp_path: Path
    ) -> None:
        several(steps=[0])
        with pytest.raises(
            MissingCheckpointError, match="such as deep: give one, or use SweepResults"
        ):
            pythia_fast.SweepResult(tmp_path / "runs")

    def test_from_results(self, several: Several) -> None:
        found = several(steps=[0])
        some = pythia_fast.SweepResults([found["tiny"], found["wide"]])
        assert (list(some), some.path) == (["tiny", "wide"], None)
        with pytest.raises(ArgumentError, match="are both of tiny"):
            pythia_fast.SweepResults([found["tiny"], pythia_fast.SweepResult(found["tiny"].path)])
        with pytest.raises(ArgumentError, match="no runs"):
            pythia_fast.SweepResults([])

    def test_it_pickles(self, several: Several) -> None:
        found = several(steps=[0, 1])
        again = pickle.loads(pickle.dumps(found))
        assert list(again) == list(found)
        assert again.table.equals(found.table)
        assert again.path == found.path

    def test_as_frames_and_words(self, several: Several) -> None:
        found = several(steps=[0, 1])
        assert list(found.to_pandas()["model"]) == [name for name in SHAPES for _ in (0, 1)]
        assert pa.table(found).equals(found.table)
        assert repr(found) == f"<SweepResults wide, deep, tiny: 6 rows, in {found.path}>"
        page = found._repr_html_()
        assert page.count("<svg") == 3
        assert page.count("<tr>") == 1 + 6
        for name in SHAPES:
            assert f"<p>{name}</p>" in page

    def test_a_figure_has_a_line_for_each(self, several: Several) -> None:
        found = several()
        (axes,) = found.plot().axes
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels[:3] == list(SHAPES)
        for line, result in zip(found.curves(), found.values(), strict=True):
            assert list(line.values) == result.table["value"].to_pylist()
        with pytest.raises(ArgumentError, match="no metric 'perplexiti'"):
            found.plot("perplexiti")

    def test_a_report_has_all(self, several: Several, tmp_path: Path) -> None:
        found = several(steps=[0, 1])
        page = found.report(tmp_path / "a.html").read_text()
        other = pythia_fast.write_report(found, tmp_path / "b.html").read_text()
        for text in (page, other):
            assert "<title>wide, deep, tiny: what the sweeps found</title>" in text
