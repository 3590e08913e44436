"""The bytes of a file on their way to a client: as fast as the system can, paced, or spoiled."""

import os
import socket
import threading
import time
from typing import BinaryIO

from pythia_fast.testing.fault import Fault

_CHUNK_BYTES = 2**20
_PIECE_S = 0.005
"""A paced body goes out in pieces that take about so long."""
_SENDFILE_BYTES = 2**30


class Pace:
    """Says when a connection may send its next bytes, so that its average is `bytes_per_s`.

    None is no limit. What a response has sent too fast the next one on the connection waits for.
    """

    def __init__(self, bytes_per_s: float | None) -> None:
        self.bytes_per_s = bytes_per_s
        self._due_s = 0.0

    @property
    def piece_bytes(self) -> int:
        """How much to send at once."""
        if self.bytes_per_s is None:
            return _SENDFILE_BYTES
        return min(_CHUNK_BYTES, max(1, int(self.bytes_per_s * _PIECE_S)))

    def begin(self) -> None:
        """A response begins: time that was not used before is lost."""
        self._due_s = max(self._due_s, time.monotonic())

    def wait_s(self, nbytes: int) -> float:
        """How long to wait after `nbytes` more; late pieces are made good by the following."""
        if self.bytes_per_s is None:
            return 0.0
        self._due_s += nbytes / self.bytes_per_s
        return self._due_s - time.monotonic()


class Wire(Pace):
    """The same for all connections together, which take turns piece by piece."""

    def __init__(self, bytes_per_s: float | None) -> None:
        super().__init__(bytes_per_s)
        self._turn = threading.Lock()

    def wait_s(self, nbytes: int) -> float:
        """How long the connection that has just sent `nbytes` waits."""
        with self._turn:
            self.begin()
            return super().wait_s(nbytes)


class Body:
    """Sends ranges of files to one connection; `closing` stops it when the server closes."""

    def __init__(
        self, connection: socket.socket, closing: threading.Event, pace: Pace, wire: Wire
    ) -> None:
        self._connection, self._closing, self._pace, self._wire = connection, closing, pace, wire

    def send(self, source: BinaryIO, begin: int, end: int) -> None:
        """All bytes of [begin, end). ConnectionError if the client hangs up, or the server closes.

        They go from the file to the socket inside the kernel.
        """
        self._paced(source, begin, end, self._pace)

    def send_spoiled(self, source: BinaryIO, begin: int, end: int, fault: Fault) -> bool:
        """The same as `fault` has it; returns whether the connection can go on."""
        middle = begin + int((end - begin) * fault.where)
        if fault.kind == "slow":
            self._paced(source, begin, end, Pace(fault.bytes_per_s))
            return True
        if fault.kind == "drip":
            return self._drip(source, begin, end, fault.pause_s)
        self.send(source, begin, middle)
        if fault.kind == "corrupt":
            if middle < end:
                source.seek(middle)
                self._connection.sendall(bytes([source.read(1)[0] ^ 1]))
                self.send(source, middle + 1, end)
            return True
        if fault.kind == "stall":
            self._closing.wait(fault.hang_s)
        return False

    def _paced(self, source: BinaryIO, begin: int, end: int, pace: Pace) -> None:
        pace.begin()
        while begin < end:
            nbytes = min(pace.piece_bytes, self._wire.piece_bytes, end - begin)
            sent = os.sendfile(self._connection.fileno(), source.fileno(), begin, nbytes)
            if sent == 0:
                raise ConnectionAbortedError(f"{source.name} has become shorter")
            begin += sent
            wait_s = max(pace.wait_s(sent), self._wire.wait_s(sent))
            if wait_s > 0 and self._closing.wait(wait_s):
                raise ConnectionAbortedError("the server closes")

    def _drip(self, source: BinaryIO, begin: int, end: int, pause_s: float) -> bool:
        source.seek(begin)
        for _ in range(begin, end):
            self._connection.sendall(source.read(1))
            if self._closing.wait(pause_s):
                return False
        return True
