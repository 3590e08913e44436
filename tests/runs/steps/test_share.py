"""A share of the steps: every process cuts alike, and what several do together is what one does."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pythia_fast
from pythia_fast.errors import ArgumentError, FormatError, MissingCheckpointError, SweepError
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.job import SweepJob
from pythia_fast.runs.steps.share import (
    Dealt,
    Share,
    deal,
    share_of,
    share_of_slurm,
    steps_of_share,
)
from pythia_fast.runs.steps.survey import Survey
from pythia_fast.series import Revision, local
from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series

Sweep = Callable[..., pythia_fast.SweepResult]
Until = Callable[[Callable[[], bool]], None]
STEPS = (0, 1, 2, 4, 8, 16)


@pytest.mark.parametrize(("text", "index", "count"), [("3/16", 3, 16), ("1/1", 1, 1)])
def test_a_share_is_read(text: str, index: int, count: int) -> None:
    assert share_of(text) == Share(index, count)
    assert str(share_of(text)) == text


def test_without_a_worker_there_is_no_share() -> None:
    assert share_of(None) is None


@pytest.mark.parametrize("text", ["0/16", "17/16", "1/0"])
def test_there_is_no_such_share(text: str) -> None:
    with pytest.raises(ArgumentError, match=f"no share {text}: the first is 1, the last"):
        share_of(text)


def test_there_are_not_as_many_processes() -> None:
    assert share_of("1/100000") == Share(1, 100_000)
    with pytest.raises(ArgumentError, match="more than 100000 processes"):
        share_of("1/99999999")


@pytest.mark.parametrize("worker", ["", "3", "3/", "-1/2", "3 / 16", "1/2/3", "SLURM", 3, (3, 16)])
def test_what_names_no_share_is_refused(worker: Any) -> None:
    with pytest.raises(ArgumentError, match="such as '3/16', or 'slurm'"):
        share_of(worker)


NEEDED = ("ID", "COUNT", "MIN", "MAX")


def slurm(**changes: str | None) -> dict[str, str]:
    """The variables of the third task of --array=0-15."""
    found = {"ID": "2", "COUNT": "16", "MIN": "0", "MAX": "15", "STEP": "1"} | changes
    return {f"SLURM_ARRAY_TASK_{name}": text for name, text in found.items() if text is not None}


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, "3/16"),
        ({"ID": "0"}, "1/16"),
        ({"STEP": None}, "3/16"),
        ({"ID": "16", "MIN": "1", "MAX": "16"}, "16/16"),
        ({"ID": "9", "MIN": "1", "MAX": "13", "STEP": "4", "COUNT": "4"}, "3/4"),
        ({"ID": "7", "MIN": "7", "MAX": "7", "COUNT": "1"}, "1/1"),
    ],
)
def test_slurm_says_which_share(
    changes: dict[str, str], share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(share_of_slurm(slurm(**changes))) == share
    for name in slurm():
        monkeypatch.delenv(name, raising=False)
    for name, text in slurm(**changes).items():
        monkeypatch.setenv(name, text)
    assert str(share_of("slurm")) == share


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(({name: None}, f"SLURM_ARRAY_TASK_{name} is not set") for name in NEEDED),
        ({"COUNT": "many"}, "SLURM_ARRAY_TASK_COUNT is 'many'"),
        ({"ID": "-1"}, "SLURM_ARRAY_TASK_ID is '-1'"),
        # --array=1,2,7: also those that a range would have
        *(
            ({"ID": task, "MIN": "1", "MAX": "7", "COUNT": "3"}, "not those of a range")
            for task in "127"
        ),
        ({"ID": "7", "MIN": "1", "MAX": "3", "COUNT": "3"}, "ID=7 is not one of 3 tasks from 1"),
        ({"ID": "0", "MIN": "1", "MAX": "16"}, "is not one of 16 tasks from 1 to 16"),
        ({"ID": "2", "MIN": "1", "MAX": "61", "STEP": "4"}, "in strides of 4"),
        ({"STEP": "0"}, "_STEP=0 and"),
    ],
)
def test_slurm_s_variables_that_name_no_share_are_named(
    changes: dict[str, str | None], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        share_of_slurm(slurm(**changes))
    assert "--array=1-16" in str(caught.value)


@given(
    costs=st.lists(st.integers(0, 1000), max_size=60),
    count=st.integers(1, 20),
    equal=st.booleans(),
    first=st.integers(0, 50),
    rest=st.integers(0, 50),
)
def test_dealing_gives_everything_once_and_is_balanced(
    costs: list[int], count: int, equal: bool, first: int, rest: int
) -> None:
    costs = [7] * len(costs) if equal else costs
    parts = deal(list(enumerate(costs)), count, first=first, rest=rest)
    assert len(parts) == count
    assert sorted(thing for part in parts for thing in part) == list(range(len(costs)))
    sizes = [len(part) for part in parts]
    sums = [sum(costs[thing] for thing in part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert max(sums) - min(sums) <= max(costs, default=0)


def values(result: pythia_fast.SweepResult) -> list[dict[str, Any]]:
    """Everything of the results; where the time went is in `times`."""
    return result.table.to_pylist() + result.sequences.to_pylist()


def test_shares_one_after_the_other_make_the_whole(small_sweep: Sweep, tmp_path: Path) -> None:
    metrics = ["perplexity", "memorization"]
    alone = small_sweep(metrics=metrics, out=tmp_path / "alone")
    seen: list[int] = []
    for index in range(1, 5):
        result = small_sweep(metrics=metrics, worker=f"{index}/4")
        own = sorted(set(result.table["step"].to_pylist()))
        assert result.gaps == ()
        assert not set(own) & set(seen)
        assert 1 <= len(own) <= 2
        seen += own
    assert sorted(seen) == [*STEPS]
    together = pythia_fast.SweepResult(tmp_path / "run")
    assert values(together) == values(alone)
    assert together.gaps == ()
    assert [path.name for path in (tmp_path / "run/working").iterdir()] == []


def test_a_share_of_nothing_is_done_at_once(
    small_sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    result = small_sweep(steps=[0, 1], worker="3/3", progress=True)
    assert (len(result), result.gaps) == (0, ())
    said = capsys.readouterr().err
    assert "share 3/3: no step is its own (2 steps, 3 shares)" in said
    assert "nothing left" not in said
    assert {gap.step for gap in pythia_fast.SweepResult(result.path).gaps} == {0, 1}


def test_what_is_said_is_of_the_share(
    small_sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    small_sweep(worker="2/3", progress=True)
    said = capsys.readouterr().err
    assert "share 2/3: 2 of 6 steps" in said
    assert "2 steps to load" in said
    assert "/2 checkpoints" in said
    assert f"{2 * 24 * 80:,}/{2 * 24 * 80:,} tokens" in said
    assert "/6 checkpoints" not in said


def test_the_cut_is_that_of_all_steps_whatever_is_done_already(small_sweep: Sweep) -> None:
    first = set(small_sweep(worker="1/2").table["step"].to_pylist())
    second = set(small_sweep(worker="2/2").table["step"].to_pylist())
    assert first | second == {*STEPS}
    assert set(small_sweep(worker="1/2").table["step"].to_pylist()) == first


class CostlyLater(SweepJob):
    """A job whose steps cost as much as their number, as with "seen"."""

    sharing = False

    def __init__(self, steps: tuple[int, ...]) -> None:
        self._own = steps

    @property
    def steps(self) -> tuple[int, ...]:
        return self._own

    def tokens(self, step: int) -> int:
        return step


def test_shares_are_balanced_where_later_steps_cost_more(tmp_path: Path) -> None:
    """Steps 0 and 1 have the same weights, which are to be downloaded once."""
    job, folder = CostlyLater(pythia_fast.checkpoints("70m")), RunFolder(tmp_path / "run", {})
    same = {0: "a", 1: "a"}
    revisions = {step: Revision(step, weights_sha256=same.get(step)) for step in job.steps}
    parts = [
        steps_of_share(Share(index, 16), job, Survey(revisions, ()), folder, Dealt())
        for index in range(1, 17)
    ]
    assert sorted(step for part in parts for step in part) == sorted(job.steps)
    assert all(list(part) == sorted(part) for part in parts)
    assert len({index for index, part in enumerate(parts) if {0, 1} & set(part)}) == 1
    costs = [sum(part) for part in parts]
    assert max(costs) - min(costs) <= 143_000 < 0.25 * min(costs)


@pytest.mark.parametrize("sequences", ["seen", "unseen"])
def test_of_seen_and_unseen_sequences_shares_make_the_whole_too(
    sequences: str, small_sweep: Sweep, remote: Any, tmp_path: Path
) -> None:
    alone = small_sweep(sequences=sequences, out=tmp_path / "alone")
    parts = [small_sweep(sequences=sequences, worker=f"{index}/2") for index in (1, 2)]
    assert [len(part) for part in parts] == [3, 3]
    assert values(pythia_fast.SweepResult(tmp_path / "run")) == values(alone)


def test_steps_with_the_same_weights_stay_together(
    small_sweep: Sweep, remote: Any, tmp_path: Path
) -> None:
    for twin, first in ((4, 1), (16, 1)):
        shutil.rmtree(remote.folder / f"step{twin}")
        shutil.copytree(remote.folder / f"step{first}", remote.folder / f"step{twin}")
    parts = [small_sweep(worker=f"{index}/3") for index in (1, 2, 3)]
    steps = [set(part.table["step"].to_pylist()) for part in parts]
    (with_twins,) = (each for each in steps if 1 in each)
    assert {1, 4, 16} <= with_twins
    assert sorted(remote.opened) == [0, 1, 2, 8]
    whole = pythia_fast.SweepResult(tmp_path / "run").table.to_pylist()
    assert {row["step"]: row["duplicate_of"] for row in whole} == (
        dict.fromkeys(STEPS) | {4: 1, 16: 1}
    )


def test_of_steps_that_only_look_alike_each_share_gets_some(
    small_sweep: Sweep, tiny: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where but a few rows of the embeddings were trained."""
    monkeypatch.setattr(local, "outline", lambda *_: "the same")
    series = make_series(tmp_path / "own", tiny, STEPS)
    parts = [small_sweep(model=series, worker=f"{index}/3") for index in (1, 2, 3)]
    assert [len(part.table) for part in parts] == [2, 2, 2]
    assert small_sweep(model=series).table["duplicate_of"].to_pylist() == [None] * 6


