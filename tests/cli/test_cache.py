"""`pythia-fast cache`, over a store that a series has filled."""

import json
import shutil
from pathlib import Path

import pytest

from pythia_fast.series.hub import HubSeries
from pythia_fast.store import Waiting
from pythia_fast.suite import spec
from pythia_fast.testing import HubServer

REPO = "EleutherAI/pythia-14m"
STEPS = (0, 1, 2)


@pytest.fixture
def filled(tiny_series: Path, tmp_path: Path) -> HubSeries:
    """Steps 0, 1 and 2, downloaded into `tmp_path / "cache"`."""
    branches = {f"step{step}": tiny_series / f"step{step}" for step in STEPS}
    with HubServer({REPO: branches}) as hub:
        series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
        for step in STEPS:
            series.open(step).close()
    return series


def test_ls(run, filled: HubSeries, tmp_path: Path):
    held = filled._store.claim(filled.survey([1])[1].files, Waiting()).hold
    lines = run("cache", "ls", "--cache-dir", tmp_path / "cache").stdout.splitlines()
    rows = [line.split() for line in lines[1:-1]]
    weights = [row for row in rows if row[2] != "config.json" and "model" in row[2]]
    assert [row[:3] for row in weights] == [
        [REPO, "0", "model.safetensors"],
        [REPO, "1", "pytorch_model.bin"],
        [REPO, "2", "model.safetensors"],
    ]
    assert ["in use" in line for line in lines[1:-1] if "model." in line] == [False, True, False]
    assert lines[-1].startswith("4 files, ")
    answer = json.loads(run("cache", "ls", "--cache-dir", tmp_path / "cache", "--json").stdout)
    assert answer["bytes"] == sum(each["bytes"] for each in answer["files"])
    assert [each["revisions"][0]["step"] for each in answer["files"]] == [0, 0, 1, 2]
    assert [len(each["in_use_by"]) for each in answer["files"]] == [0, 0, 1, 0]
    held.close()
    none = json.loads(
        run("cache", "ls", "--model", "70m", "--cache-dir", tmp_path / "cache", "--json").stdout
    )
    assert none["files"] == []


def test_prune(run, filled: HubSeries, tmp_path: Path):
    held = filled._store.claim(filled.survey([1])[1].files, Waiting()).hold
    store = ("--cache-dir", tmp_path / "cache")
    assert "2 files would be removed" in run("cache", "prune", "--dry-run", *store).stdout
    assert "0 files removed" in run("cache", "prune", "--keep", "1GB", *store).stdout
    assert "0 files removed" in run("cache", "prune", "--model", "70m", *store).stdout
    assert "2 files would" in run("cache", "prune", "--keep", "0", "--dry-run", *store).stdout
    answer = json.loads(run("cache", "prune", "--model", "14m", "--json", *store).stdout)
    assert len(answer["files"]) == 2
    assert answer["bytes"] > 400_000
    left = json.loads(run("cache", "ls", "--json", *store).stdout)["files"]
    assert {each["revisions"][0]["file"] for each in left} == {"config.json", "pytorch_model.bin"}
    held.close()
    run("cache", "prune", "--all", *store)
    assert json.loads(run("cache", "ls", "--json", *store).stdout)["files"] == []


def test_an_empty_cache_and_wrong_words(run, tmp_path: Path):
    assert "0 files, 0 B" in run("cache", "ls", "--cache-dir", tmp_path / "none").stdout
    assert "0 files removed" in run("cache", "prune", "--cache-dir", tmp_path / "none").stdout
    assert not (tmp_path / "none").exists()
    assert "no size" in run("cache", "prune", "--keep", "much", exit_code=2).stderr
    assert "no model" in run("cache", "ls", "--model", "15m", exit_code=3).stderr


def test_what_was_put_there_stays(run, filled: HubSeries, tmp_path: Path):
    for origin in filled._store.places.origins.glob("*.json"):
        origin.unlink()
    assert "0 files" in run("cache", "prune", "--all", "--cache-dir", tmp_path / "cache").stdout
    text = run("cache", "ls", "--cache-dir", tmp_path / "cache").stdout
    assert text.count("not downloaded by pythia-fast") == 4
    shutil.rmtree(tmp_path / "cache")
