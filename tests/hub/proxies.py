"""A way to a test's Hub through TLS and through proxies, on this machine."""

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

HEAD_LIMIT_BYTES = 2**16


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody else vouches for, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@contextlib.contextmanager
def serving(
    handle: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """The port at which each connection, after TLS with a `context`, is given to `handle`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def one(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                stack.enter_context(connection)
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                    stack.enter_context(connection)
                handle(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def tls_to(port: int) -> Callable[[socket.socket], None]:
    """Hands what comes on to a port of this machine, and its answers back."""

    def handle(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            _pipe(client, server)

    return handle


class Proxy:
    """A proxy for HTTP, and for what is tunnelled by CONNECT; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def handle(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < HEAD_LIMIT_BYTES:
            got = client.recv(4096)
            if not got:
                return
            head += got
        line, _, rest = head.partition(b"\r\n")
        method, target, version = line.decode().split(" ")
        self.asked.append(f"{method} {target}")
        if method == "CONNECT":
            name, _, port = target.rpartition(":")
            with socket.create_connection((name, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _pipe(client, server)
            return
        parts = urlsplit(target)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as server:
            server.sendall(f"{method} {path} {version}\r\nConnection: close\r\n".encode() + rest)
            while got := server.recv(2**16):
                client.sendall(got)


def _pipe(left: socket.socket, right: socket.socket) -> None:
    """All that either says is said to the other, until one of them ends."""
    other = {left: right, right: left}
    while True:
        waiting = [s for s in other if isinstance(s, ssl.SSLSocket) and s.pending()]
        for source in waiting or select.select(list(other), [], [])[0]:
            got = source.recv(2**16)
            if not got:
                return
            other[source].sendall(got)
