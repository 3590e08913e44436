"""Limits and spoiled answers of the test's Hub, seen by plain clients and by huggingface_hub."""

import contextlib
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils._http import parse_ratelimit_headers

from pythia_fast.errors import ArgumentError
from pythia_fast.testing import HubServer
from pythia_fast.testing.disturbance import KINDS, Disturbance
from pythia_fast.testing.rate_limit import RateLimit

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/config.json").write_text("{}")
    (tmp_path / "files/model.safetensors").write_bytes(CONTENT)
    return tmp_path / "files"


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    with HubServer({"me/tiny": {"main": folder, "step1": folder}}) as server:
        yield server


def weights(hub: HubServer) -> str:
    return f"{hub.url}/me/tiny/resolve/main/model.safetensors"


def read(url: str, timeout_s: float = 20) -> bytes:
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return answer.read()


def refused(url: str) -> tuple[int, dict[str, str]]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url)
    with caught.value as error:
        return error.code, dict(error.headers)


def test_a_window_is_counted_and_ends() -> None:
    limit = RateLimit("api", 2, 10.0, retry_after=True)
    assert limit.take(100.0) == (
        True,
        {"RateLimit": '"api";r=1;t=10', "RateLimit-Policy": '"fixed window";"api";q=2;w=10'},
    )
    assert limit.take(103.5)[1]["RateLimit"] == '"api";r=0;t=7'
    allowed, headers = limit.take(109.9)
    assert (allowed, headers["RateLimit"], headers["Retry-After"]) == (False, '"api";r=0;t=1', "1")
    assert limit.take(110.0)[0]


def test_a_limit_is_told_as_the_hub_tells_it(hub: HubServer) -> None:
    hub.limit("api", 2, window_s=300)
    url = f"{hub.url}/api/models/me/tiny/refs"
    with urllib.request.urlopen(url) as answer:
        told = parse_ratelimit_headers(dict(answer.headers))
    assert told is not None
    assert (told.resource_type, told.remaining, told.limit) == ("api", 1, 2)
    read(url)
    status, headers = refused(url)
    told = parse_ratelimit_headers(headers)
    assert told is not None
    assert (status, told.remaining, told.window_seconds) == (429, 0, 300)
    assert 0 < told.reset_in_seconds <= 300
    assert "Retry-After" not in headers
    assert read(weights(hub)) == CONTENT, "files are counted apart"
    hub.limit("api", None)
    read(url)


def test_a_limit_of_files_leaves_the_other_host_alone(folder: Path) -> None:
    with HubServer({"me/tiny": {"main": folder}}, redirect=True) as hub:
        hub.limit("resolvers", 1, retry_after=True)
        assert read(weights(hub)) == CONTENT  # a redirect, and then the other host
        status, headers = refused(weights(hub))
        assert (status, headers["RateLimit"].split(";")[0]) == (429, '"resolvers"')
        assert int(headers["Retry-After"]) > 0
        location = next(r.path for r in hub.requests if r.path.startswith("/cdn/"))
        assert read(hub.url + location) == CONTENT


def test_what_a_limit_may_be(hub: HubServer) -> None:
    for wrong in (("cdn", 1), ("api", -1)):
        with pytest.raises(ArgumentError):
            hub.limit(*wrong)
    with pytest.raises(ArgumentError, match="0 s"):
        hub.limit("api", 1, window_s=0)


