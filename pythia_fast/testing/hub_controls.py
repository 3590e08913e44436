"""What a test can ask of its Hub, and do to it, wherever the Hub runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from pythia_fast.errors import ArgumentError
from pythia_fast.testing.disturbance import KINDS
from pythia_fast.testing.fault import Fault, Kind
from pythia_fast.testing.hub_state import Request

DEFAULT_WINDOW_S = 300.0
"""The Hub counts requests in windows of five minutes."""


class HubControls(ABC):
    """Publishes, limits and spoils; faults by script count down with every answer they spoil."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The address to give as `endpoint` or HF_ENDPOINT."""

    @property
    @abstractmethod
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, in the order of their answers."""

    @property
    @abstractmethod
    def spoiled(self) -> dict[str, int]:
        """How many answers each kind of fault has spoiled so far."""

    @abstractmethod
    def publish(
        self,
        repo: str,
        branch: str,
        folder: str | Path,
        *,
        sha256: Mapping[str, str] | None = None,
    ) -> str:
        """Let a branch, new or not, point to the files of `folder`; returns the commit."""

    @abstractmethod
    def remove(self, repo: str, branch: str, path: str | None = None) -> str | None:
        """Take a branch away, or move it to a commit without the file `path`, which is returned.

        ArgumentError if there is no such repository, branch or file. Old commits stay.
        """

    @abstractmethod
    def _add_fault(self, fault: Fault) -> None: ...

    @abstractmethod
    def _disturb(
        self, rate: float, seed: int, kinds: tuple[str, ...], hang_s: float, slow: float
    ) -> None: ...

    @abstractmethod
    def _limit(
        self, sort: str, requests: int | None, window_s: float, retry_after: bool
    ) -> None: ...

    def count(self, contains: str = "", *, method: str | None = None) -> int:
        """How many requests had `contains` in their path."""
        return sum(
            contains in request.path and method in (None, request.method)
            for request in self.requests
        )

    def fail(
        self,
        contains: str,
        *,
        status: int = 503,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next requests whose path has `contains` with `status`, and `headers`."""
        self._add_fault(Fault("fail", contains, times, status, headers or {}))

    def hang(self, contains: str, *, times: int = 1) -> None:
        """Take the next requests whose path has `contains`, and never answer."""
        self._add_fault(Fault("hang", contains, times))

    def corrupt(self, contains: str, *, times: int = 1) -> None:
        """Flip a bit of the next bodies of files whose path has `contains`."""
        self._add_fault(Fault("corrupt", contains, times))

    def cut(self, contains: str, *, times: int = 1) -> None:
        """Break the connection in the middle of the next bodies of files like `contains`."""
        self._add_fault(Fault("cut", contains, times))

    def stall(self, contains: str, *, times: int = 1, for_s: float | None = None) -> None:
        """Send the first half of the next bodies of files like `contains`, and then nothing.

        The connection stays open as long as the server runs, or for `for_s`.
        """
        self._add_fault(Fault("stall", contains, times, hang_s=for_s))

    def slow(self, contains: str, *, bytes_per_s: float, times: int = 1) -> None:
        """Send the next bodies of files like `contains` at this rate."""
        check_rate(bytes_per_s)
        self._add_fault(Fault("slow", contains, times, bytes_per_s=bytes_per_s))

    def drip(self, contains: str, *, pause_s: float = 0.05, times: int = 1) -> None:
        """Send the next bodies of files like `contains` a byte at a time."""
        self._add_fault(Fault("drip", contains, times, pause_s=pause_s))

    def truncate(self, contains: str, *, times: int = 1) -> None:
        """Send half of the next JSON answers whose path has `contains`, as if it were all."""
        self._add_fault(Fault("truncate", contains, times))

    def ignore_range(self, contains: str, *, times: int = 1) -> None:
        """Answer the next requests for parts of files like `contains` with all of them."""
        self._add_fault(Fault("ignore_range", contains, times))

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
        self._add_fault(Fault(kind, contains, times, headers=headers))

    def disturb(
        self,
        rate: float,
        seed: int = 0,
        *,
        kinds: Sequence[str] = KINDS,
        hang_s: float = 1.0,
        slow_bytes_per_s: float = 2.0**20,
    ) -> None:
        """From now on spoil an answer with this probability, in one of `kinds`; 0 ends it.

        Which requests it befalls, and how, depends on `seed` and on how many came before, since
        this call. Hangs and stalls end after `hang_s` with a closed connection.
        """
        check_rate(slow_bytes_per_s)
        self._disturb(rate, seed, tuple(kinds), hang_s, slow_bytes_per_s)

    def limit(
        self,
        sort: str,
        requests: int | None,
        *,
        window_s: float = DEFAULT_WINDOW_S,
        retry_after: bool = False,
    ) -> None:
        """Refuse with 429 what is above so many requests in a window; None ends the limit.

        `sort` is "api", "resolvers" (files by name) or "pages", as the Hub counts them; files at
        the other host are not counted. All answers of the sort have the Hub's RateLimit and
        RateLimit-Policy; `retry_after` adds a Retry-After to refusals, as other servers send it.
        """
        if sort not in ("api", "resolvers", "pages"):
            raise ArgumentError(f'a limit is for "api", "resolvers" or "pages", not {sort!r}')
        if requests is not None and (requests < 0 or window_s <= 0):
            raise ArgumentError(
                f"a limit is at least 0 requests in more than 0 s, not {requests} in {window_s} s"
            )
        self._limit(sort, requests, window_s, retry_after)


def check_rate(bytes_per_s: float | None) -> None:
    """ArgumentError unless it is None or more than nothing."""
    if bytes_per_s is not None and not bytes_per_s > 0:
        raise ArgumentError(f"bytes_per_s is more than 0, not {bytes_per_s}")