def test_the_first_process_decides_how_the_steps_are_cut(small_sweep: Sweep, remote: Any) -> None:
    """A later one that finds a step missing, with other weights or mended cuts no other way."""
    shutil.rmtree(remote.folder / "step2")
    shutil.copytree(remote.folder / "step1", remote.folder / "step2")
    parts = [set(small_sweep(worker="1/3").table["step"].to_pylist())]
    remote.broken[1] = MissingCheckpointError("no branch")
    for worker in ("2/3", "3/3"):
        result = small_sweep(worker=worker, on_error="skip")
        parts.append({row["step"] for row in result.table.to_pylist()})
        parts[-1] |= {failure.step for failure in result.failures}
    assert sorted(step for part in parts for step in part) == [*STEPS]


def test_each_speaks_of_its_own_steps_that_cannot_be_had(small_sweep: Sweep, remote: Any) -> None:
    remote.broken[4] = MissingCheckpointError("no branch")
    owner = next(
        index
        for index in (1, 2, 3)
        if 4 in {failure.step for failure in _tried(small_sweep, index).failures}
    )
    for index in {1, 2, 3} - {owner}:
        result = small_sweep(worker=f"{index}/3")
        assert (result.failures, result.gaps, len(result)) == ((), (), 2)
    with pytest.raises(SweepError, match="1 of 2 steps cannot be had: step 4: no branch"):
        small_sweep(worker=f"{owner}/3")
    assert [gap.step for gap in _tried(small_sweep, owner).gaps] == [4]


