"""How far a run is: what its folder says, while others work on it and when nobody does."""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import pythia_fast
from pythia_fast.errors import FormatError, MissingCheckpointError
from pythia_fast.identity import Identity
from pythia_fast.runs.folder.presence import Presence
from pythia_fast.runs.folder.present import read_presences
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.local import LocalEngine
from pythia_fast.runs.status import Counts, status

Sweep = Callable[..., pythia_fast.SweepResult]
METRICS = ["perplexity", "memorization"]


@pytest.fixture
def half(small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Steps 0 and 8 done, 1 unfinished, 2 and 16 not begun, 4 failed."""
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 10)
    path = small_sweep(metrics=METRICS).path
    (path / "parts/step=1/perplexity-00001.parquet").unlink()
    for step in (2, 4, 16):
        shutil.rmtree(path / f"parts/step={step}")
    (path / "failures").mkdir()
    failure = {"error": "HubError", "message": "gone <away>"}
    (path / "failures/step=4.json").write_text(json.dumps(failure))
    return path


def beside(
    path: Path, name: str, *, ago_s: float = 1.0, now_s: float | None = None, **changes: Any
) -> None:
    """A process of another machine that was last heard of `ago_s` seconds before `now_s`."""
    record = {"format": 1, "engine": "local", "host": "node7", "pid": 12, "share": None}
    record |= {"elapsed_s": 100.0, "every_s": 10.0, "done": 1, "of": 3}
    record |= {"workers": [{"name": "cuda:0", "steps": [2], "since_s": 30.0}]}
    (path / "working").mkdir(exist_ok=True)
    file = path / f"working/{name}.json"
    file.write_text(json.dumps(record | changes))
    then = (time.time() if now_s is None else now_s) - ago_s
    os.utime(file, (then, then))


def test_a_complete_run(small_sweep: Sweep) -> None:
    result = small_sweep(metrics=METRICS)
    found = pythia_fast.status(result.path)
    assert found.complete
    assert found.counts == {name: Counts(6, 0, 0, 0) for name in METRICS}
    assert (found.gaps, found.failures, found.present, found.left_s) == ((), (), (), None)
    assert found.lines() == [
        f"{result.path}: sweep of tiny",
        "  perplexity    6 of 6 steps done",
        "  memorization  6 of 6 steps done",
    ]
    assert "12 of 12 results, 0 failed, 0 at work" in repr(found)


def test_what_is_not_done_is_counted_and_why(half: Path) -> None:
    found = status(half)
    assert not found.complete
    assert found.counts == {
        "perplexity": Counts(done=2, unfinished=1, failed=1, not_begun=2),
        "memorization": Counts(done=3, unfinished=0, failed=1, not_begun=2),
    }
    assert found.gaps == pythia_fast.SweepResult(half).gaps
    assert str(found).splitlines()[1:] == [
        "  perplexity    2 of 6 steps done, 1 unfinished, 1 failed, 2 not begun",
        "  memorization  3 of 6 steps done, 1 failed, 2 not begun",
        "  failed: step 4: HubError: gone <away>",
        "  nobody works on it",
    ]
    page = found._repr_html_()
    assert "gone &lt;away&gt;" in page
    assert "unfinished" in page


def test_many_failures_are_not_all_told(small_sweep: Sweep) -> None:
    path = small_sweep(steps=[0]).path
    (path / "failures").mkdir()
    for step in range(1, 12):
        text = '{"error": "HubError", "message": "gone"}'
        (path / f"failures/step={step}.json").write_text(text)
    found = status(path)
    assert len(found.failures) == 11
    assert "  and 3 more failed" in found.lines()


def test_who_works_on_it_and_who_is_silent(half: Path, now_s: float) -> None:
    beside(half, "a", share="1/3", now_s=now_s)
    beside(half, "b", share="2/3", ago_s=720, now_s=now_s)
    workers = [
        {"name": "w1", "steps": [16, 2], "since_s": 5},
        {"name": "w2", "steps": [], "since_s": 5},
    ]
    beside(half, "c", share="10/30", engine="ray", workers=workers, now_s=now_s)
    found = status(half)
    assert [each.share for each in found.running] == ["1/3", "10/30"]
    lines = found.lines()[4:]
    assert lines[0].startswith("  node7, process 12, share 1/3: 1 of 3 steps finished; cuda:0: ")
    assert "cuda:0: step 2 for 31 s" in lines[0]
    assert lines[1] == "  node7, process 12, share 2/3: silent for 12 min 0 s"
    assert lines[2] == "  node7, process 12, share 10/30, ray: 1 of 3 steps finished"
    assert lines[3:5] == ["    w1: step 16 for 6 s, then 2", "    w2: no step"]
    page = found._repr_html_()
    assert "silent for 12 min" in page
    assert found.to_dict()["present"][1]["silent"] is True
    json.dumps(found.to_dict())


def test_one_that_was_killed_here(half: Path) -> None:
    here = Identity.of_this_process().to_record() | {"pid": 2**22 + 1}  # no process has it
    beside(half, "a", **here)
    found = status(half)
    assert found.running == ()
    assert "has ended without a word" in str(found)
    assert "nobody works on it" in str(found)


def test_a_running_sweep_is_seen(
    small_sweep: Sweep, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pythia_fast.runs.folder.presence._LEAST_S", 0.01)
    path = small_sweep(steps=[0]).path
    RunFolder(path, pythia_fast.SweepResult(path).specification).ask([0, 1])
    folder = RunFolder(path, pythia_fast.SweepResult(path).specification)
    with Presence(folder, "local") as presence:
        presence.at("cpu", [1])
        until(lambda: any(each.workers for each in status(path).running))
        assert f"{platform.node()}, process {os.getpid()}: " in str(status(path))
        assert "cpu: step 1 for" in str(status(path))
    assert "nobody works on it" in str(status(path))


class Looking:
    """A metric that looks at what is told of its own sweep."""

    name = "looking"
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: Path, until: Callable[..., None]) -> None:
        self.path, self.until, self.seen = path, until, []

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict[str, Any]:
        def steps() -> list[int]:
            states = [state for each in read_presences(self.path)[0] for state in each.workers]
            return [step for state in states for step in state.steps]

        self.until(lambda: steps() == [model.step])
        self.seen.append(status(self.path))
        return {"one": np.ones(len(batch.rows_B))}


def test_a_sweep_tells_what_it_computes(
    small_sweep: Sweep,
    tmp_path: Path,
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also how much of its share is finished."""
    monkeypatch.setattr("pythia_fast.runs.folder.presence._LEAST_S", 0.01)
    looking = Looking(tmp_path / "run", until)
    result = small_sweep(metrics=[looking], worker="2/2", device="cpu")
    own = result.table["step"].to_pylist()
    assert len(looking.seen) == 3
    for place, (step, seen) in enumerate(zip(own, looking.seen, strict=True)):
        (found,) = seen.running
        assert (found.share, found.pid, found.of) == ("2/2", os.getpid(), 3)
        assert found.done in (place - 1, place)  # the one before is on its way to the disk
        assert f"share 2/2: {found.done} of 3 steps finished; cpu: step {step} for" in str(seen)
    assert status(result.path).present == ()


def test_rate_and_time_left_are_by_what_came_since_they_began(half: Path, now_s: float) -> None:
    for file in half.glob("parts/*/*"):
        os.utime(file, (now_s - 5000, now_s - 5000))
    for step in (0, 8):
        for file in half.glob(f"parts/step={step}/*"):
            os.utime(file, (now_s - 20, now_s - 20))
    beside(half, "a", ago_s=0, elapsed_s=100.0, now_s=now_s)
    found = status(half)
    # Four results in 100 s; left are one of step 1 and two each of steps 2 and 16.
    assert found.results_per_s == pytest.approx(0.04, rel=0.02)
    assert found.left_s == pytest.approx(125, rel=0.02)
    assert "  about 2 min 5 s left, at 144 results an hour" in found.lines()
    beside(half, "a", ago_s=0, elapsed_s=5.0, now_s=now_s)
    assert status(half).left_s is None  # nothing has come since
    shutil.rmtree(half / "working")
    assert status(half).results_per_s is None


def test_shares_that_nobody_works_on_are_told(small_sweep: Sweep) -> None:
    path = small_sweep(worker="1/3").path
    assert status(path).idle_shares == {}  # nobody works at all
    beside(path, "a", share="2/3")
    found = status(path)
    assert found.idle_shares == {"3/3": 2}
    assert "  share 3/3: nobody works on 2 steps that are left" in found.lines()
    beside(path, "b", share="3/3", ago_s=600)
    assert status(path).idle_shares == {"3/3": 2}
    beside(path, "b", share="3/3")
    assert status(path).idle_shares == {}


def test_an_evaluation_too(evaluation: Path) -> None:
    found = status(evaluation)
    assert found.kind == "evaluation"
    assert found.counts == {"evaluation": Counts(done=2, unfinished=0, failed=1, not_begun=1)}
    assert found.lines()[:3] == [
        f"{evaluation}: evaluation of 70m",
        "  evaluation  2 of 4 steps done, 1 failed, 1 not begun",
        "  failed: step 3000: HubError: gone",
    ]
    assert not found.complete


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """Of steps 0 and 1000 there are results; of 1000 an old failure too, 3000 has failed."""
    folder = tmp_path / "eval"
    for name in ("results", "asked", "failures"):
        (folder / name).mkdir(parents=True)
    specification = {"kind": "evaluation", "model": "70m", "tasks": {"sciq": {}}}
    run = {"format": 1, "hash": "x", "specification": specification}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "asked/a.json").write_text('{"steps": [0, 1000, 2000, 3000]}')
    for step in (0, 1000):
        (folder / f"results/step={step}.json").write_text("{}")
    for step in (1000, 3000):
        text = '{"error": "HubError", "message": "gone"}'
        (folder / f"failures/step={step}.json").write_text(text)
    return folder