def test_a_body_that_stalls(hub: HubServer) -> None:
    hub.stall("model")
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=20)
    connection.request("GET", "/me/tiny/resolve/main/model.safetensors")
    answer = connection.getresponse()
    assert answer.read(len(CONTENT) // 2) == CONTENT[: len(CONTENT) // 2]
    assert connection.sock is not None
    connection.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        answer.read(1)
    connection.close()
    hub.stall("model", for_s=0.01)
    with pytest.raises(http.client.IncompleteRead):
        read(weights(hub))
    assert read(weights(hub)) == CONTENT
    assert hub.spoiled == {"stall": 2}


def test_slow_bodies_are_whole(hub: HubServer) -> None:
    hub.slow("model", bytes_per_s=100_000)
    began_s = time.monotonic()
    assert read(weights(hub)) == CONTENT
    assert time.monotonic() - began_s >= len(CONTENT) / 100_000 * 0.9
    with pytest.raises(ArgumentError, match="more than 0"):
        hub.slow("model", bytes_per_s=0)


def test_each_connection_has_its_rate(folder: Path) -> None:
    rate = 200_000
    with HubServer({"me/tiny": {"main": folder}}, bytes_per_s=rate) as hub:
        began_s = time.monotonic()
        connection = http.client.HTTPConnection(hub.url.removeprefix("http://"))
        for _ in range(3):
            connection.request("GET", "/me/tiny/resolve/main/model.safetensors")
            assert connection.getresponse().read() == CONTENT
        connection.close()
        one_s = time.monotonic() - began_s
        assert one_s >= 3 * len(CONTENT) / rate * 0.9
    with pytest.raises(ArgumentError, match="bytes_per_s"):
        HubServer({}, bytes_per_s=0)


def test_all_connections_together_have_a_rate(folder: Path) -> None:
    rate = 200_000
    with HubServer({"me/tiny": {"main": folder}}, total_bytes_per_s=rate) as hub:

        def fetch() -> None:
            connection = http.client.HTTPConnection(hub.url.removeprefix("http://"))
            connection.request("GET", "/me/tiny/resolve/main/model.safetensors")
            assert connection.getresponse().read() == CONTENT
            connection.close()

        threads = [threading.Thread(target=fetch) for _ in range(3)]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began_s >= 2.7 * len(CONTENT) / rate
    with pytest.raises(ArgumentError, match="bytes_per_s"):
        HubServer({}, total_bytes_per_s=0)


def test_json_that_ends_too_early(hub: HubServer) -> None:
    url = f"{hub.url}/api/models/me/tiny/tree/main"
    hub.truncate("/tree/")
    with pytest.raises(json.JSONDecodeError):
        json.loads(read(url))
    assert len(json.loads(read(url))) == 2


def test_branches_and_files_can_go(hub: HubServer, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url)
    before = api.list_repo_refs("me/tiny").branches[0].target_commit
    after = hub.remove("me/tiny", "main", "config.json")
    assert api.list_repo_refs("me/tiny").branches[0].target_commit == after != before
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("me/tiny", "config.json", cache_dir=tmp_path / "cache")
    old = api.hf_hub_download(
        "me/tiny", "config.json", revision=before, cache_dir=tmp_path / "cache"
    )
    assert Path(old).read_text() == "{}"
    hub.remove("me/tiny", "step1")
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree("me/tiny", revision="step1"))
    for gone in (("me/tiny", "step1"), ("me/other", "main"), ("me/tiny", "main", "config.json")):
        with pytest.raises(ArgumentError, match="this Hub has no"):
            hub.remove(*gone)


def test_a_folder_that_is_not_there(hub: HubServer) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        list(HfApi(endpoint=hub.url).list_repo_tree("me/tiny", "chat_templates"))


def test_lots_are_the_same_for_the_same_seed_and_number() -> None:
    drawing = Disturbance(0.3, 7)
    first = [drawing.draw("GET", file=n % 2 == 0) for n in range(400)]
    numbered = Disturbance(0.3, 7)
    assert [numbered.fault_of(n, "GET", file=n % 2 == 0) for n in range(400)] == first
    with ThreadPoolExecutor(8) as pool:
        shared = Disturbance(0.3, 7)
        drawn = list(pool.map(lambda _: shared.draw("GET", file=True), range(400)))
    alone = [numbered.fault_of(n, "GET", file=True) for n in range(400)]
    assert sum(f is not None for f in drawn) == sum(f is not None for f in alone)
    assert first != [Disturbance(0.3, 8).fault_of(n, "GET", file=n % 2 == 0) for n in range(400)]


