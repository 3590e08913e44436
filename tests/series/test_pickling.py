"""A series goes to another process, or to another machine, as what it is made of."""

import copy
import pickle
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from pythia_fast.errors import HubError, MissingCheckpointError, UnknownStepError
from pythia_fast.series import LocalSeries
from pythia_fast.series.gpt_neox import GptNeoxSeries
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import HubServer, make_gpt_neox_series, make_series

REPO = "EleutherAI/pythia-14m"
STEPS = (0, 1, 2)

OPEN = """
import pickle, sys
series = pickle.load(sys.stdin.buffer)
print(type(series).__name__, *(series.open(step).weights_sha256 for step in map(int, sys.argv[1:])))
"""


@pytest.fixture
def folder(tmp_path: Path, tiny: Architecture) -> Path:
    return make_series(tmp_path / "series", tiny, STEPS)


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    with HubServer({REPO: {f"step{step}": folder / f"step{step}" for step in STEPS}}) as server:
        yield server


def elsewhere(series: object, *steps: int, cwd: Path) -> list[str]:
    """What another process that works in another folder says: the class, and the weights."""
    command = [sys.executable, "-c", OPEN, *map(str, steps)]
    done = subprocess.run(
        command, input=pickle.dumps(series), cwd=cwd, stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode().split()


def copied(series: HubSeries) -> HubSeries:
    found = pickle.loads(pickle.dumps(series))
    assert isinstance(found, HubSeries)
    return found


def refs(hub: HubServer) -> int:
    """How often the branches were asked for."""
    return sum("/refs" in each.path for each in hub.requests)


def test_a_folder_opens_again_in_another_process(
    folder: Path, tmp_path: Path, tiny: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    neox = make_gpt_neox_series(tmp_path / "neox", tiny, STEPS)
    monkeypatch.chdir(tmp_path)
    for series in (LocalSeries("series"), GptNeoxSeries("neox")):
        expected = [series.open(step).weights_sha256 for step in (2, 0)]
        assert elsewhere(series, 2, 0, cwd=Path("/")) == [type(series).__name__, *expected]
        again = pickle.loads(pickle.dumps(series))
        assert (again.spec, again.steps, again.source) == (series.spec, series.steps, series.source)
        assert again.identity(1) == series.identity(1)
    assert neox.is_dir()


def test_a_folder_that_is_not_there_is_the_error_of_each_step(
    folder: Path, tmp_path: Path, tiny: Architecture
) -> None:
    make_gpt_neox_series(tmp_path / "neox", tiny, STEPS)
    for series in (LocalSeries(folder), GptNeoxSeries(tmp_path / "neox")):
        pickled = pickle.dumps(series)
        away = series.folder.rename(tmp_path / "away")
        found = pickle.loads(pickled)
        assert (found.steps, found.name) == (STEPS, series.name)
        words = f"there is no folder {series.folder} on {platform.node()}: every machine"
        for use in (found.open, found.identity, lambda step, found=found: _error(found, step)):
            with pytest.raises(MissingCheckpointError) as caught:
                use(1)
            assert words in str(caught.value)
        with pytest.raises(UnknownStepError):
            found.open(3)
        away.rename(series.folder)
        assert found.open(1).weights_sha256 == series.open(1).weights_sha256


def _error(series: LocalSeries, step: int) -> None:
    error = series.survey([step])[step].error
    assert error is not None
    raise error


def test_a_single_step_that_is_gone_says_so(folder: Path) -> None:
    series = LocalSeries(folder)
    shutil.rmtree(folder / "step1")
    with pytest.raises(MissingCheckpointError, match="step1 is gone since the series was opened"):
        pickle.loads(pickle.dumps(series)).open(1)


def test_the_hub_is_not_asked_for_its_branches_again(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url, disk_budget="1GB")
    commits = {step: series.commit(step) for step in STEPS}
    hub.publish(REPO, "step1", folder / "step2")  # which the copies are not to see
    expected = [LocalSeries(folder).open(step).weights_sha256 for step in (1, 0)]
    assert elsewhere(series, 1, 0, cwd=Path("/")) == ["HubSeries", *expected]
    again = copied(copied(series))
    assert {step: again.commit(step) for step in STEPS} == commits
    assert (again.spec, again.source, again.folder) == (series.spec, series.source, series.folder)
    assert again._store.room.budget_bytes == 10**9
    with pytest.raises(MissingCheckpointError, match="no branch step4 "):
        again.commit(4)
    assert refs(hub) == 1


def test_pinned_commits_go_along_and_are_enough(hub: HubServer, tmp_path: Path) -> None:
    known = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
    fresh = HubSeries(spec("14m"), tmp_path / "other", endpoint=hub.url)
    fresh.pin({0: known.commit(2)})
    asked = refs(hub)
    again = copied(fresh)
    assert again.open(0).commit == known.commit(2)
    assert again.survey([0])[0].error is None
    assert refs(hub) == asked
    assert again.commit(1) == known.commit(1)  # which was not pinned, nor listed
    assert refs(hub) == asked + 1
    fresh.pin({0: known.commit(0)})
    assert again.commit(0) == known.commit(2), "it shares nothing with the first"


def test_a_copy_that_knows_nothing_asks_for_itself(hub: HubServer, tmp_path: Path) -> None:
    series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
    pickled = pickle.dumps(series)
    assert hub.requests == ()
    assert pickle.loads(pickled).open(1).step == 1
    assert refs(hub) == 1


def test_where_a_copy_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = {
        cache_dir: pickle.dumps(HubSeries(spec("14m"), cache_dir, endpoint="http://localhost/"))
        for cache_dir in ("here", "~/there", str(tmp_path / "full"), None)
    }
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # of the other machine
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "its"))
    found = {cache_dir: pickle.loads(pickled) for cache_dir, pickled in made.items()}
    assert found["here"].folder == tmp_path / "here" / "checkpoints"
    assert found["~/there"].folder == tmp_path / "home/there/checkpoints"
    assert found[str(tmp_path / "full")].folder == tmp_path / "full/checkpoints"
    assert found[None].folder.is_relative_to(tmp_path / "its"), "a store of that machine's own"
    assert all(each.source == f"http://localhost/{REPO}" for each in found.values())