def test_a_run_of_which_no_step_is_known_is_not_complete(half: Path) -> None:
    for name in ("asked", "parts", "failures"):
        shutil.rmtree(half / name)
    found = status(half)
    assert found.gaps == ()
    assert not found.complete
    assert "nobody works on it" in str(found)


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingCheckpointError, match="there is no folder"):
        status(tmp_path / "nowhere")
    with pytest.raises(MissingCheckpointError, match="not a run folder"):
        status(tmp_path)


def test_a_damaged_record_of_who_works_is_a_line(half: Path) -> None:
    beside(half, "a")
    (half / "working/x.json").write_text("{")
    found = status(half)
    assert len(found.running) == 1
    (line,) = found.damaged
    assert f"  {line}" in found.lines()
    assert "x.json" in line
    assert "remove it" in line
    assert "x.json" in found._repr_html_()
    assert found.to_dict()["damaged"] == [line]


def test_other_damage_is_told(half: Path) -> None:
    (half / "failures/step=4.json").write_text("{")
    with pytest.raises(FormatError, match="remove it"):
        status(half)


def test_models_that_wait_their_turn_are_seen_to(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    """Also while those before are only looked at; a model that is done has nobody any longer."""
    models = [shutil.copytree(tiny_series, tmp_path / name) for name in ("a", "b")]
    seen: dict[str, str] = {}

    def look(model: str, name: str) -> None:
        path = tmp_path / "runs" / name
        until(lambda: bool(read_presences(path)[0]))
        seen[f"{name} while {model}"] = str(status(path))

    survey, run = LocalEngine.survey, LocalEngine.run

    def surveyed(engine: LocalEngine, *arguments: Any) -> Any:
        if engine._asked.series.name == "a":
            look("a is surveyed", "b")
        return survey(engine, *arguments)

    def ran(engine: LocalEngine, *arguments: Any) -> None:
        if engine._asked.series.name == "a":
            look("a runs", "b")
        else:
            assert read_presences(tmp_path / "runs/a") == ((), ())
        run(engine, *arguments)

    monkeypatch.setattr(LocalEngine, "survey", surveyed)
    monkeypatch.setattr(LocalEngine, "run", ran)
    pythia_fast.sweep(
        *(models, [0, 1]),
        tokens=np.zeros((2, 20), dtype=np.int64),
        out=tmp_path / "runs",
        progress=False,
    )
    assert len(seen) == 2
    for words in seen.values():
        assert f"process {os.getpid()}: 0 of 2 steps finished; waits its turn" in words
    assert read_presences(tmp_path / "runs/b") == ((), ())


def test_nothing_is_written(half: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in half.rglob("*")}
    status(half)
    assert {path: path.stat().st_mtime_ns for path in half.rglob("*")} == before
