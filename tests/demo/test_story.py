import json
import shutil
import sys

import pytest
import torch

from pythia_fast.demo import run_demo, told
from pythia_fast.demo.story import Promise, Story
from pythia_fast.errors import ArgumentError


def test_what_must_come_out_comes_out(story, small):
    assert story.kept
    assert len(story.promises) == 3
    assert [row.step for row in story.rows] == list(small.saved_steps)
    first, last = story.rows[0], story.rows[-1]
    assert last.loss < 0.5 * first.loss
    assert last.perplexity < first.perplexity
    assert set(last.memorized) == {0, 1, 64}
    assert first.memorized == {0: 0, 1: 0, 64: 0}
    assert last.memorized[64] == 1
    assert all(row.memorized[0] == 0 for row in story.rows)


def test_a_second_start_finds_what_is_there_and_computes_nothing(story, demo_folder):
    def times():  # of all but the picture, and the folder that says who works there
        kept = [
            p for p in demo_folder.rglob("*") if p.suffix != ".png" and p.parts[-1] != "working"
        ]
        return {p: p.stat().st_mtime_ns for p in kept}

    before, said = times(), []
    again = run_demo(demo_folder, progress=False, say=said.append)
    assert times() == before
    assert again.found
    assert not story.found
    assert again.rows == story.rows
    assert again.made.recipe == story.made.recipe
    assert any("is there" in line for line in said)


def test_a_sweep_that_was_cut_short_is_resumed(story, demo_folder, tmp_path):
    copy = tmp_path / "demo"
    shutil.copytree(demo_folder, copy)
    removed = list((copy / "runs").rglob("step=2*/*.parquet"))
    assert len(removed) == 4 * 2  # steps 2 and 25, text and canaries, two metrics
    for part in removed:
        part.unlink()
    again = run_demo(copy, progress=False, say=lambda _: None)
    assert again.found
    assert again.rows == story.rows
    assert all(part.exists() for part in removed)


def test_the_story_is_told_with_all_its_numbers(story):
    text = told(story)
    for row in story.rows:
        assert f"{row.loss:.3f}" in text
        assert f"{row.perplexity:.2f}" in text
    assert "100%" in text
    assert "FAILED" not in text
    assert str(story.made.folder.suite) in text
    assert max(map(len, text.splitlines()[: len(story.rows) + 6])) <= 100


def test_the_story_goes_into_json(story):
    told_in_json = json.loads(json.dumps(story.to_dict()))
    assert [row["step"] for row in told_in_json["steps"]] == [row.step for row in story.rows]
    assert told_in_json["steps"][-1]["memorized"]["64"] == 1
    assert all(promise["kept"] for promise in told_in_json["promises"])


def test_a_broken_promise_is_said_loudly(story):
    broken = Story(story.made, True, story.rows, (Promise("it rains", False),), None)
    assert not broken.kept
    assert "FAILED  it rains" in told(broken)
    assert "THE DEMO FAILED" in told(broken)


def test_there_is_a_picture(story):
    assert story.picture is not None
    assert story.picture.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_demo_goes_on_and_says_how_to_install_it(
    story, demo_folder, monkeypatch
):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    again = run_demo(demo_folder, progress=False, say=lambda _: None)
    assert again.picture is None
    assert "pip install 'pythia-fast[analysis]'" in told(again)


def test_torchs_threads_are_as_before(demo_folder):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run_demo(demo_folder, progress=False, say=lambda _: None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("limit_s", [0, -1])
def test_a_time_limit_is_positive(tmp_path, limit_s):
    with pytest.raises(ArgumentError):
        run_demo(tmp_path / "demo", limit_s=limit_s)
