"""A series that behaves as if it came from the Hub."""

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pythia_fast
from pythia_fast.errors import HubError, PythiaFastError
from pythia_fast.series import Checkpoint, FetchReport, LocalSeries, Revision

PATIENCE_S = 60.0


@dataclass
class Receiving:
    """What `ahead` tells."""

    received_bytes: int = 0
    waits_for_room: bool = False
    failed: Exception | None = None
    told: list[tuple[int, ...]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    def extend(self, steps: Iterable[int]) -> None:
        self.told.append(tuple(steps))

    def drop(self, step: int) -> None:
        self.dropped.append(step)


class Lease:
    """Room on the disk for one checkpoint."""

    def __init__(self, room: threading.Semaphore | None) -> None:
        self.room, self.closed = room, False

    def close(self) -> None:
        if not self.closed and self.room is not None:
            self.room.release()
        self.closed = True


class Remote(LocalSeries):
    """A folder as if it were a model of the Hub.

    `room` checkpoints fit on its disk: `open` waits until another is closed. `broken` steps cannot
    be had, `failing` ones fail when they are opened, and at a `hanging` one a download never ends.
    `commits` and `opened` tell what was pinned and opened.
    """

    def __init__(self, folder: Path, *, model: str = "14m", room: int | None = None) -> None:
        super().__init__(folder)
        known = pythia_fast.spec(model)
        self.spec = replace(
            known, architecture=self.spec.architecture, steps=self.spec.steps, repo="own/" + model
        )
        self.room = None if room is None else threading.Semaphore(room)
        self.broken: dict[int, PythiaFastError] = {}
        self.gone: dict[int, PythiaFastError] = {}
        self.failing: dict[int, Exception] = {}
        self.hanging: set[int] = set()
        self.commits: dict[int, str] = {}
        self.opened: list[int] = []
        self.leases: list[Lease] = []
        self.ahead_of: list[tuple[int, ...]] = []
        self.hangs, self.left = threading.Event(), threading.Event()

    def digest(self, step: int) -> str:
        (file,) = [path for path in (self.folder / f"step{step}").iterdir() if "model" in path.name]
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def branch(self, step: int) -> str:
        names = sorted(path.name for path in (self.folder / f"step{step}").iterdir())
        return hashlib.sha1(f"{step} {self.digest(step)} {names}".encode()).hexdigest()

    def identity(self, step: int) -> str:
        return self.commits.get(step) or self.branch(step)

    def pin(self, commits: Mapping[int, str]) -> None:
        self.commits |= commits

    def survey(self, steps: Sequence[int]) -> dict[int, Revision]:
        found = {}
        for step in steps:
            error = self.broken.get(step)
            if error is None and step in self.commits:
                error = self.gone.get(step)
            if error is not None:
                found[step] = Revision(step, error=error)
                continue
            local = super().survey([step])[step]
            commit, digest = self.identity(step), self.digest(step)
            found[step] = replace(local, commit=commit, weights_sha256=digest, here_bytes=0)
        return found

    def _look_into(self, step: int) -> None:
        """Nothing is here before it is fetched."""

    @contextlib.contextmanager
    def ahead(self, steps: Sequence[int]) -> Iterator[Receiving]:  # type: ignore[override]
        self.ahead_of.append(tuple(steps))
        self.left.clear()
        try:
            yield Receiving(received_bytes=5_000_000)
        finally:
            self.left.set()

    def open(self, step: int) -> Checkpoint:
        if step in self.hanging:
            self.hangs.set()
            assert self.left.wait(PATIENCE_S), "nobody stopped the download"
            raise HubError("stopped")
        if step in self.failing:
            raise self.failing[step]
        if self.room is not None:
            assert self.room.acquire(timeout=PATIENCE_S), "nobody gave back any room"
        self.opened.append(step)
        self.leases.append(Lease(self.room))
        return replace(
            super().open(step),
            commit=self.identity(step),
            fetch=FetchReport(download_s=2.0, verify_s=0.25, wait_s=0.5, received_bytes=1000),
            _held=self.leases[-1],
        )