def _tried(small_sweep: Sweep, index: int) -> pythia_fast.SweepResult:
    return small_sweep(worker=f"{index}/3", on_error="skip")


def test_a_cut_that_is_none_is_told(small_sweep: Sweep) -> None:
    result = small_sweep(worker="1/2")
    (cut,) = (result.path / "shares").iterdir()
    for text, words in (
        ("{", "no cut into shares"),
        ('{"shares": [["a"], []]}', "no cut into shares"),
        ('{"shares": [[0, 1, 2, 4, 8, 16]]}', "each step to one share"),
        ('{"shares": [[0, 1, 2, 4, 8, 16], [0]]}', "each step to one share"),
        ('{"shares": [[0, 1, 2], [4, 8]]}', "each step to one share"),
    ):
        cut.write_text(text)
        with pytest.raises(FormatError, match=f"{words}.*remove it"):
            small_sweep(worker="1/2")


def test_a_new_folder_for_each_is_refused(small_sweep: Sweep) -> None:
    with pytest.raises(ArgumentError, match="resume=False"):
        small_sweep(worker="1/2", resume=False)


def test_of_several_models_a_share_is_one_of_each(
    small_sweep: Sweep, tiny_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(tiny_series, tmp_path / "other"))
    shutil.rmtree(other / "step16")
    parts = [
        pythia_fast.sweep(
            [tiny_series, other],
            tokens=np.zeros((2, 20), dtype=np.int64),
            out=tmp_path / "runs",
            worker=f"{index}/2",
            progress=True,
        )
        for index in (1, 2)
    ]
    steps = [{name: set(part[name].table["step"].to_pylist()) for name in part} for part in parts]
    for name, whole in (("tiny", {*STEPS}), ("other", {*STEPS} - {16})):
        assert steps[0][name] | steps[1][name] == whole
        assert not steps[0][name] & steps[1][name]
        assert pythia_fast.status(tmp_path / "runs" / name).complete
    assert "other: share 2/2: 2 of 5 steps" in capsys.readouterr().err