@pytest.mark.parametrize(
    ("method", "file", "kinds"),
    [
        ("GET", True, {*KINDS} - {"truncate"}),
        ("GET", False, {"fail", "hang", "truncate"}),
        ("HEAD", True, {"fail", "hang"}),
        ("redirect", True, {"fail", "hang"}),
    ],
)
def test_lots_are_kinds_that_can_befall_the_answer(
    method: str, file: bool, kinds: set[str]
) -> None:
    disturbance = Disturbance(0.1, 3)
    redirect = method == "redirect"
    drawn = [disturbance.draw(method, file=file, redirect=redirect) for _ in range(5000)]
    faults = [fault for fault in drawn if fault is not None]
    assert {fault.kind for fault in faults} == kinds
    assert 400 < len(faults) < 600
    assert {fault.status for fault in faults} == {429, 500, 502, 503, 504}


def test_disturbed_answers(hub: HubServer) -> None:
    hub.disturb(1.0, kinds=("corrupt",))
    bodies = [read(weights(hub)) for _ in range(3)]
    assert all(sum(a != b for a, b in zip(body, CONTENT, strict=True)) == 1 for body in bodies)
    assert len({*bodies}) > 1, "not always the same bit"
    assert json.loads(read(f"{hub.url}/api/models/me/tiny/refs")), "no kind of these befalls it"
    hub.disturb(1.0, kinds=("cut",), hang_s=0.01)
    with pytest.raises(http.client.IncompleteRead):
        read(weights(hub))
    hub.disturb(1.0, kinds=("hang",), hang_s=0.01)
    with pytest.raises(http.client.RemoteDisconnected):
        read(weights(hub))
    hub.disturb(0)
    assert read(weights(hub)) == CONTENT
    assert hub.spoiled == {"corrupt": 3, "cut": 1, "hang": 1}
    for wrong in ({"rate": 1.5}, {"rate": 0.5, "kinds": ("nonsense",)}):
        with pytest.raises(ArgumentError):
            hub.disturb(**wrong)


@pytest.mark.parametrize("redirect", [False, True])
def test_as_many_answers_are_spoiled_as_was_asked_for(folder: Path, redirect: bool) -> None:
    with HubServer({"me/tiny": {"main": folder}}, redirect=redirect) as hub:
        hub.disturb(0.25, seed=1, hang_s=0.001, slow_bytes_per_s=1e9)
        for _ in range(400):
            with contextlib.suppress(OSError, http.client.HTTPException):
                read(weights(hub))
        asked = len(hub.requests) + hub.spoiled["hang"]  # which are not answered
        assert 0.2 < sum(hub.spoiled.values()) / asked < 0.3
        assert hub.spoiled.keys() == {*KINDS} - {"truncate", "ignore_range"}


@pytest.mark.parametrize("status", [520, 599])
def test_a_status_that_is_in_no_standard(hub: HubServer, status: int) -> None:
    hub.fail("refs", status=status)
    assert refused(f"{hub.url}/api/models/me/tiny/refs")[0] == status
    assert read(weights(hub)) == CONTENT


def test_huggingface_hub_tells_of_a_failure(hub: HubServer) -> None:
    hub.fail("refs", status=500)
    with pytest.raises(HfHubHTTPError, match="500"):
        HfApi(endpoint=hub.url).list_repo_refs("me/tiny")


def test_publishing_while_others_ask(hub: HubServer, folder: Path) -> None:
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            read(f"{hub.url}/api/models/me/tiny/refs")

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        for step in range(60):
            hub.publish("me/tiny", f"step{step}", folder)
        ended.set()
        for each in asking:
            each.result()
    assert len(HfApi(endpoint=hub.url).list_repo_refs("me/tiny").branches) == 61
