"""What a test's Hub holds and does: repositories, faults still to come, requests answered."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pythia_fast.testing.repository import Repository

Kind = Literal[
    "fail", "corrupt", "cut", "hang", "drip", "ignore_range", "headers", "redirect headers"
]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked and answered; `range` is the Range header, None without.

    `host` is the name the client called the server by, `authorized` whether it sent a token.
    """

    method: str
    path: str
    range: str | None
    status: int
    host: str = ""
    authorized: bool = False


@dataclass(slots=True)
class Fault:
    """Spoils the next `remaining` answers whose path has `contains`."""

    kind: Kind
    contains: str
    remaining: int
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    pause_s: float = 0.0


@dataclass(slots=True)
class HubState:
    """Shared by the server's threads."""

    redirect: bool
    latency_s: float = 0.0
    closing: threading.Event = field(default_factory=threading.Event)
    repositories: dict[str, Repository] = field(default_factory=dict)
    _requests: list[Request] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, in the order of their answers."""
        with self._lock:
            return tuple(self._requests)

    def log(self, request: Request) -> None:
        """Remember a request."""
        with self._lock:
            self._requests.append(request)

    def add_fault(self, fault: Fault) -> None:
        """Let a fault come."""
        with self._lock:
            self._faults.append(fault)

    def take_fault(self, path: str, *kinds: str) -> Fault | None:
        """The first fault due for this answer, which is then counted as used."""
        with self._lock:
            for fault in self._faults:
                if fault.kind in kinds and fault.contains in path and fault.remaining > 0:
                    fault.remaining -= 1
                    return fault
        return None
