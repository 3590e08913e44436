"""What a test's Hub holds and does: repositories, faults still to come, requests answered."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pythia_fast.testing.body import Wire
from pythia_fast.testing.disturbance import Disturbance
from pythia_fast.testing.fault import Fault
from pythia_fast.testing.rate_limit import RateLimit
from pythia_fast.testing.repository import Repository, RepositoryFile

Sort = Literal["api", "resolvers", "stored", "pages"]
"""What a request is for: listings, files by name, files by hash at the other host, the rest."""


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
class HubState:
    """Shared by the server's threads."""

    redirect: bool
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    page_entries: int = 1000
    wire: Wire = field(default_factory=lambda: Wire(None))
    closing: threading.Event = field(default_factory=threading.Event)
    repositories: Mapping[str, Repository] = field(default_factory=dict)
    stored: Mapping[str, RepositoryFile] = field(default_factory=dict)
    disturbance: Disturbance | None = None
    limits: Mapping[str, RateLimit] = field(default_factory=dict)
    _requests: list[Request] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)
    _spoiled: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, in the order of their answers."""
        with self._lock:
            return tuple(self._requests)

    @property
    def spoiled(self) -> dict[str, int]:
        """How many answers each kind of fault has spoiled so far."""
        with self._lock:
            return dict(self._spoiled)

    def log(self, request: Request) -> None:
        """Remember a request."""
        with self._lock:
            self._requests.append(request)

    def publish(self, repo: str, branch: str, folder: Path, sha256: Mapping[str, str]) -> str:
        """Let a branch point to the files of `folder`; answers see all of it or nothing."""
        commit = Repository.commit_of(branch, folder, sha256)  # takes long: all files are read
        with self._lock:
            repository = self.repositories.get(repo) or Repository()
            repository.move(branch, commit)
            self.stored = {**self.stored, **{file.sha256: file for file in commit.files.values()}}
            self.repositories = {**self.repositories, repo: repository}
        return commit.name

    def remove(self, repo: str, branch: str, path: str | None) -> str | None:
        """Take a branch away, or a file from it; returns the branch's new commit, if any."""
        with self._lock:
            return self.repositories[repo].remove(branch, path)

    def set_limit(self, sort: str, limit: RateLimit | None) -> None:
        """Let a limit begin, or end."""
        with self._lock:
            others = {name: each for name, each in self.limits.items() if name != sort}
            self.limits = others if limit is None else {**others, sort: limit}

    def add_fault(self, fault: Fault) -> None:
        """Let a fault come."""
        with self._lock:
            self._faults.append(fault)

    def take_fault(self, path: str, *kinds: str, chance: Fault | None = None) -> Fault | None:
        """The fault due for this answer, which is then counted as used.

        Those of the script come first, then `chance`, what this request has drawn by lot.
        """
        with self._lock:
            for fault in self._faults:
                if fault.kind in kinds and fault.contains in path and fault.remaining > 0:
                    fault.remaining -= 1
                    self._spoiled[fault.kind] += 1
                    return fault
            if chance is not None and chance.kind in kinds and chance.remaining > 0:
                chance.remaining -= 1
                self._spoiled[chance.kind] += 1
                return chance
        return None