def test_a_copy_is_fetched_ahead_by_itself(hub: HubServer, tmp_path: Path) -> None:
    series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
    with series.ahead(STEPS):
        for again in (copied(series), copy.copy(series), copy.deepcopy(series)):
            with again.ahead(STEPS):
                assert again.open(0).step == 0
        assert series.open(0).step == 0


def test_a_hub_that_is_gone_is_told_by_the_copy(hub: HubServer, tmp_path: Path) -> None:
    series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
    series.survey(STEPS)
    again = copied(series)
    hub.fail("/tree/", status=403, times=100)
    assert again.survey([0])[0].error is None  # listed before, and kept in the store
    other = HubSeries(spec("14m"), tmp_path / "other", endpoint=hub.url)
    other.pin({0: series.commit(0)})
    with pytest.raises(HubError, match="403"):
        copied(other).open(0)


def test_what_was_listed_is_not_asked_for_again(hub: HubServer, tmp_path: Path) -> None:
    """Not even where nothing is kept of it, as on another machine."""
    series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
    series.survey([0, 1])
    pickled = pickle.dumps(series)
    (tmp_path / "cache").rename(tmp_path / "of the first")
    listings = sum("/tree/" in each.path for each in hub.requests)
    assert listings == 2
    again = pickle.loads(pickled)
    assert again.survey([0, 1]) == series.survey([0, 1])
    assert again.open(1).weights_sha256 == series.survey([1])[1].weights_sha256
    assert sum("/tree/" in each.path for each in hub.requests) == listings
    assert again.survey([2])[2].error is None
    assert sum("/tree/" in each.path for each in hub.requests) == listings + 1
    assert series._listed.known[1].keys() < again._listed.known[1].keys()
