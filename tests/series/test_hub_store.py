"""The Hub's checkpoints on a disk that is small, shared, full or damaged, or without a network."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import stamina
from huggingface_hub import constants

from pythia_fast.core import File
from pythia_fast.errors import (
    ArgumentError,
    ChecksumError,
    HubError,
    MissingCheckpointError,
    OfflineError,
    ReadError,
    WriteError,
)
from pythia_fast.hub import body, download
from pythia_fast.hub.download import PATIENCE_S, Downloader
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.ranges import RangeReader
from pythia_fast.series import LocalSeries, fetching, listed, surveying
from pythia_fast.series.hub import HubSeries
from pythia_fast.series.lookahead import LookAhead, depth
from pythia_fast.store import store
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import HubServer, make_series, tiny

Interrupted = Callable[[Callable[[], bool]], AbstractContextManager[None]]
Until = Callable[[Callable[[], bool]], None]
REPO = "EleutherAI/pythia-14m"
STEPS = (0, 1, 2, 4, 8, 16)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    stamina.set_testing(True, attempts=4)
    monkeypatch.setattr(store, "LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr(fetching, "FULL_PAUSE_S", 0.001)
    yield
    stamina.set_testing(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Architecture) -> Path:
    """Six steps in shards; the weights of step 1 are those of step 0. Not to be written to."""
    folder = make_series(
        tmp_path_factory.mktemp("hub") / "series",
        tiny,
        STEPS,
        formats=("safetensors",),
        shard_bytes=120_000,
    )
    shutil.rmtree(folder / "step1")
    shutil.copytree(folder / "step0", folder / "step1")
    (folder / "step1/README.md").write_text("another commit")
    return folder


@pytest.fixture(scope="module")
def size(folder: Path) -> int:
    """What a checkpoint takes."""
    return sum(path.stat().st_size for path in (folder / "step0").glob("*.safetensors"))


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    with HubServer({REPO: {f"step{step}": folder / f"step{step}" for step in STEPS}}) as server:
        yield server


def series(hub: HubServer, cache: Path, budget: int | None = None) -> HubSeries:
    return HubSeries(spec("14m"), cache, endpoint=hub.url, disk_budget=budget)


def stored(cache: Path) -> int:
    """What weights take in the store, complete or not; of two names of a file one counts."""
    root = cache / "checkpoints"
    sizes = {}
    for path in (*(root / "blobs").iterdir(), *(root / "partial").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
            record = path.name.startswith(("git-", ".git-")) or path.name.endswith(".done")
            if not record:
                sizes[path.stat().st_ino] = path.stat().st_size
    return sum(sizes.values())


def downloads(hub: HubServer) -> list[str]:
    """The weights files that were asked for, with their commits."""
    found = [
        each.path for each in hub.requests if each.method == "GET" and "/resolve/" in each.path
    ]
    return [path for path in found if path.endswith((".safetensors", ".bin"))]


def test_a_survey_takes_two_requests_a_step_and_none_the_next_time(
    hub: HubServer, folder: Path, tmp_path: Path, size: int
) -> None:
    first = series(hub, tmp_path)
    found = first.survey(STEPS)
    assert len(hub.requests) == 1 + len(STEPS)
    assert hub.count("/resolve/") == 0
    for step, revision in found.items():
        local = LocalSeries(folder).open(step)
        assert revision.step == step
        assert revision.commit == first.commit(step)
        assert revision.weights_sha256 == local.weights_sha256
        assert [(file.path, file.size) for file in revision.files] == [
            (file.name, file.size) for file in local.files
        ]
        assert (revision.nbytes, revision.here_bytes, revision.download_bytes) == (size, 0, size)
        assert revision.error is None
    assert found[0].weights_sha256 == found[1].weights_sha256 != found[2].weights_sha256
    first.open(2)
    before = len(hub.requests)
    again = series(hub, tmp_path).survey(STEPS)
    assert len(hub.requests) == before + 1  # only where the branches are
    assert {step: each.here_bytes for step, each in again.items() if each.here_bytes} == {2: size}


def test_what_a_survey_finds_wrong(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, step in (("config.json", 0), ("model.safetensors.index.json", 1)):
        shutil.copytree(folder / f"step{step}", tmp_path / f"step{step}")
        (tmp_path / f"step{step}" / name).unlink()
        hub.publish(REPO, f"step{step}", tmp_path / f"step{step}")
    found = series(hub, tmp_path / "cache").survey([0, 1, 2, 32])
    assert {step: type(each.error) for step, each in found.items()} == {
        **dict.fromkeys((0, 1, 32), MissingCheckpointError),
        2: type(None),
    }
    assert "no config" in str(found[0].error)
    assert "no weights" in str(found[1].error)
    assert "no branch step32" in str(found[32].error)


def test_shards_that_their_names_leave_in_doubt(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    """Those of an earlier upload lie beside them: the index says which count."""
    shutil.copytree(folder / "step0", tmp_path / "step0")
    (tmp_path / "step0/model-00001-of-00009.safetensors").write_bytes(b"of an earlier upload")
    hub.publish(REPO, "step0", tmp_path / "step0")
    found = series(hub, tmp_path / "cache")
    expected = LocalSeries(folder).open(0)
    assert found.survey([0])[0].weights_sha256 == expected.weights_sha256
    assert found.open(0).weights_sha256 == expected.weights_sha256
    assert [file.path for file in found.listing("step0")] == sorted(
        path.name for path in (tmp_path / "step0").iterdir()
    )
    with pytest.raises(MissingCheckpointError, match="no branch main"):
        found.listing("main")


def test_pinned_commits_are_used_wherever_the_branches_are(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    first = series(hub, tmp_path)
    commits = {step: first.commit(step) for step in STEPS}
    hub.publish(REPO, "step0", folder / "step16")
    hub.publish(REPO, "step2", folder / "step16")
    second = series(hub, tmp_path)
    asked = hub.count("/refs")
    second.pin(commits)
    assert second.open(0).commit == second.identity(0) == second.survey([0])[0].commit == commits[0]
    assert hub.count("/refs") == asked
    with pytest.raises(ArgumentError, match="no commit"):
        second.pin({0: "main"})


def test_offline_what_was_fetched_is_opened_without_a_request(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = series(hub, tmp_path)
    online.survey(STEPS)
    online.open(0)
    before = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = series(hub, tmp_path)
    assert offline.open(0).weights_sha256 == LocalSeries(folder).open(0).weights_sha256
    with offline.ahead([0, 1]):
        assert offline.open(1).step == 1  # the weights are those of step 0
    with pytest.raises(OfflineError):
        offline.open(2)
    with pytest.raises(OfflineError):
        series(hub, tmp_path / "empty").open(0)
    assert len(hub.requests) == before


def test_without_a_network_branches_are_where_they_were_last(
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listed, "UNREACHED_S", 0.2)
    with HubServer({REPO: {"step0": folder / "step0", "step2": folder / "step2"}}) as hub:
        first = series(hub, tmp_path)
        first.survey([0, 2])
        first.open(0)
    later = HubSeries(spec("14m"), tmp_path, endpoint=first.source.removesuffix(f"/{REPO}"))
    assert later.open(0).commit == first.commit(0)
    assert "where they were last seen" in caplog.text
    with pytest.raises(HubError):
        later.open(2)


def test_the_network_comes_back(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is short until something has come, for small files too, and then as ever."""
    monkeypatch.setattr(listed, "UNREACHED_S", 0.2)
    series(hub, tmp_path).survey(STEPS)

    def down(repo: str, *, endpoint: str) -> dict[str, str]:
        raise HubError("no answer") from TimeoutError("no answer")

    later = series(hub, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(listed, "list_branches", down)
        later.commit(0)
    hub.fail("/resolve/", status=503, times=10_000)
    with pytest.raises(HubError, match="no byte has come for"):
        later.file(0, "config.json")
    with later.ahead([0]) as ahead:
        assert ahead.downloader._patience_s == 0.2
        with pytest.raises(HubError, match="no byte has come for"):
            later.open(0)
    hub._state._faults.clear()
    with later.ahead([0]) as ahead:
        later.open(0)
        assert ahead.downloader._patience_s == PATIENCE_S
        later.open(2)
    with later.ahead([4]) as ahead:
        assert ahead.downloader._patience_s == PATIENCE_S


def test_an_index_that_does_not_come_does_not_hold_up_who_leaves(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says which files a step has, so that it is asked for before any of them is claimed."""
    shutil.copytree(folder / "step2", tmp_path / "step2")
    (tmp_path / "step2/model-00001-of-00009.safetensors").write_bytes(b"of an earlier upload")
    hub.publish(REPO, "step2", tmp_path / "step2")
    found = series(hub, tmp_path / "cache")
    start = LookAhead.start

    def start_without_index(self: LookAhead) -> None:
        for path in (tmp_path / "cache/checkpoints/blobs").glob("git-*"):
            path.unlink()
        hub.hang("index.json", times=1000)
        monkeypatch.setattr(Downloader, "submit", noted)
        start(self)

    submit, asked = Downloader.submit, threading.Event()

    def noted(self: Downloader, reader: RangeReader, file: HubFile, partial: Path) -> Any:
        future = submit(self, reader, file, partial)
        if file.path.endswith("index.json"):
            asked.set()
        return future

    monkeypatch.setattr(LookAhead, "start", start_without_index)
    left = threading.Event()

    def work() -> None:
        with found.ahead([2]):
            assert asked.wait(20)
        left.set()

    threading.Thread(target=work, daemon=True).start()
    assert asked.wait(20)
    assert left.wait(10)


def test_a_refusal_is_no_missing_network_and_nor_is_nonsense(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(hub, tmp_path).open(0)
    hub.fail("/refs", status=403)
    with pytest.raises(HubError, match="403"):
        series(hub, tmp_path).open(0)

    def nonsense(repo: str, *, endpoint: str) -> dict[str, str]:
        raise HubError("no JSON") from ValueError("no JSON")

    monkeypatch.setattr(listed, "list_branches", nonsense)
    with pytest.raises(HubError, match="no JSON"):
        series(hub, tmp_path).open(0)


def test_what_the_hubs_own_cache_has_is_read_there(
    hub: HubServer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.snapshot_download(REPO, revision="step0", cache_dir=tmp_path, endpoint=hub.url)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    fetched = len(downloads(hub))
    found = series(hub, tmp_path, budget=1)  # what is there takes none of it
    assert found.survey([0])[0].download_bytes == 0
    with found.ahead([0]):
        checkpoint = found.open(0)
    assert all("models--EleutherAI" in str(file.path) for file in checkpoint.files)
    assert len(downloads(hub)) == fetched
    shard = checkpoint.files[0].path.resolve()
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert found.survey([0])[0].download_bytes == 0  # by its size
    again = series(hub, tmp_path).open(0)
    assert again.weights_sha256 == LocalSeries(folder).open(0).weights_sha256
    assert "checkpoints/blobs" in str(again.files[0].path)
    assert len(downloads(hub)) == fetched + 1
    assert shard.read_bytes() != content  # not ours to put right
    series(hub, tmp_path).open(0)
    (told,) = [each.getMessage() for each in caplog.records if "damaged" in each.getMessage()]
    assert told.startswith(f"{shard}, in huggingface_hub's cache, is damaged or gone: ")
    assert told.endswith(f" of {REPO} at {found.commit(0)[:12]} is not read there; remove it")
    assert {path for path in before if not path.exists()} == set()


def test_steps_are_fetched_ahead_within_the_budget(
    hub: HubServer, folder: Path, tmp_path: Path, size: int
) -> None:
    expected = {step: LocalSeries(folder).open(step).weights_sha256 for step in STEPS}
    for checkpoints in (1, 2, 3, None):
        cache = tmp_path / str(checkpoints)
        found = series(hub, cache, budget=checkpoints and checkpoints * size)
        largest = 0
        with found.ahead(STEPS) as ahead:
            for step in STEPS:
                checkpoint = found.open(step)
                assert checkpoint.weights_sha256 == expected[step]
                assert checkpoint.fetch is not None
                largest = max(largest, stored(cache))
                checkpoint.close()
            received = ahead.received_bytes
        assert 5 * size <= received < 5 * size + 20_000  # two of the six are the same
        assert largest <= (checkpoints or 5) * size
        assert found._store.lease.others() == []
        assert found._store.lease.claims.using == frozenset()
    assert len(downloads(hub)) == 4 * 5 * 3


def test_what_is_opened_out_of_turn(hub: HubServer, tmp_path: Path, size: int) -> None:
    found = series(hub, tmp_path, budget=3 * size)
    with found.ahead([0, 2, 4]):
        found.open(2).close()
        found.open(0).close()  # given up when 2 was opened
        found.open(16).close()  # not in the list
        found.open(4).close()
    with found.ahead([]):
        found.open(8).close()
    assert found._store.lease.claims.using == frozenset()


def test_one_step_out_of_turn_does_not_empty_the_look_ahead(
    hub: HubServer, tmp_path: Path, size: int, until: Until
) -> None:
    found = series(hub, tmp_path, budget=2 * size)
    with found.ahead([0, 2, 4, 8]) as ahead:
        first = found.open(0)
        until(ahead._entries[2].future.done)  # it has the room that step 16 will need
        found.open(16).close()
        assert list(ahead._entries) == [4, 8]
        first.close()


def test_a_step_that_cannot_be_fetched_fails_when_it_is_opened(
    hub: HubServer, tmp_path: Path
) -> None:
    found = series(hub, tmp_path)
    with found.ahead([0, 32, 4]):
        found.open(0)
        with pytest.raises(MissingCheckpointError, match="no branch step32"):
            found.open(32)
        assert found.open(4).step == 4


def test_steps_that_turn_up_are_fetched_ahead_too(
    hub: HubServer, folder: Path, tmp_path: Path, size: int, until: Until
) -> None:
    found = series(hub, tmp_path, budget=4 * size)
    with found.ahead([0]) as ahead:
        found.open(0).close()
        ahead.extend([2, 4, 32])
        until(lambda: all(found.survey([step])[step].download_bytes == 0 for step in (2, 4)))
        received = ahead.received_bytes
        for step in (2, 4):
            checkpoint = found.open(step)
            assert checkpoint.weights_sha256 == LocalSeries(folder).open(step).weights_sha256
            checkpoint.close()
        assert 3 * size <= ahead.received_bytes == received
        with pytest.raises(MissingCheckpointError, match="no branch step32"):
            found.open(32)
        ahead.extend([8])
        assert found.open(8).step == 8
    ahead.extend([16])
    found.open(16).close()
    assert len(downloads(hub)) == 5 * 3
    assert found._store.lease.others() == []


def test_a_step_that_turns_up_must_fit_the_budget_too(
    hub: HubServer, tmp_path: Path, size: int
) -> None:
    larger = make_series(tmp_path / "larger", tiny(width=128), (4,), formats=("safetensors",))
    hub.publish(REPO, "step4", larger / "step4")
    found = series(hub, tmp_path / "cache", budget=2 * size)
    with found.ahead([0]) as ahead:
        ahead.extend([4, 2])
        found.open(0).close()
        with pytest.raises(ArgumentError, match="too small"):
            found.open(4)
        found.open(2).close()
        ahead.extend([8])
        found.open(8).close()
        assert isinstance(ahead.failed, ArgumentError)
    assert stored(tmp_path / "cache") <= 2 * size


def test_what_is_dropped_gives_its_room_to_others(
    hub: HubServer, tmp_path: Path, size: int, until: Until
) -> None:
    found = series(hub, tmp_path, budget=3 * size)
    with found.ahead([0, 2, 4]) as ahead:
        first = found.open(0)
        until(lambda: found.survey([2])[2].download_bytes == 0)
        ahead.drop(4)
        ahead.drop(2)
        using = {file.sha256 for file in first.files}
        until(lambda: found._store.lease.claims.using == using)
        asked = len(downloads(hub))
        found.open(2).close()  # it is here still, and is not fetched again
        assert len([path for path in downloads(hub) if found.commit(2) in path]) == 3
        assert len(downloads(hub)) <= asked + 3
        first.close()


def test_a_step_that_is_given_up_is_fetched_no_further(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = series(hub, tmp_path)
    given_up = found.commit(0)
    under_way, let_go = threading.Event(), threading.Event()
    stopped: list[bool] = []
    real = RangeReader.stream

    def stream(self: RangeReader, file: HubFile, *arguments: Any, **settings: Any) -> None:
        if self.commit == given_up and file.path.endswith(".safetensors"):
            under_way.set()
            assert let_go.wait(20)
            stopped.append(settings["stopped"]())
        real(self, file, *arguments, **settings)

    monkeypatch.setattr(RangeReader, "stream", stream)
    with found.ahead([0, 2]) as ahead:
        assert under_way.wait(20)
        step0 = ahead._entries[0].future
        found.open(2).close()
        assert isinstance(step0.exception(20), HubError), "it waits for nothing that still comes"
        assert found._store.lease.claims.fetching == {}
        let_go.set()
    assert stopped
    assert all(stopped)


def test_a_shard_that_has_come_is_not_fetched_again(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """Its step was given up while the others were on their way."""
    found = series(hub, tmp_path)
    files = found.survey([0])[0].files
    last, left = files[-1].path, files[-1].size
    waits, let_go = threading.Event(), threading.Event()
    real = RangeReader.stream

    def stream(self: RangeReader, file: HubFile, *arguments: Any, **settings: Any) -> None:
        if file.path == last:
            waits.set()
            assert let_go.wait(20)
        real(self, file, *arguments, **settings)

    monkeypatch.setattr(RangeReader, "stream", stream)
    with found.ahead([0]) as ahead:
        future = ahead._entries[0].future
        assert waits.wait(20)
        until(lambda: found.survey([0])[0].download_bytes == left)
        ahead.drop(0)
        assert isinstance(future.exception(20), HubError)
        let_go.set()
        asked = len(downloads(hub))
        found.open(0).close()
    assert {path.rpartition("/")[2] for path in downloads(hub)[asked:]} == {last}


def test_a_second_look_ahead_would_take_the_steps_of_the_first(
    hub: HubServer, tmp_path: Path
) -> None:
    found = series(hub, tmp_path)
    with found.ahead([0, 2]):
        with pytest.raises(ArgumentError, match="fetched ahead already"), found.ahead([2]):
            pass
        assert found.open(0).step == 0
    with found.ahead([2]):
        assert found.open(2).step == 2


def test_an_interrupt_before_the_first_step_leaves_nothing(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: LookAhead) -> None:
        raise KeyboardInterrupt

    found = series(hub, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(LookAhead, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), found.ahead([0]):
            pass
    with found.ahead([0]):
        assert found.open(0).step == 0


def test_a_refused_listing_is_of_its_step_alone(hub: HubServer, tmp_path: Path) -> None:
    found = series(hub, tmp_path)
    hub.fail(f"/tree/{found.commit(2)}", status=403)
    surveyed = found.survey(STEPS)
    assert [step for step, each in surveyed.items() if each.error is not None] == [2]
    assert "403" in str(surveyed[2].error)
    assert found.survey([2])[2].error is None
    hub.fail("/tree/", status=503, times=1000)
    with pytest.raises(HubError, match="503"):
        series(hub, tmp_path / "another").survey(STEPS)


def test_a_refused_index_is_of_its_step_alone(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.001)
    shutil.copytree(folder / "step2", tmp_path / "step2")
    (tmp_path / "step2/model-00001-of-00009.safetensors").write_bytes(b"of an earlier upload")
    hub.publish(REPO, "step2", tmp_path / "step2")
    hub.fail("index.json", status=400, times=1000)
    surveyed = series(hub, tmp_path / "cache").survey([0, 2, 4])
    assert [step for step, each in surveyed.items() if each.error is not None] == [2]
    assert "400" in str(surveyed[2].error)


def test_who_leaves_need_not_wait(hub: HubServer, tmp_path: Path, size: int, until: Until) -> None:
    """Nor does an `open` in another thread that waits for room which never comes."""
    found = series(hub, tmp_path, budget=size)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            found.open(2)
        except HubError as error:
            caught.append(error)

    with found.ahead([0, 2]) as ahead:
        held = found.open(0)
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: found._store.lease.claims.waiting_bytes > 0)
        assert ahead.waits_for_room
    thread.join(20)
    assert not thread.is_alive()
    assert "look-ahead was left" in str(caught[0])
    held.close()
    assert found._store.lease.claims.using == frozenset()


@pytest.mark.parametrize("what", ["/resolve/", "config.json", "/tree/"])
def test_a_server_that_hangs_does_not_hold_up_who_leaves(
    hub: HubServer, tmp_path: Path, what: str, interrupted: Interrupted
) -> None:
    hub.hang(what, times=1000)
    found = series(hub, tmp_path)

    def work() -> None:
        with found.ahead(STEPS):
            found.open(0)

    start_s = time.monotonic()
    with interrupted(lambda: hub.spoiled.get("hang", 0) > 0), pytest.raises(KeyboardInterrupt):
        work()
    assert time.monotonic() - start_s < body.STALL_S, "it did not wait for the server"
    assert found._store.lease.claims.using == frozenset()
    assert found._store.lease.claims.fetching == {}


def test_a_closed_checkpoint_gives_its_room_back(hub: HubServer, tmp_path: Path, size: int) -> None:
    found = series(hub, tmp_path, budget=size)
    first = found.open(0)
    with pytest.raises(ArgumentError, match="close those checkpoints first"):
        found.open(2)
    digest = first.weights_sha256
    first.close()
    first.close()
    assert first.weights_sha256 == digest
    assert not first.tensors
    second = found.open(2)
    del second  # nobody has it any more
    third = found.open(4)
    assert stored(tmp_path) == size
    assert third.tensors


def test_a_budget_that_is_too_small(hub: HubServer, tmp_path: Path, size: int) -> None:
    found = series(hub, tmp_path, budget=size - 1)
    with pytest.raises(ArgumentError, match=f"give at least {size} bytes"):
        found.open(0)
    with pytest.raises(ArgumentError, match="too small"), found.ahead([0, 1]):
        pass
    assert not downloads(hub)
    with pytest.raises(ArgumentError, match="no size"):
        HubSeries(spec("14m"), tmp_path, disk_budget="much")


@pytest.mark.parametrize("times", [1, 3])
def test_a_full_disk_is_made_room_on_and_tried_again(
    hub: HubServer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
) -> None:
    found = series(hub, tmp_path)
    found.open(0).close()
    refuse_to_write(monkeypatch, times)
    assert found.open(2).weights_sha256 == LocalSeries(folder).open(2).weights_sha256
    assert not found._store.has(found.survey([0])[0].files[0])  # it had to go
    refuse_to_write(monkeypatch, 100)
    with pytest.raises(WriteError) as caught:
        found.open(4)
    assert caught.value.errno == errno.ENOSPC
    assert found._store.lease.claims.fetching == {}


def test_a_disk_that_is_full_for_a_name_does_not_cost_the_bytes(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    found = series(hub, tmp_path)
    publish = found._store.publish
    left = [3]

    def full(*arguments: object) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise WriteError(errno.ENOSPC, "no space left")
        publish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(found._store, "publish", full)
    fetch = found.open(0).fetch
    assert fetch is not None
    assert fetch.received_bytes == size
    assert len(downloads(hub)) == 3
    left[0] = 100
    with pytest.raises(WriteError, match="no space left"):
        found.open(2)
    assert found._store.lease.claims.fetching == {}


def refuse_to_write(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next files find the disk full."""
    left = [times]
    fetch = Downloader._fetch  # type: ignore[attr-defined]

    def full(*arguments: object) -> object:
        left[0] -= 1
        if left[0] >= 0:
            raise WriteError(errno.ENOSPC, "no space left")
        return fetch(*arguments)

    monkeypatch.setattr(Downloader, "_fetch", full)


def test_damaged_blobs_are_fetched_anew(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    first = series(hub, tmp_path).open(0)
    paths = [file.path for file in first.files]
    paths[0].write_bytes(b"torn")
    rotten = bytearray(paths[1].read_bytes())
    rotten[-1] ^= 1
    paths[1].write_bytes(rotten)
    assert series(hub, tmp_path).open(0).weights_sha256 == first.weights_sha256
    assert len(downloads(hub)) == 3 + 2
    assert (tmp_path / "checkpoints/partial" / f"{paths[0].name}.wrong").read_bytes() == b"torn"


def test_a_blob_that_the_system_does_not_open_is_not_damaged(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = series(hub, tmp_path)
    first = found.open(0)
    before = {path: path.stat().st_ino for path in (tmp_path / "checkpoints/blobs").iterdir()}
    fetched = len(hub.requests)

    for refused in (found.file(0, "config.json").name, first.files[0].path.name):

        def opened(path: Path, refused: str = refused) -> File:
            if path.name == refused:
                raise ReadError(errno.EMFILE, f"cannot open {path}: Too many open files")
            return File(path)

        with monkeypatch.context() as patch:
            patch.setattr(fetching, "File", opened)
            with pytest.raises(ReadError, match="Too many open files"):
                found.open(0)
    assert found.open(0).step == 0
    assert {path: path.stat().st_ino for path in before} == before
    assert len(hub.requests) == fetched


def test_a_good_file_that_the_user_put_there_is_read_where_the_hubs_copy_is_damaged(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.snapshot_download(REPO, revision="step0", cache_dir=tmp_path, endpoint=hub.url)
    found = series(hub, tmp_path)
    file = found.survey([0])[0].files[0]
    copy = tmp_path / "models--EleutherAI--pythia-14m/blobs" / str(file.sha256)
    rotten = bytearray(copy.read_bytes())
    rotten[-1] ^= 1
    copy.write_bytes(rotten)
    blob = found._store.places.blob(str(file.sha256))
    blob.parent.mkdir(parents=True)
    shutil.copy(folder / "step0" / file.path, blob)
    before = blob.stat()
    fetched = len(downloads(hub))
    assert found.open(0).files[0].path == blob
    assert os.path.samestat(blob.stat(), before)
    assert len(downloads(hub)) == fetched
    blob.write_bytes(rotten)
    with pytest.raises(ChecksumError, match=r"put there by somebody.*remove it, and it is"):
        series(hub, tmp_path).open(0)
    assert blob.read_bytes() == rotten
    assert found._store.lease.claims.using <= {str(file.sha256)}
    blob.unlink()
    assert series(hub, tmp_path).open(0).step == 0


def test_a_blob_that_another_process_has_mended_stays(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = series(hub, tmp_path).open(0).files[0].path
    rotten = bytearray(path.read_bytes())
    rotten[-1] ^= 1
    path.write_bytes(rotten)
    first, second = series(hub, tmp_path), series(hub, tmp_path)
    quarantine = first._store.quarantine
    mended: list[os.stat_result] = []

    def slower(digest: str, damaged: File) -> None:
        second.open(0).close()
        mended.append(path.stat())
        quarantine(digest, damaged)

    monkeypatch.setattr(first._store, "quarantine", slower)
    fetched = len(downloads(hub))
    assert first.open(0).step == 0
    assert os.path.samestat(path.stat(), mended[0])
    assert len(downloads(hub)) == fetched + 1


@pytest.mark.parametrize("checkpoints", [1, 2])
def test_a_damaged_blob_is_fetched_anew_within_the_budget(
    hub: HubServer, folder: Path, tmp_path: Path, size: int, checkpoints: int
) -> None:
    first = series(hub, tmp_path, checkpoints * size).open(0)
    path = first.files[0].path
    first.close()
    rotten = bytearray(path.read_bytes())
    rotten[-1] ^= 1
    path.write_bytes(rotten)
    again = series(hub, tmp_path, checkpoints * size).open(0)
    assert again.weights_sha256 == first.weights_sha256
    assert stored(tmp_path) <= checkpoints * size
    wrong = tmp_path / "checkpoints/partial" / f"{path.name}.wrong"
    assert wrong.exists() == (checkpoints == 2)


@pytest.mark.parametrize("checkpoints", [1, 3])
def test_wrong_bytes_are_kept_where_there_is_room(
    hub: HubServer, tmp_path: Path, size: int, checkpoints: int
) -> None:
    hub.corrupt("00001-of")
    found = series(hub, tmp_path, checkpoints * size)
    checkpoint = found.open(0)
    assert stored(tmp_path) <= checkpoints * size
    assert len(list(tmp_path.rglob("*.wrong"))) == (checkpoints == 3)
    checkpoint.close()
    hub.corrupt("00002-of", times=2)
    with pytest.raises(ChecksumError) as caught:
        found.open(2)
    assert ("no room to keep them" in str(caught.value)) == (checkpoints == 1)
    assert stored(tmp_path) <= checkpoints * size


def test_a_small_file_that_is_wrong(hub: HubServer, tmp_path: Path) -> None:
    hub.corrupt("config.json")
    found = series(hub, tmp_path)
    assert found.open(0).step == 0
    assert hub.count("config.json") == 2
    path = found.file(0, "config.json")
    path.write_text("{}")
    assert found.open(0).step == 0
    path.write_text("{}")
    hub.corrupt("config.json", times=2)
    with pytest.raises(ChecksumError, match=r"config\.json"):
        found.file(0, "config.json")
    with pytest.raises(MissingCheckpointError, match=r"tokenizer\.json"):
        found.file(0, "tokenizer.json")


def test_depth_follows_the_budget() -> None:
    assert [depth(budget, 10) for budget in (10, 30, 39, 40, 99, 100, 10_000)] == [
        *(1, 1, 1, 2, 7, 8, 8)
    ]
    assert depth(None, 10) == depth(40, 0) == 4


SWEEP = """
import sys
from pythia_fast.series.hub import HubSeries
from pythia_fast.store import store
from pythia_fast.suite import spec
store.LOOK_AGAIN_S = 0.02
url, cache, budget, *steps = sys.argv[1:]
steps = [int(step) for step in steps]
series = HubSeries(spec("14m"), cache, endpoint=url, disk_budget=int(budget) or None)
with series.ahead(steps):
    for step in steps:
        checkpoint = series.open(step)
        print(step, checkpoint.weights_sha256, flush=True)
        if sys.stdin.readline() != "go\\n":
            break
        checkpoint.close()
"""


class Sweep:
    """Another process that opens step after step, each when it is told to go on."""

    def __init__(self, hub: HubServer, cache: Path, budget: int, steps: tuple[int, ...]) -> None:
        command = [sys.executable, "-c", SWEEP, hub.url, str(cache), str(budget), *map(str, steps)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def next(self) -> list[str]:
        """The step that it has opened and its weights' sha256."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait() == 0


def test_two_processes_share_a_store_and_its_budget(
    hub: HubServer, folder: Path, tmp_path: Path, size: int
) -> None:
    steps = (0, 2, 4, 8, 16)
    expected = [[str(s), LocalSeries(folder).open(s).weights_sha256] for s in steps]
    budget = 2 * size
    sweeps = [Sweep(hub, tmp_path, budget, steps) for _ in range(2)]
    largest = 0
    for row in expected:
        for sweep in sweeps:
            assert sweep.next() == row
        largest = max(largest, stored(tmp_path))
        for sweep in sweeps:
            sweep.go()
    for sweep in sweeps:
        sweep.end()
    assert largest <= budget
    assert len(downloads(hub)) == len(set(downloads(hub))) == 3 * len(steps)
    assert list((tmp_path / "checkpoints/leases").iterdir()) == []


def test_two_processes_in_opposite_order_with_room_for_one(
    hub: HubServer, tmp_path: Path, size: int
) -> None:
    steps = (0, 2, 4)
    sweeps = [Sweep(hub, tmp_path, size, order) for order in (steps, steps[::-1])]

    def work(sweep: Sweep) -> None:
        for _ in steps:
            assert sweep.next()
            assert stored(tmp_path) <= size
            sweep.go()
        sweep.end()

    threads = [threading.Thread(target=work, args=(sweep,)) for sweep in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sweep.process.returncode == 0 for sweep in sweeps)


def test_the_room_of_a_killed_process_is_free_at_once(
    hub: HubServer, tmp_path: Path, size: int
) -> None:
    sweep = Sweep(hub, tmp_path, size, (0,))
    assert sweep.next()
    found = series(hub, tmp_path, budget=size)
    assert found._store.lease.others()[0].identity.pid == sweep.process.pid
    sweep.process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, sweep.process.pid, os.WEXITED | os.WNOWAIT)
    assert found.open(2).step == 2
    assert stored(tmp_path) == size
    with sweep.process:
        pass


def test_a_closed_checkpoint_keeps_no_place_on_the_disk(
    hub: HubServer, tmp_path: Path, size: int, until: Until
) -> None:
    """A file that is open takes its place, whether it has a name or not."""

    def opened() -> set[str]:
        found = set()
        for each in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile by another thread
                found.add(os.readlink(f"/proc/self/fd/{each}"))  # noqa: PTH115
        return found

    found = series(hub, tmp_path, budget=size)
    with found.ahead([0, 2, 4]) as ahead:
        checkpoint = found.open(0)
        names = tuple(str(file.path) for file in checkpoint.files)
        assert opened().issuperset(names)
        until(lambda: ahead.waits_for_room)
        checkpoint.close()
        assert not [link for link in opened() if link.startswith(names)]
        found.open(2).close()
        found.open(4).close()


def test_offline_what_is_not_here_is_known_before_the_start(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = series(hub, tmp_path)
    online.survey([0, 2])
    online.open(0).close()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    surveyed = series(hub, tmp_path).survey([0, 2])
    assert surveyed[0].error is None
    assert isinstance(surveyed[2].error, OfflineError)


class TestTheHubIsAway:
    """It answers 5xx, or nothing at all; what is needed was fetched before."""

    @pytest.fixture(params=["500", "503", "nobody"])
    def away(
        self,
        hub: HubServer,
        tmp_path: Path,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[Callable[[], HubSeries]]:
        """Steps 0, 1, 2 and 4 were surveyed, and those but 4 fetched. No answer from then on."""
        monkeypatch.setattr(listed, "UNREACHED_S", 0.2)
        url = hub.url
        before = series(hub, tmp_path)
        before.survey([0, 1, 2, 4])
        for step in (0, 2):
            before.open(step).close()
        if request.param == "nobody":
            hub.__exit__(None, None, None)
        else:
            hub.fail("", status=int(request.param), times=100_000)
        yield lambda: HubSeries(spec("14m"), tmp_path, endpoint=url)
        if request.param == "nobody":
            hub.__enter__()

    def test_what_is_here_is_opened_at_the_commit_that_was_listed(
        self,
        away: Callable[[], HubSeries],
        folder: Path,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        (listing,) = tmp_path.rglob("branches.json")
        branches = json.loads(listing.read_text())["branches"]
        found = away()
        surveyed = found.survey([0, 1, 2])
        assert [each.error for each in surveyed.values()] == [None] * 3
        with found.ahead([0, 2]):
            for step in (0, 2):
                checkpoint = found.open(step)
                assert checkpoint.commit == found.identity(step) == branches[f"step{step}"]
                assert checkpoint.weights_sha256 == LocalSeries(folder).open(step).weights_sha256
        (line,) = [text for text in caplog.messages if "last seen" in text]
        assert "going on with what is on this machine" in line

    def test_only_what_is_not_here_is_an_error_and_named(
        self, away: Callable[[], HubSeries]
    ) -> None:
        found = away()
        surveyed = found.survey(STEPS)
        assert [step for step, each in surveyed.items() if each.error is not None] == [8, 16]
        for step in (8, 16):
            assert f"the files of step {step} of 14m are not known" in str(surveyed[step].error)
            assert isinstance(surveyed[step].error, HubError)
        with pytest.raises(HubError, match=r"could not be had|no byte has come"):
            found.open(4)

    def test_without_a_listing_nothing_is_known(
        self, away: Callable[[], HubSeries], tmp_path: Path
    ) -> None:
        (listing,) = tmp_path.rglob("branches.json")
        listing.unlink()
        with pytest.raises(HubError, match="its branches could not be had"):
            away().survey([0])

    def test_after_one_that_is_not_answered_no_other_is_asked_for(
        self,
        away: Callable[[], HubSeries],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(surveying, "_LISTED_AT_A_TIME", 1)
        for path in tmp_path.glob("checkpoints/listings/*/*.json"):
            if path.stem != "branches":
                path.unlink()
        asked: list[str] = []
        list_files = listed.list_files

        def asking(repo: str, commit: str, *, endpoint: str) -> tuple[HubFile, ...]:
            asked.append(commit)
            return list_files(repo, commit, endpoint=endpoint)

        monkeypatch.setattr(listed, "list_files", asking)
        surveyed = away().survey(STEPS)
        assert {step for step, each in surveyed.items() if each.error is not None} == {*STEPS}
        assert len(asked) == 1


def test_offline_a_step_whose_files_are_not_known_is_an_error_of_its_own(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = series(hub, tmp_path)
    online.survey([0])
    online.open(0).close()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    surveyed = series(hub, tmp_path).survey([0, 2])
    assert surveyed[0].error is None
    assert isinstance(surveyed[2].error, OfflineError)
    assert "step 2 of 14m" in str(surveyed[2].error)
