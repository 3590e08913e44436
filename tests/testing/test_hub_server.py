"""The Hub for tests, asked by huggingface_hub itself."""

import hashlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from pythia_fast.testing import HubServer
from pythia_fast.testing.hub_protocol import HubHttpServer
from pythia_fast.testing.hub_state import HubState

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files/deep/er").mkdir(parents=True)
    (tmp_path / "files/config.json").write_text("{}")
    (tmp_path / "files/deep/er/x.txt").write_text("x")
    (tmp_path / "files/model.safetensors").write_bytes(CONTENT)
    return tmp_path / "files"


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    with HubServer({"me/tiny": {"main": folder, "step1": folder}}) as server:
        yield server


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.url)


def test_listings(hub: HubServer, api: HfApi) -> None:
    refs = api.list_repo_refs("me/tiny")
    assert [branch.name for branch in refs.branches] == ["main", "step1"]
    commit = refs.branches[0].target_commit
    assert api.model_info("me/tiny").sha == commit
    assert api.model_info("me/tiny", revision="step1").sha == commit
    top = list(api.list_repo_tree("me/tiny", revision=commit))
    assert [type(entry) for entry in top] == [RepoFile, RepoFile, RepoFolder]
    large = top[1]
    assert isinstance(large, RepoFile)
    assert large.lfs is not None
    assert (large.size, large.lfs.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    everything = {entry.path for entry in api.list_repo_tree("me/tiny", recursive=True)}
    assert everything == {"config.json", "model.safetensors", "deep/er/x.txt"}
    assert [entry.path for entry in api.list_repo_tree("me/tiny", "deep")] == ["deep/er"]
    assert [i.path for i in api.get_paths_info("me/tiny", ["config.json", "no"])] == ["config.json"]
    assert api.file_exists("me/tiny", "deep/er/x.txt")


def test_downloads_and_the_log(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    path = api.hf_hub_download("me/tiny", "model.safetensors", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == CONTENT
    assert [(r.method, r.status) for r in hub.requests] == [("HEAD", 200), ("GET", 200)]
    assert hub.count("model.safetensors", method="GET") == 1


def test_what_is_not_there(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.list_repo_refs("me/other")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("me/tiny", "config.json", revision="step2", cache_dir=tmp_path)
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("me/tiny", "nothing", cache_dir=tmp_path)
    assert not api.file_exists("me/tiny", "nothing")


def test_an_old_commit_stays_when_its_branch_moves(
    hub: HubServer, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    before = api.list_repo_refs("me/tiny").branches[1].target_commit
    (tmp_path / "new").mkdir()
    (tmp_path / "new/config.json").write_text("new")
    after = hub.publish("me/tiny", "step1", tmp_path / "new")
    assert api.list_repo_refs("me/tiny").branches[1].target_commit == after != before
    for revision, content in ((before, "{}"), (after, "new"), ("step1", "new")):
        path = api.hf_hub_download(
            "me/tiny", "config.json", revision=revision, cache_dir=tmp_path / "cache"
        )
        assert Path(path).read_text() == content


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-", slice(100, None)),
        ("bytes=5-10000000", slice(5, None)),
        ("items=3", slice(0, None)),
    ],
)
def test_ranges(hub: HubServer, header: str, expected: slice) -> None:
    url = f"{hub.url}/me/tiny/resolve/main/model.safetensors"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": header})) as answer:
        assert answer.read() == CONTENT[expected]
        assert answer.status == (206 if header.startswith("bytes") else 200)
        if answer.status == 206:
            begin = expected.start
            shown = f"bytes {begin}-{(expected.stop or len(CONTENT)) - 1}/{len(CONTENT)}"
            assert answer.headers["Content-Range"] == shown
    assert hub.requests[-1].range == header


@pytest.mark.parametrize(
    ("path", "range", "status"),
    [
        ("me/tiny/resolve/main/model.safetensors", "bytes=99999999-", 416),
        ("nothing", "", 404),
        ("cdn/" + "0" * 64, "", 404),
    ],
)
def test_requests_that_cannot_be_met(hub: HubServer, path: str, range: str, status: int) -> None:
    request = urllib.request.Request(f"{hub.url}/{path}", headers={"Range": range})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == status
    caught.value.close()


def test_faults_end_after_their_times(hub: HubServer) -> None:
    url = f"{hub.url}/me/tiny/resolve/main/model.safetensors"
    hub.corrupt("model.safetensors")
    hub.fail("model.safetensors", status=500, times=2)
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url)
        assert caught.value.code == 500
        caught.value.close()
    bodies = []
    for _ in range(2):
        with urllib.request.urlopen(url) as answer:
            bodies.append(answer.read())
    assert sum(a != b for a, b in zip(bodies[0], CONTENT, strict=True)) == 1
    assert bodies[1] == CONTENT


def test_nothing_stays_behind(folder: Path) -> None:
    before = threading.active_count()
    hub = HubServer({"me/tiny": {"main": folder}})
    with pytest.raises(RuntimeError, match="with HubServer"):
        _ = hub.url
    with hub, urllib.request.urlopen(f"{hub.url}/api/models/me/tiny/refs") as answer:
        answer.read()
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(5)
    assert threading.active_count() == before


def test_closing_does_not_mind_a_client_that_has_just_hung_up() -> None:
    gone, idle = socket.socket(), socket.socketpair()
    with HubHttpServer(HubState(redirect=False)) as server, gone, idle[0], idle[1]:
        server._open = {gone, idle[0]}
        server.close_connections()
        assert idle[1].recv(1) == b"", "the others are closed"
