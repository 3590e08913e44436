"""A Hugging Face Hub on this machine, for tests: the part of its protocol that downloads use.

with HubServer({"EleutherAI/pythia-14m": {"step0": folder}}) as hub:
    hub.corrupt("pytorch_model.bin")  # once
    HubSeries(spec("14m"), cache_dir, endpoint=hub.url).open(0)

`python -m pythia_fast.testing.hub --help` runs one by itself.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pythia_fast.errors import ArgumentError
from pythia_fast.testing.body import Wire
from pythia_fast.testing.disturbance import Disturbance
from pythia_fast.testing.fault import Fault
from pythia_fast.testing.hub_controls import HubControls, check_rate
from pythia_fast.testing.hub_protocol import HubHttpServer
from pythia_fast.testing.hub_state import HubState, Request
from pythia_fast.testing.rate_limit import RateLimit

if TYPE_CHECKING:
    from pythia_fast.testing.hub_process import HubProcess

Repos = Mapping[str, Mapping[str, str | Path]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a Hub is made from."""

    repos: Repos
    redirect: bool
    latency_s: float
    bytes_per_s: float | None
    total_bytes_per_s: float | None
    sha256: Mapping[str, str]
    port: int
    page_entries: int


class HubServer(HubControls):
    """Serves `repos`, {repository: {branch: folder}}, on 127.0.0.1 while it is entered.

    A data set's name begins with "datasets/", as in "datasets/EleutherAI/pile". `redirect` sends
    downloads of large files to another host name, as the Hub does. Every answer is `latency_s`
    late; each connection carries at most `bytes_per_s` of files on average, and all together
    `total_bytes_per_s`, None for as many as they can. `sha256` {path in its repository: digest} is
    told of files, maybe of many gigabytes with holes, that should not be read for it. `port` 0 is
    one that is free. A listing of a folder comes in pages of `page_entries`. Files may not change
    while they are published.
    """

    def __init__(
        self,
        repos: Repos,
        *,
        redirect: bool = False,
        latency_s: float = 0.0,
        bytes_per_s: float | None = None,
        total_bytes_per_s: float | None = None,
        sha256: Mapping[str, str] | None = None,
        port: int = 0,
        page_entries: int = 1000,
    ) -> None:
        check_rate(bytes_per_s)
        check_rate(total_bytes_per_s)
        if page_entries < 1:
            raise ArgumentError(f"a page has at least 1 entry, not {page_entries}")
        self._settings = Settings(
            *(repos, redirect, latency_s, bytes_per_s, total_bytes_per_s),
            *(sha256 or {}, port, page_entries),
        )
        self._made: HubState | None = None
        self._server: HubHttpServer | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, settings: Settings) -> "HubServer":
        """A Hub with these settings."""
        return cls(
            settings.repos,
            redirect=settings.redirect,
            latency_s=settings.latency_s,
            bytes_per_s=settings.bytes_per_s,
            total_bytes_per_s=settings.total_bytes_per_s,
            sha256=settings.sha256,
            port=settings.port,
            page_entries=settings.page_entries,
        )

    def in_process(self) -> "HubProcess":
        """The same Hub in a process of its own, so that it does not share our interpreter's lock.

        Entered with `with`, it is used like this one, which stays as it was.
        """
        from pythia_fast.testing.hub_process import HubProcess

        return HubProcess(self._settings)

    def __enter__(self) -> "HubServer":
        self._state.closing.clear()
        self._server = HubHttpServer(self._state, self._settings.port)
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

    @property
    def spoiled(self) -> dict[str, int]:
        """How many answers each kind of fault has spoiled so far."""
        return self._state.spoiled

    def publish(
        self,
        repo: str,
        branch: str,
        folder: str | Path,
        *,
        sha256: Mapping[str, str] | None = None,
    ) -> str:
        """Let a branch, new or not, point to the files of `folder`; returns the commit."""
        return self._publish(repo, branch, Path(folder), sha256 or {})

    def _publish(self, repo: str, branch: str, folder: Path, sha256: Mapping[str, str]) -> str:
        return self._state.publish(repo, branch, folder, sha256)

    def remove(self, repo: str, branch: str, path: str | None = None) -> str | None:
        """Take a branch away, or move it to a commit without the file `path`, which is returned.

        ArgumentError if there is no such repository, branch or file. Old commits stay.
        """
        try:
            return self._state.remove(repo, branch, path)
        except KeyError as error:
            raise ArgumentError(f"{repo} {branch}: this Hub has no {error.args[0]!r}") from error

    @property
    def _state(self) -> HubState:
        """Made at the first need: in another process it is not needed here."""
        if self._made is None:
            settings = self._settings
            self._made = HubState(
                settings.redirect,
                settings.latency_s,
                settings.bytes_per_s,
                settings.page_entries,
                Wire(settings.total_bytes_per_s),
            )
            for repo, branches in settings.repos.items():
                for branch, folder in branches.items():
                    self._made.publish(repo, branch, Path(folder), settings.sha256)
        return self._made

    def _add_fault(self, fault: Fault) -> None:
        self._state.add_fault(fault)

    def _disturb(
        self, rate: float, seed: int, kinds: tuple[str, ...], hang_s: float, slow: float
    ) -> None:
        disturbance = Disturbance(rate, seed, kinds, hang_s, slow)
        self._state.disturbance = disturbance if rate > 0 else None

    def _limit(self, sort: str, requests: int | None, window_s: float, retry_after: bool) -> None:
        limit = None if requests is None else RateLimit(sort, requests, window_s, retry_after)
        self._state.set_limit(sort, limit)

    def _running(self) -> HubHttpServer:
        if self._server is None:
            raise RuntimeError("the server runs only inside `with HubServer(…) as hub:`")
        return self._server


if __name__ == "__main__":
    from pythia_fast.testing.serve import main

    main()
