"""Ranges of files from a Hub on this machine: what was asked for, or an error that says why."""

import contextlib
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stamina

from pythia_fast.errors import HubError, MissingTokensError
from pythia_fast.hub import body as module
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.ranges import RangeReader
from pythia_fast.testing import HubServer

REPO = "me/data"
DATASET = {"repo_type": "dataset", "missing": MissingTokensError}
CONTENT = np.random.default_rng(0).integers(0, 256, 100_003, np.uint8).tobytes()


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """As many attempts as ever, with no pause between them."""
    stamina.set_testing(True, attempts=4)
    yield
    stamina.set_testing(False)


@pytest.fixture(params=[False, True], ids=["direct", "redirect"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubServer]:
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/sub/x.bin").write_bytes(CONTENT)
    with HubServer(
        {f"datasets/{REPO}": {"main": tmp_path / "data"}}, redirect=request.param
    ) as hub:
        yield hub


@pytest.fixture
def file(hub: HubServer) -> HubFile:
    commit = hub._state.repositories[f"datasets/{REPO}"].branches["main"]
    return HubFile("sub/x.bin", len(CONTENT), commit.files["sub/x.bin"].sha256)


@pytest.fixture
def reader(hub: HubServer) -> RangeReader:
    commit = hub._state.repositories[f"datasets/{REPO}"].branches["main"].name
    return RangeReader(REPO, commit, endpoint=hub.url, **DATASET)


@pytest.mark.parametrize("span", [(0, 1), (5, 70_000), (100_002, 100_003), (0, 100_003)])
def test_the_bytes_asked_for(reader: RangeReader, file: HubFile, span: tuple[int, int]) -> None:
    assert reader.read(file, *span) == CONTENT[slice(*span)]


def test_several_at_once(reader: RangeReader, file: HubFile) -> None:
    begins = range(0, len(CONTENT) - 1000, 1000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: reader.read(file, at, at + 1000), begins))
    assert b"".join(found) == CONTENT[: len(found) * 1000]


def test_where_a_file_is_kept_is_asked_once(
    hub: HubServer, reader: RangeReader, file: HubFile
) -> None:
    for at in range(3):
        reader.read(file, at, at + 1)
    redirected = hub._state.redirect
    assert hub.count("/resolve/") == (1 if redirected else 3)
    assert hub.count("/cdn/") == (3 if redirected else 0)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_that_has_expired_is_asked_for_again(
    hub: HubServer, reader: RangeReader, file: HubFile, status: int
) -> None:
    reader.read(file, 0, 1)
    if not hub._state.redirect:
        return
    hub.fail("/cdn/", status=status)
    assert reader.read(file, 1, 2) == CONTENT[1:2]
    assert hub.count("/resolve/") == 2