def test_of_one_step_of_each_of_two_models_each_of_two_has_one(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path
) -> None:
    models = [shutil.copytree(tiny_series, tmp_path / name) for name in ("a", "b")]
    for index, done in ((2, "b"), (1, "a")):
        parts = pythia_fast.sweep(
            *(models, "last"),
            tokens=tiny_ids,
            out=tmp_path / "runs",
            worker=f"{index}/2",
            progress=False,
        )
        assert [name for name, part in parts.items() if len(part)] == [done]


@pytest.mark.parametrize(
    ("models", "groups", "count"),
    [(16, 154, 16), (16, 153, 16), (16, 1, 16), (3, 2, 6), (2, 3, 2), (5, 7, 3), (1, 3, 2)],
)
def test_of_several_models_shares_have_as_many_steps(
    models: int, groups: int, count: int, tmp_path: Path
) -> None:
    """Of each model, too, nobody has more than one step more than another."""
    job = CostlyLater(tuple(range(groups)))
    found = Survey({step: Revision(step) for step in job.steps}, ())
    sizes = []
    for index in range(1, count + 1):
        dealt, own = Dealt(), []
        for model in range(models):
            folder = RunFolder(tmp_path / str(model), {})
            own.append(len(steps_of_share(Share(index, count), job, found, folder, dealt)))
            dealt = dealt.and_a_model(groups)
        sizes.append(own)
    for of_model in zip(*sizes, strict=True):
        assert sum(of_model) == groups
        assert max(of_model) - min(of_model) <= 1
    of_share = [sum(own) for own in sizes]
    assert max(of_share) - min(of_share) <= 1


