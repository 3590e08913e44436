"""One part of a run is damaged: all else is shown, and the part is named."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from damaged_parts import DAMAGES, Damage, cut, flipped

import pythia_fast
from pythia_fast.errors import MissingCheckpointError, ReadError
from pythia_fast.runs.status import Counts

Sweep = Callable[..., pythia_fast.SweepResult]
METRICS = ["perplexity", "memorization"]
STEPS = [0, 1, 2, 4]
PART = "parts/step=2/perplexity-00000.parquet"
BAD = (2, "perplexity")


@pytest.fixture
def swept(small_sweep: Sweep) -> pythia_fast.SweepResult:
    """Read before a test does damage to it."""
    result = small_sweep(steps=STEPS, metrics=METRICS)
    assert len(result.table) == 8
    return result


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_good_is_there(
    swept: pythia_fast.SweepResult, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    part = swept.path / PART
    damage(part)
    result = pythia_fast.SweepResult(swept.path)
    rows = [row for row in swept.table.to_pylist() if (row["step"], row["metric"]) != BAD]
    assert [row["value"] for row in result.table.to_pylist()] == [row["value"] for row in rows]
    assert set(result.sequences["step"].to_pylist()) == set(STEPS), "memorization is there"
    assert result.columns(["nll"]).steps == (0, 1, 4)
    assert result.times["step"].to_pylist() == STEPS
    (gap,) = result.gaps
    assert (gap.step, gap.metric, gap.state) == (2, "perplexity", "damaged")
    assert str(part) in gap.reason
    assert "the same sweep puts it aside and computes it again" in gap.reason
    assert [text for text in caplog.messages if str(part) in text] == caplog.messages
    assert len(caplog.messages) == 1, "told once"


def test_gaps_know_it_before_anything_is_read(swept: pythia_fast.SweepResult) -> None:
    flipped(swept.path / PART)
    assert [gap.state for gap in pythia_fast.SweepResult(swept.path).gaps] == ["damaged"]
    assert "damaged" in pythia_fast.SweepResult(swept.path)._repr_html_()


def test_a_figure_and_a_page_are_made_of_the_rest(
    swept: pythia_fast.SweepResult, tmp_path: Path
) -> None:
    flipped(swept.path / PART)
    line = pythia_fast.SweepResult(swept.path).curve("perplexity")
    assert (list(line.steps), list(line.gaps)) == ([0, 1, 4], [2])
    pythia_fast.SweepResult(swept.path).plot()
    page = pythia_fast.SweepResult(swept.path).report(tmp_path / "page.html")
    assert f"damaged: {swept.path / PART}" in page.read_text()


def test_the_status_names_it(swept: pythia_fast.SweepResult) -> None:
    flipped(swept.path / PART)
    found = pythia_fast.status(swept.path)
    assert not found.complete
    assert found.counts["perplexity"] == Counts(3, 0, 0, 0, damaged=1)
    (line,) = found.damaged
    assert str(swept.path / PART) in line
    assert f"  {line}" in found.lines()
    assert "3 of 4 steps done, 1 damaged" in str(found)
    assert PART in found._repr_html_()


def test_several_shards(small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 10)
    path = small_sweep(steps=[2]).path
    for shard in ("00000", "00002"):
        cut(path / PART.replace("00000", shard))
    (gap,) = pythia_fast.SweepResult(path).gaps
    assert gap.reason.endswith("; and 1 more")
    assert pythia_fast.SweepResult(path).table.num_rows == 0


def test_a_file_that_the_system_does_not_give_is_a_gap_too(
    swept: pythia_fast.SweepResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, *_: object) -> None:
        raise ReadError(5, f"cannot read {path}: Input/output error")

    monkeypatch.setattr("pythia_fast.runs.results.contents.checked_part", failing)
    result = pythia_fast.SweepResult(swept.path)
    assert {gap.state for gap in result.gaps} == {"damaged"}
    assert "Input/output error" in result.gaps[0].reason


def test_a_part_that_is_put_aside_while_it_is_looked_at_is_only_missing(
    swept: pythia_fast.SweepResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path, *_: object) -> None:
        raise ReadError(2, f"cannot read {path}: No such file or directory")

    monkeypatch.setattr("pythia_fast.runs.results.contents.checked_part", gone)
    assert {gap.state for gap in pythia_fast.SweepResult(swept.path).gaps} == {"not begun"}


def test_a_failure_of_a_damaged_step_is_shown(swept: pythia_fast.SweepResult) -> None:
    (swept.path / "failures").mkdir(exist_ok=True)
    (swept.path / "failures/step=2.json").write_text('{"error": "OSError", "message": "x"}')
    assert pythia_fast.SweepResult(swept.path).failures == ()
    cut(swept.path / PART)
    assert [each.step for each in pythia_fast.SweepResult(swept.path).failures] == [2]


def test_a_folder_that_is_gone_is_not_one_without_results(swept: pythia_fast.SweepResult) -> None:
    there = pickle.loads(pickle.dumps(pythia_fast.SweepResult(swept.path)))
    shutil.rmtree(swept.path)
    with pytest.raises(MissingCheckpointError, match=f"there is no folder {swept.path}"):
        _ = there.table
    with pytest.raises(MissingCheckpointError, match="there is no folder"):
        _ = there.sequences
    assert f"there is no folder {swept.path}" in repr(there)
    assert len(swept.table) == 8, "what was read stays"