def test_the_token_goes_to_the_hub_alone(
    hub: HubServer, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    commit = hub._state.repositories[f"datasets/{REPO}"].branches["main"].name
    RangeReader(REPO, commit, endpoint=hub.url, **DATASET).read(file, 0, 9)
    seen = {request.host: request.authorized for request in hub.requests}
    assert seen == {"127.0.0.1": True} | ({"localhost": False} if hub._state.redirect else {})


def test_a_busy_server_is_asked_again(hub: HubServer, reader: RangeReader, file: HubFile) -> None:
    for status in (500, 502, 503):
        hub.fail("", status=status)
    assert reader.read(file, 5, 10) == CONTENT[5:10]


def test_a_cut_body_is_asked_for_again(hub: HubServer, reader: RangeReader, file: HubFile) -> None:
    hub.cut("x.bin", times=2)
    assert reader.read(file, 0, 50_000) == CONTENT[:50_000]


def test_a_server_that_hangs_is_given_up(
    hub: HubServer, reader: RangeReader, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.2)
    hub.hang("resolve")
    assert reader.read(file, 5, 10) == CONTENT[5:10]
    hub.hang("", times=10)
    with pytest.raises(HubError, match=r"bytes 5 to 9 of sub/x\.bin could not be had.*Timeout"):
        reader.read(file, 5, 10)


def test_a_server_that_drips_is_given_up(
    hub: HubServer, reader: RangeReader, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.2)
    monkeypatch.setattr(module, "SLOWEST_BYTES_PER_S", 2**20)
    hub.drip("x.bin", pause_s=0.02)
    assert reader.read(file, 0, 1000) == CONTENT[:1000]


@pytest.mark.parametrize(("status", "requests"), [(503, 4), (403, 1), (416, 1)])
def test_an_answer_that_stays_bad(
    hub: HubServer, reader: RangeReader, file: HubFile, status: int, requests: int
) -> None:
    hub.fail("", status=status, times=100)
    with pytest.raises(HubError, match=f"{REPO}: bytes 0 to 4 of sub/x.bin.*{status}"):
        reader.read(file, 0, 5)
    assert len(hub.requests) == requests


def test_a_file_that_is_gone(hub: HubServer, reader: RangeReader, file: HubFile) -> None:
    gone = HubFile("sub/y.bin", 10, None)
    with pytest.raises(MissingTokensError, match=r"sub/y\.bin is not on the Hub"):
        reader.read(gone, 0, 5)
    with pytest.raises(MissingTokensError, match="me/other is not on the Hub"):
        RangeReader("me/other", reader.commit, endpoint=hub.url, **DATASET).read(file, 0, 5)


def test_the_whole_file_instead_of_a_range_is_not_read(
    hub: HubServer, reader: RangeReader, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the body was read")

    hub.ignore_range("x.bin", times=2)
    with monkeypatch.context() as patch:
        patch.setattr(RangeReader, "_body", read)
        with pytest.raises(HubError, match=r"sends the whole file \(100003 bytes\)"):
            reader.read(file, 5, 10)
    # Where all of it was asked for, that is no harm.
    assert reader.read(file, 0, len(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Content-Range": "bytes 6-10/100003"}, "asked for bytes 5 to 9, got 'bytes 6-10/100003'"),
        ({"Content-Range": "bytes 5-10/100003"}, "got 'bytes 5-10/100003'"),
        ({"Content-Range": "rows 1"}, "got 'rows 1'"),
        (
            {"Content-Range": "bytes 5-9/100004"},
            "lists 100003 bytes, but the file that is .* 100004",
        ),
        ({"Content-Length": "4"}, "got 4 bytes"),
        ({"Content-Length": "6"}, "got 6 bytes"),
        ({"Content-Encoding": "gzip"}, "got them as gzip"),
        ({"X-Repo-Commit": "f" * 40}, "answers with commit ffff"),
        ({"X-Linked-Size": "7"}, "lists 100003 bytes and now speaks of 7"),
        ({"X-Linked-Etag": '"' + "0" * 64 + '"'}, "now speaks of 0000"),
    ],
)
def test_answers_that_are_not_what_was_asked_for(
    hub: HubServer, reader: RangeReader, file: HubFile, headers: dict[str, str], reason: str
) -> None:
    hub.mislead("x.bin", headers)
    with pytest.raises(HubError, match=reason):
        reader.read(file, 5, 10)
    assert len(hub.requests) == 1 + hub._state.redirect, "it is not tried again"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"X-Linked-Size": "7"}, "now speaks of 7"),
        ({"X-Linked-Etag": '"' + "0" * 64 + '"'}, "now speaks of 0000"),
        ({"Location": ""}, "more than 5 redirects"),
    ],
)
def test_redirects_that_make_no_sense(
    hub: HubServer, reader: RangeReader, file: HubFile, headers: dict[str, str], reason: str
) -> None:
    if not hub._state.redirect:
        return
    hub.mislead("resolve", headers, redirects=True, times=10)
    with pytest.raises(HubError, match=reason):
        reader.read(file, 5, 10)


def test_a_total_that_is_not_told_is_no_error(
    hub: HubServer, reader: RangeReader, file: HubFile
) -> None:
    hub.mislead("x.bin", {"Content-Range": "bytes 5-9/*"})
    assert reader.read(file, 5, 10) == CONTENT[5:10]


