"""The Hub for tests, asked by huggingface_hub itself."""

import hashlib
import socket
import threading
import time
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

from pythia_fast.errors import ArgumentError
from pythia_fast.hub.revisions import list_files
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
    other = api.model_info("me/tiny", revision="step1").sha
    assert other == refs.branches[1].target_commit != commit
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


@pytest.mark.parametrize("branch", ["dev/x", "refs/pr/1", "a b%2F"])
@pytest.mark.parametrize("repo", ["me/tiny", "gpt2", "datasets/me/tiny", "datasets/squad"])
def test_names_with_slashes_and_without_an_owner(
    folder: Path, tmp_path: Path, repo: str, branch: str
) -> None:
    kind, name = (
        ("dataset", repo.removeprefix("datasets/")) if "datasets/" in repo else ("model", repo)
    )
    with HubServer({repo: {branch: folder}}) as hub:
        api = HfApi(endpoint=hub.url)
        assert [each.name for each in api.list_repo_refs(name, repo_type=kind).branches] == [branch]
        tree = api.list_repo_tree(name, "deep", revision=branch, repo_type=kind, recursive=True)
        assert "deep/er/x.txt" in [entry.path for entry in tree]
        paths = api.get_paths_info(name, ["model.safetensors"], revision=branch, repo_type=kind)
        assert [entry.path for entry in paths] == ["model.safetensors"]
        assert api.repo_info(name, revision=branch, repo_type=kind).sha is not None
        found = api.hf_hub_download(
            name, "deep/er/x.txt", revision=branch, repo_type=kind, cache_dir=tmp_path / "cache"
        )
        assert Path(found).read_text() == "x"


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
        ("bytes=-7", slice(len(CONTENT) - 7, None)),
        ("bytes=-99999999", slice(0, None)),
        ("bytes=-", slice(0, None)),
        ("bytes=5-10000000", slice(5, None)),
        ("items=3", slice(0, None)),
    ],
)
def test_ranges(hub: HubServer, header: str, expected: slice) -> None:
    url = f"{hub.url}/me/tiny/resolve/main/model.safetensors"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": header})) as answer:
        assert answer.read() == CONTENT[expected]
        assert answer.status == (200 if header in ("items=3", "bytes=-") else 206)
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
    before = set(threading.enumerate())
    hub = HubServer({"me/tiny": {"main": folder}})
    with pytest.raises(RuntimeError, match="with HubServer"):
        _ = hub.url
    with hub, urllib.request.urlopen(f"{hub.url}/api/models/me/tiny/refs") as answer:
        answer.read()
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(5)
    assert set(threading.enumerate()) <= before


def test_closing_does_not_mind_a_client_that_has_just_hung_up() -> None:
    gone, idle = socket.socket(), socket.socketpair()
    with HubHttpServer(HubState(redirect=False)) as server, gone, idle[0], idle[1]:
        server._open = {gone, idle[0]}
        server.close_connections()
        assert idle[1].recv(1) == b"", "the others are closed"


def test_what_is_told_of_a_data_set_with_its_blobs(folder: Path) -> None:
    with HubServer({"datasets/me/tiny": {"main": folder}}) as hub:
        info = HfApi(endpoint=hub.url).dataset_info("me/tiny", files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or ()}
    large = files["model.safetensors"]
    assert large.lfs is not None
    assert (large.size, large.lfs.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert (files["config.json"].size, files["config.json"].lfs) == (2, None)


def test_a_large_file_with_holes_is_served_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as file:
        file.seek(2**40)
        file.write(b"end")
    digest = "5" * 64
    with HubServer({"me/huge": {"main": tmp_path}}, sha256={"huge.bin": digest}) as hub:
        (entry,) = HfApi(endpoint=hub.url).list_repo_tree("me/huge")
        assert isinstance(entry, RepoFile)
        assert entry.lfs is not None
        assert (entry.size, entry.lfs.sha256) == (2**40 + 3, digest)
        url = f"{hub.url}/me/huge/resolve/main/huge.bin"
        request = urllib.request.Request(url, headers={"Range": f"bytes={2**40 - 1}-"})
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == b"\0end"


def test_git_knows_small_files_by_their_content_and_large_ones_by_a_pointer(
    api: HfApi, hub: HubServer
) -> None:
    files = {f.path: f for f in api.list_repo_tree("me/tiny") if isinstance(f, RepoFile)}
    assert files["config.json"].blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()
    pointer = (
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{hashlib.sha256(CONTENT).hexdigest()}\nsize {len(CONTENT)}\n"
    ).encode()
    expected = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    assert files["model.safetensors"].blob_id == expected


def test_latency(folder: Path) -> None:
    with HubServer({"me/tiny": {"main": folder}}, latency_s=0.05) as hub:
        began_s = time.monotonic()
        for _ in range(3):
            with urllib.request.urlopen(f"{hub.url}/api/models/me/tiny/refs") as answer:
                answer.read()
        assert time.monotonic() - began_s >= 3 * 0.05


def test_faults_with_headers(hub: HubServer) -> None:
    url = f"{hub.url}/me/tiny/resolve/main/model.safetensors"
    ranged = urllib.request.Request(url, headers={"Range": "bytes=0-4"})
    hub.fail("model", status=429, headers={"Retry-After": "9"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(ranged)
    assert caught.value.headers["Retry-After"] == "9"
    caught.value.close()
    hub.ignore_range("model")
    with urllib.request.urlopen(ranged) as answer:
        assert (answer.status, answer.read()) == (200, CONTENT)
    hub.mislead("model", {"Content-Range": "bytes 1-5/7"})
    with urllib.request.urlopen(ranged) as answer:
        assert (answer.headers["Content-Range"], answer.read()) == ("bytes 1-5/7", CONTENT[:5])
    hub.drip("model", pause_s=0.001)
    with urllib.request.urlopen(ranged) as answer:
        assert answer.read() == CONTENT[:5]


def test_a_hang_ends_with_the_server(folder: Path) -> None:
    hub = HubServer({"me/tiny": {"main": folder}})
    with hub:
        hub.hang("refs")
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(f"{hub.url}/api/models/me/tiny/refs", timeout=0.1)
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize("page_entries", [1, 2, 3])
def test_listings_in_pages(folder: Path, page_entries: int) -> None:
    with HubServer({"me/tiny": {"main": folder}}, page_entries=page_entries) as hub:
        entries = [e.path for e in HfApi(endpoint=hub.url).list_repo_tree("me/tiny")]
        assert entries == ["config.json", "model.safetensors", "deep"]
        assert hub.count("/tree/") == -(-3 // page_entries)
        commit = hub.publish("me/tiny", "main", folder)
        listed = list_files("me/tiny", commit, endpoint=hub.url)
        assert [file.path for file in listed] == ["config.json", "model.safetensors"]
    with pytest.raises(ArgumentError, match="page"):
        HubServer({}, page_entries=0)
