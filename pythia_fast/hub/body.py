"""The body of an answer, received without detours.

httpx hands a body on in pieces of 64 kB, which costs more processor time than a fast network
leaves. So once it has done what it is good for (proxies, certificates, redirects, the head of the
answer), a large body is read from its socket, into one buffer. The connection cannot be used again
after that; for a small body httpx is left to it, and keeps the connection.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

STALL_S = 20.0
"""A server that sends nothing for so long is given up, and asked again."""
SLOWEST_BYTES_PER_S = 2**12
"""So is one that sends less than this over STALL_S."""
BUFFER_BYTES = 2**20
"""What is received before it is handed on; each body under way takes this much memory."""
OWN_HANDS_BYTES = 2**23
"""Bodies up to this are left to httpx: a new connection would cost more than is saved."""
_TICK_S = 0.25
"""How soon a stop is noticed."""

Take = Callable[[memoryview], None]


class Answer(Protocol):
    """Of the client's response, what is used here; its class is httpx's or httpx2's."""

    @property
    def status_code(self) -> int: ...  # noqa: D102
    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def extensions(self) -> Mapping[str, Any]: ...  # noqa: D102
    def iter_raw(self) -> Iterator[bytes]: ...  # noqa: D102


class StoppedError(Exception):
    """Somebody asked to stop. Not an error of the package: it never leaves this room."""


class TooLongError(Exception):
    """A body goes on after the bytes that were asked for; its words are for a HubError."""


class _Pace:
    """Watches that bytes keep coming: none for STALL_S is a TimeoutError, and so are too few."""

    def __init__(self, nbytes: int) -> None:
        self.filled = 0
        self._nbytes = nbytes
        self._last_s = self._window_s = time.monotonic()
        self._window_filled = 0

    def add(self, nbytes: int) -> None:
        """So many bytes have come."""
        now_s = time.monotonic()
        self.filled += nbytes
        self._last_s = now_s
        if now_s - self._window_s >= STALL_S and self.filled < self._nbytes:
            came = self.filled - self._window_filled
            if came < SLOWEST_BYTES_PER_S * (now_s - self._window_s):
                raise TimeoutError(
                    f"{came} bytes in {now_s - self._window_s:.0f} s, {self.filled} of "
                    f"{self._nbytes} in all"
                )
            self._window_s, self._window_filled = now_s, self.filled

    def nothing(self) -> None:
        """None has come for a tick."""
        if time.monotonic() - self._last_s >= STALL_S:
            raise TimeoutError(f"no byte for {STALL_S:g} s after {self.filled} of {self._nbytes}")


def receive(answer: Answer, nbytes: int, take: Take, *, stopped: Callable[[], bool]) -> None:
    """Give the body, which must have `nbytes`, to `take` in order, a full buffer at a time.

    What has come is handed on before an error: TooLongError for a body that is longer, OSError
    without errno for a shorter one, TimeoutError for one that comes too slowly, the client's or the
    connection's own, and StoppedError after `stopped()`: soon where the socket is read, with the
    next bytes or after STALL_S where httpx is. What `take` is given is its own until it returns.
    """
    buffer = memoryview(bytearray(min(BUFFER_BYTES, nbytes)))
    pace, held = _Pace(nbytes), 0
    chunks = answer.iter_raw()
    direct = _socket(answer) if nbytes > OWN_HANDS_BYTES else None
    try:
        for chunk in chunks:
            if pace.filled + len(chunk) > nbytes:
                raise TooLongError(f"got more than the {nbytes} bytes asked for")
            if stopped():
                raise StoppedError
            view = memoryview(chunk)
            while view:
                count = min(len(view), len(buffer) - held)
                buffer[held : held + count] = view[:count]
                held, view = held + count, view[count:]
                if held == len(buffer):
                    held = 0
                    take(buffer)
            pace.add(len(chunk))
            if direct is not None:  # httpx's parser holds nothing back once it gave a chunk
                break
        while direct is not None and pace.filled < nbytes:
            count = min(len(buffer) - held, nbytes - pace.filled)
            got = _receive_into(direct, buffer[held : held + count], pace, stopped)
            if not got:
                break
            held += got
            pace.add(got)
            if held == len(buffer):
                held = 0
                take(buffer)
    finally:
        if held:
            take(buffer[:held])
    if pace.filled < nbytes:
        raise OSError(f"the answer ends after {pace.filled} of {nbytes} bytes")


def _receive_into(
    direct: socket.socket, view: memoryview, pace: _Pace, stopped: Callable[[], bool]
) -> int:
    """What has come, at least a byte, or 0 at the end."""
    while True:
        if stopped():
            raise StoppedError
        try:
            return direct.recv_into(view)
        except TimeoutError:
            pace.nothing()


def _socket(answer: Answer) -> socket.socket | None:
    """The connection itself, if it carries this body as it is, and nothing but it."""
    if answer.extensions.get("http_version") != b"HTTP/1.1":
        return None
    if "content-length" not in answer.headers or "transfer-encoding" in answer.headers:
        return None  # in chunks, whatever length it claims too: their sizes are among the bytes
    stream = answer.extensions.get("network_stream")
    if stream is None:
        return None
    direct = stream.get_extra_info("socket")
    if not isinstance(direct, socket.socket):
        return None
    if isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject):
        return None  # TLS within a proxy's TLS: the socket carries the outer one
    direct.settimeout(min(_TICK_S, STALL_S))
    return direct