class Raw(http.server.BaseHTTPRequestHandler):
    """Bodies without a Content-Length, which end with the connection."""

    nbytes = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(206)
        begin = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        self.send_header("Content-Range", f"bytes {begin}-4/10")
        self.end_headers()
        self.wfile.write(b"x" * (self.nbytes - begin))


@pytest.mark.parametrize(
    ("nbytes", "reason"), [(7, "got more than the 5 bytes"), (3, "ends after 0 of 2 bytes")]
)
def test_bodies_of_another_length(nbytes: int, reason: str) -> None:
    handler = type("Handler", (Raw,), {"nbytes": nbytes})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        reader = RangeReader(REPO, "0" * 40, endpoint=endpoint, **DATASET)
        try:
            with pytest.raises(HubError, match=reason):
                reader.read(HubFile("x", 10, None), 0, 5)
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def raw_server(answer: Callable[[socket.socket, int], None]) -> Iterator[RangeReader]:
    """A server that takes connections and requests, and leaves the rest to `answer`, counted."""
    server = socket.create_server(("127.0.0.1", 0))
    count = 0

    def serve() -> None:
        nonlocal count
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(2**16)
                count += 1
                answer(connection, count)

    thread = threading.Thread(target=serve)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    try:
        yield RangeReader(REPO, "0" * 40, endpoint=endpoint, **DATASET)
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def head(begin: int, end: int, *more: str) -> bytes:
    lines = ["HTTP/1.1 206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{end}"]
    return "\r\n".join([*lines, f"Content-Length: {end - begin}", *more, "", ""]).encode()


def test_a_reset_while_the_socket_is_read_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "OWN_HANDS_BYTES", 2**12)
    monkeypatch.setattr(module, "BUFFER_BYTES", 2**12)
    asked, came = threading.Event(), threading.Event()
    receive_into = module._receive_into

    def noticed(*arguments: Any) -> int:
        asked.set()
        count = receive_into(*arguments)
        came.set()
        return count

    monkeypatch.setattr(module, "_receive_into", noticed)

    def answer(connection: socket.socket, count: int) -> None:
        if count == 1:
            connection.sendall(head(0, len(CONTENT)) + CONTENT[:1000])
            assert asked.wait(10)
            connection.sendall(CONTENT[1000:50_000])
            assert came.wait(10)
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            connection.sendall(head(begins[0], len(CONTENT)) + CONTENT[begins[0] :])

    begins: list[int] = []
    stream = RangeReader.stream

    def followed(self: RangeReader, file: HubFile, begin: int, *more: Any, **rest: Any) -> None:
        begins[:] = [begin]
        stream(self, file, begin, *more, **rest)

    monkeypatch.setattr(RangeReader, "stream", followed)
    with raw_server(answer) as reader:
        data = reader.read(HubFile("x", len(CONTENT), None), 0, len(CONTENT))
    assert data == CONTENT
    assert begins[0] > 0, "what came before the reset is kept"


def test_chunks_are_never_read_from_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever length the answer claims: the chunks' own sizes are among its bytes."""
    monkeypatch.setattr(module, "OWN_HANDS_BYTES", 2**12)

    def answer(connection: socket.socket, count: int) -> None:
        connection.sendall(head(0, len(CONTENT), "Transfer-Encoding: chunked"))
        for at in range(0, len(CONTENT), 2**14):
            part = CONTENT[at : at + 2**14]
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        connection.sendall(b"0\r\n\r\n")

    with raw_server(answer) as reader:
        assert reader.read(HubFile("x", len(CONTENT), None), 0, len(CONTENT)) == CONTENT


def test_no_server_at_all(file: HubFile) -> None:
    with pytest.raises(HubError, match=r"could not be had from http://127.0.0.1:9: ConnectError"):
        RangeReader(REPO, "0" * 40, endpoint="http://127.0.0.1:9", **DATASET).read(file, 0, 5)
