"""Bodies arrive whole and in order, by httpx's hands or from the socket itself."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.hub import body as module
from pythia_fast.hub.body import StoppedError, TooLongError, receive

DATA = np.random.default_rng(0).integers(0, 256, 200_001, np.uint8).tobytes()


class Stream:
    """As httpx's own, which gives the connection away."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def get_extra_info(self, name: str) -> Any:
        return self.connection if name == "socket" else None


class Answer:
    """A response whose first chunks come by the parser, and the rest, if asked, by the socket."""

    status_code = 206

    def __init__(self, chunks: list[bytes], connection: socket.socket | None = None) -> None:
        self.chunks = chunks
        self.headers = {"content-length": "1"}
        self.extensions: dict[str, Any] = {"http_version": b"HTTP/1.1"}
        if connection is not None:
            self.extensions["network_stream"] = Stream(connection)

    def iter_raw(self) -> Iterator[bytes]:
        yield from self.chunks


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 2**12)
    monkeypatch.setattr(module, "OWN_HANDS_BYTES", 2**16)


def received(answer: Answer, nbytes: int, stopped=lambda: False) -> tuple[bytearray, list[int]]:
    data, sizes = bytearray(), []

    def take(view: memoryview) -> None:
        data.extend(view)
        sizes.append(len(view))

    try:
        receive(answer, nbytes, take, stopped=stopped)
    except Exception as error:
        error.came = bytes(data)  # type: ignore[attr-defined]
        raise
    return data, sizes


@given(st.lists(st.integers(0, 10_000), max_size=30))
def test_chunks_of_any_size(sizes: list[int]) -> None:
    cuts = np.cumsum([0, *sizes])
    chunks = [DATA[a:b] for a, b in itertools.pairwise(cuts)]
    data, taken = received(Answer(chunks), int(cuts[-1]))
    assert data == DATA[: cuts[-1]]
    assert all(size == module.BUFFER_BYTES for size in taken[:-1]) or cuts[-1] < 2**12


@pytest.mark.parametrize("first", [0, 1, 5000, 70_000])
def test_the_rest_from_the_socket(first: int) -> None:
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=lambda: there.sendall(DATA[first:]))
        sender.start()
        chunks = [DATA[:first]] if first else [b""]
        data, _ = received(Answer([*chunks, b"not asked for"], here), len(DATA))
        sender.join()
    assert data == DATA


@pytest.mark.parametrize("direct", [False, True])
def test_too_few(direct: bool) -> None:
    here, there = socket.socketpair()
    with here:
        with there:
            there.sendall(DATA[100:300])
        answer = Answer([DATA[:100]], here) if direct else Answer([DATA[:100], DATA[100:300]])
        with pytest.raises(OSError, match=f"ends after 300 of {len(DATA)} bytes") as caught:
            received(answer, len(DATA))
    assert caught.value.errno is None
    assert caught.value.came == DATA[:300], "what came is handed on"


def test_too_many() -> None:
    with pytest.raises(TooLongError, match="more than the 150 bytes") as caught:
        received(Answer([DATA[:100], DATA[100:200]]), 150)
    assert caught.value.came == DATA[:100]


def test_silence_on_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.1)
    monkeypatch.setattr(module, "SLOWEST_BYTES_PER_S", 0)
    here, there = socket.socketpair()
    with here, there:
        there.sendall(DATA[100:200])
        with pytest.raises(TimeoutError, match=f"after 200 of {len(DATA)}") as caught:
            received(Answer([DATA[:100]], here), len(DATA))
    assert caught.value.came == DATA[:200]


def test_a_stop_is_noticed_in_the_middle_of_silence() -> None:
    here, there = socket.socketpair()
    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    with here, there:
        timer.start()
        start_s = time.monotonic()
        with pytest.raises(StoppedError):
            received(Answer([DATA[:100]], here), len(DATA), stop.is_set)
        assert time.monotonic() - start_s < module.STALL_S / 2
        timer.join()


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer.extensions.update(http_version=b"HTTP/2"),
        lambda answer: setattr(answer, "headers", {}),
        lambda answer: answer.headers.update({"transfer-encoding": "chunked"}),
        lambda answer: answer.extensions.pop("network_stream"),
        lambda answer: answer.extensions.update(network_stream=Stream(object())),  # type: ignore
    ],
)
def test_where_the_socket_does_not_carry_the_body_it_is_left_alone(change) -> None:
    here, there = socket.socketpair()
    with here, there:
        answer = Answer([DATA[:100_000], DATA[100_000:]], here)
        change(answer)
        assert received(answer, len(DATA))[0] == DATA
