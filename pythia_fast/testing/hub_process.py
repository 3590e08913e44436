"""A test's Hub in a process of its own, steered through a pair of sockets.

The child ends when it is told to, or when the parent's end of the pair is gone, so that it outlives
nobody. What crosses are pickles between two processes of the same program.
"""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from pythia_fast.testing.fault import Fault
from pythia_fast.testing.hub import HubServer, Settings
from pythia_fast.testing.hub_controls import HubControls
from pythia_fast.testing.hub_state import Request

_ENDED = "the Hub's process has ended; standard error may say why"
ENDING_S = 10.0
"""So long the child may take to end by itself."""

_CHILD = "import sys; sys.path[:] = {path!r}; from {module} import child; child({fd})"


class HubProcess(HubControls):
    """A HubServer that runs in a child process while this is entered; used like it.

    An error of the child's is raised here. RuntimeError if the child has ended.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._asking = threading.Lock()

    def __enter__(self) -> "HubProcess":
        ours, theirs = socket.socketpair()
        with theirs:
            program = _CHILD.format(path=sys.path, module=__name__, fd=theirs.fileno())
            self._child = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._connection = Connection(ours.detach())
        try:
            self._connection.send(self._settings)
            self._receive()  # once it serves
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def url(self) -> str:
        """The address to give as `endpoint` or HF_ENDPOINT."""
        return cast(str, self._ask("url"))

    @property
    def pid(self) -> int:
        """The child's process id."""
        self._running()
        assert self._child is not None
        return self._child.pid

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, in the order of their answers."""
        return cast(tuple[Request, ...], self._ask("requests"))

    @property
    def spoiled(self) -> dict[str, int]:
        """How many answers each kind of fault has spoiled so far."""
        return cast(dict[str, int], self._ask("spoiled"))

    def publish(
        self,
        repo: str,
        branch: str,
        folder: str | Path,
        *,
        sha256: Mapping[str, str] | None = None,
    ) -> str:
        """Let a branch, new or not, point to the files of `folder`; returns the commit."""
        folder = Path(folder).absolute()
        return cast(str, self._ask("_publish", repo, branch, folder, dict(sha256 or {})))

    def remove(self, repo: str, branch: str, path: str | None = None) -> str | None:
        """Take a branch away, or move it to a commit without the file `path`, which is returned.

        ArgumentError if there is no such repository, branch or file. Old commits stay.
        """
        return cast("str | None", self._ask("remove", repo, branch, path))

    def _add_fault(self, fault: Fault) -> None:
        self._ask("_add_fault", fault)

    def _disturb(
        self, rate: float, seed: int, kinds: tuple[str, ...], hang_s: float, slow: float
    ) -> None:
        self._ask("_disturb", rate, seed, kinds, hang_s, slow)

    def _limit(self, sort: str, requests: int | None, window_s: float, retry_after: bool) -> None:
        self._ask("_limit", sort, requests, window_s, retry_after)

    def _ask(self, what: str, *arguments: object) -> object:
        with self._asking:
            try:
                self._running().send((what, arguments))
            except OSError as error:
                raise RuntimeError(_ENDED) from error
            return self._receive()

    def _receive(self) -> object:
        connection = self._running()
        try:
            good, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(_ENDED) from error
        if good:
            return answer
        raise answer

    def _running(self) -> "Connection[Any, Any]":
        if self._connection is None:
            raise RuntimeError("the server runs only inside `with HubServer(…).in_process() as …:`")
        return self._connection

    def _end(self) -> None:
        """Hang up, at which the child ends; if it does not, it is ended."""
        connection, child = self._connection, self._child
        self._connection = self._child = None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.send(None)
            connection.close()
        if child is not None:
            try:
                child.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def child(fd: int) -> None:
    """What the child does: serve, and obey what comes over the socket `fd`, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's, who then hangs up
    connection: Connection[Any, Any] = Connection(fd)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        _obey(connection)


def _obey(connection: "Connection[Any, Any]") -> None:
    settings: Settings = connection.recv()
    with contextlib.ExitStack() as stack:
        try:
            hub = stack.enter_context(HubServer.of(settings))
        except Exception as error:
            connection.send((False, error))
            return
        connection.send((True, None))
        while (asked := connection.recv()) is not None:
            what, arguments = asked
            try:
                found = getattr(hub, what)
                answer = (True, found(*arguments) if callable(found) else found)
            except Exception as error:
                answer = (False, error)
            connection.send(answer)
