"""A Hugging Face Hub on this machine, for tests: the part of its protocol that downloads use.

with HubServer({"EleutherAI/pythia-14m": {"step0": folder}}) as hub:
    hub.corrupt("pytorch_model.bin")  # once
    HubSeries(spec("14m"), cache_dir, endpoint=hub.url).open(0)
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from pythia_fast.testing.hub_protocol import HubHttpServer
from pythia_fast.testing.hub_state import Fault, HubState, Kind, Request
from pythia_fast.testing.repository import Repository


class HubServer:
    """Serves `repos`, {repository: {branch: folder}}, on 127.0.0.1 while it is entered.

    A data set's name begins with "datasets/", as in "datasets/EleutherAI/pile". `redirect` sends
    downloads of large files to another host name, as the Hub does. Every answer is `latency_s`
    late. `sha256` {path in its repository: digest} is told of files, maybe of many gigabytes with
    holes, that should not be read for it. Faults count down with every answer they spoil.
    """

    def __init__(
        self,
        repos: Mapping[str, Mapping[str, str | Path]],
        *,
        redirect: bool = False,
        latency_s: float = 0.0,
        sha256: Mapping[str, str] | None = None,
    ) -> None:
        self._state = HubState(redirect, latency_s)
        for repo, branches in repos.items():
            for branch, folder in branches.items():
                self.publish(repo, branch, folder, sha256=sha256)
        self._server: HubHttpServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "HubServer":
        self._state.closing.clear()
        self._server = HubHttpServer(self._state)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        server, thread = self._running(), self._thread
        self._state.closing.set()
        server.shutdown()
        server.close_connections()
        server.server_close()
        if thread is not None:
            thread.join()
        self._server = self._thread = None

    @property
    def url(self) -> str:
        """The address to give as `endpoint` or HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._running().server_port}"

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, in the order of their answers."""
        return self._state.requests

    def count(self, contains: str = "", *, method: str | None = None) -> int:
        """How many requests had `contains` in their path."""
        return sum(
            contains in request.path and method in (None, request.method)
            for request in self.requests
        )

    def publish(
        self,
        repo: str,
        branch: str,
        folder: str | Path,
        *,
        sha256: Mapping[str, str] | None = None,
    ) -> str:
        """Let a branch, new or not, point to the files of `folder`; returns the commit."""
        repository = self._state.repositories.setdefault(repo, Repository())
        return repository.publish(branch, Path(folder), sha256 or {})

    def fail(
        self,
        contains: str,
        *,
        status: int = 503,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next requests whose path has `contains` with `status`, and `headers`."""
        self._state.add_fault(Fault("fail", contains, times, status, headers or {}))

    def corrupt(self, contains: str, *, times: int = 1) -> None:
        """Flip a bit of the next bodies of files whose path has `contains`."""
        self._state.add_fault(Fault("corrupt", contains, times))

    def cut(self, contains: str, *, times: int = 1) -> None:
        """Break the connection in the middle of the next bodies of files like `contains`."""
        self._state.add_fault(Fault("cut", contains, times))

    def hang(self, contains: str, *, times: int = 1) -> None:
        """Take the next requests whose path has `contains`, and never answer."""
        self._state.add_fault(Fault("hang", contains, times))

    def drip(self, contains: str, *, pause_s: float = 0.05, times: int = 1) -> None:
        """Send the next bodies of files like `contains` a byte at a time."""
        self._state.add_fault(Fault("drip", contains, times, pause_s=pause_s))

    def ignore_range(self, contains: str, *, times: int = 1) -> None:
        """Answer the next requests for parts of files like `contains` with all of them."""
        self._state.add_fault(Fault("ignore_range", contains, times))

    def mislead(
        self,
        contains: str,
        headers: Mapping[str, str],
        *,
        redirects: bool = False,
        times: int = 1,
    ) -> None:
        """Let the next answers with files like `contains` have these headers instead of theirs.

        So a Content-Range can be wrong, or a size. `redirects` means the answers that only say
        where a file is.
        """
        kind: Kind = "redirect headers" if redirects else "headers"
        self._state.add_fault(Fault(kind, contains, times, headers=headers))

    def _running(self) -> HubHttpServer:
        if self._server is None:
            raise RuntimeError("the server runs only inside `with HubServer(…) as hub:`")
        return self._server