def test_of_several_models_nobody_has_the_costly_steps_of_all(tmp_path: Path) -> None:
    job = CostlyLater(tuple(range(1, 17)))
    found = Survey({step: Revision(step) for step in job.steps}, ())
    costs = []
    for index in range(1, 17):
        dealt, cost = Dealt(), 0
        for model in range(16):
            folder = RunFolder(tmp_path / str(model), {})
            cost += sum(steps_of_share(Share(index, 16), job, found, folder, dealt))
            dealt = dealt.and_a_model(16)
        costs.append(cost)
    assert set(costs) == {sum(job.steps)}


def test_a_call_of_fewer_models_goes_by_the_cut_that_is_kept(tmp_path: Path) -> None:
    job, folder = CostlyLater((1, 2, 3)), RunFolder(tmp_path / "run", {})
    found = Survey({step: Revision(step) for step in job.steps}, ())
    with_others = steps_of_share(Share(1, 2), job, found, folder, Dealt(1, 1))
    alone = steps_of_share(Share(2, 2), job, found, folder, Dealt())
    assert sorted(with_others + alone) == [1, 2, 3]


def test_a_cluster_deals_out_the_steps_itself(small_sweep: Sweep) -> None:
    with pytest.raises(ArgumentError, match="engine='local'"):
        small_sweep(engine="ray", worker="1/2")


SHARED = """
import itertools, json, pathlib, sys, time
import numpy as np
import pythia_fast
from pythia_fast.runs.folder.run_folder import RunFolder

call = json.loads(sys.argv[1])
publish, count, hangs_at = RunFolder.publish, itertools.count(1), call.pop("hangs_at")

def hanging(*arguments):
    if next(count) == hangs_at:
        pathlib.Path("hangs").touch()
        time.sleep(600)
    publish(*arguments)

RunFolder.publish = hanging
ids = np.load(call.pop("tokens"))
pythia_fast.sweep(tokens=ids, progress=False, dtype="float32", device="cpu", **call)
"""


def test_three_at_once_of_which_one_is_killed_and_started_again(
    tiny: Architecture, tiny_ids: np.ndarray, tmp_path: Path, until: Until
) -> None:
    steps = tuple(range(0, 30_000, 1000))
    series = make_series(tmp_path / "series", tiny, steps)
    for twin, first in ((3000, 2000), (29_000, 0)):
        shutil.rmtree(series / f"step{twin}")
        shutil.copytree(series / f"step{first}", series / f"step{twin}")
    np.save(tmp_path / "ids.npy", tiny_ids)
    metrics = ["perplexity", "memorization", "memorization-score"]
    call = {"model": str(series), "metrics": metrics, "tokens": str(tmp_path / "ids.npy")}
    out = tmp_path / "together"

    def start(index: int, hangs_at: int | None = None) -> "subprocess.Popen[bytes]":
        own = {"out": str(out), "worker": f"{index}/3", "hangs_at": hangs_at}
        command = [sys.executable, "-c", SHARED, json.dumps(call | own)]
        return subprocess.Popen(command, cwd=tmp_path)

    processes = [start(1), start(2, hangs_at=11), start(3)]
    try:
        until((tmp_path / "hangs").exists)
        processes[1].kill()
        processes.append(start(2))
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL, 0, 0]
    alone = pythia_fast.sweep(
        series,
        tokens=tiny_ids,
        metrics=metrics,
        out=tmp_path / "alone",
        dtype="float32",
        device="cpu",
        progress=False,
    )
    together = pythia_fast.SweepResult(out)
    assert values(together) == values(alone)
    assert together.gaps == ()
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    assert not list((out / "working").iterdir())
