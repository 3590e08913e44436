"""What a store gives: files that stay, and room for those that are missing."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from pythia_fast.store.leases import Lease


class Hold:
    """Blobs that stay where they are until this is closed, or nobody has it any more."""

    def __init__(self, lease: Lease, digests: tuple[str, ...]) -> None:
        self.digests = digests
        self._lease = lease
        self._holder = lease.holder
        self._later = weakref.finalize(self, lease.drop_later, digests, self._holder)

    def close(self) -> None:
        """Let them go; a second time does nothing."""
        if self._later.detach() is not None and self._lease.holder == self._holder:
            self._lease.drop(*self.digests)


@dataclass(frozen=True, slots=True)
class Claim:
    """The files of a checkpoint: those `here` may be opened, for the `missing` there is room.

    `waited_s` is how long that took.
    """

    hold: Hold
    here: tuple[str, ...]
    missing: tuple[str, ...]
    waited_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """How one claim behaves that finds no room.

    It ends when `stopped` says so. `urgent`: somebody can do nothing before it is there; claims
    that are not, also of other processes, let it go first. `shed` gives back something of this
    process that is not needed so soon, and says whether there was any. `closes`: what else this
    process uses it will close by and by; otherwise it is no use to wait for that.
    """

    stopped: Callable[[], bool] = lambda: False
    urgent: Callable[[], bool] = lambda: True
    shed: Callable[[], bool] = lambda: False
    closes: bool = False


class Stopped(Exception):  # noqa: N818  # no error: somebody wanted it
    """A claim was told to wait no longer."""
