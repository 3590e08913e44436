"""Whether there is room in a store, within its budget and on its disk, and making some."""

import errno
from collections.abc import Collection, Mapping

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.hub.files import HubFile
from pythia_fast.publish import free_bytes
from pythia_fast.quantities import sized
from pythia_fast.store.claims import Waiting
from pythia_fast.store.contents import Contents
from pythia_fast.store.evicting import candidates, evict, last_used
from pythia_fast.store.leases import Claims, Lease
from pythia_fast.store.places import Places, digest_of, is_small

SPARE_BYTES = 16 * 2**20
"""What is left free on the disk, for results and records."""


class NoHopeError(Exception):
    """By one look nobody will make room; its cause is what to raise if that stays so."""


class Room:
    """The room of one store, `budget_bytes` in all, or what the disk has."""

    def __init__(self, places: Places, lease: Lease, budget_bytes: int | None) -> None:
        self.places = places
        self.lease = lease
        self.budget_bytes = budget_bytes

    def require(self, files: Collection[HubFile]) -> None:
        """Whether the files could ever be here together, whatever else goes.

        ArgumentError if the budget is too small for that, WriteError if the disk is.
        """
        contents = Contents.of(self.places)
        wanted = {digest_of(file): file.size for file in files}
        needed = sum(wanted.values())
        foreign = sum(
            nbytes
            for digest, nbytes in contents.blobs.items()
            if digest not in wanted and last_used(self.places, digest) is None
        )
        if self.budget_bytes is not None and needed + foreign > self.budget_bytes:
            others = (
                f", beside {sized(foreign)} of files in {self.places.blobs} that were put there "
                "by somebody and are never removed"
                if foreign
                else ""
            )
            raise ArgumentError(
                f"a disk budget of {sized(self.budget_bytes)} is too small: one checkpoint needs "
                f"{sized(needed)}{others}; give at least {needed + foreign} bytes, better three "
                "times what a checkpoint takes"
            )
        here = sum(contents.blobs.get(digest, 0) for digest in wanted)
        ours = contents.used_bytes(()) - foreign - here
        free = free_bytes(self.places.root)
        if needed - here > free + ours - SPARE_BYTES:
            raise WriteError(
                errno.ENOSPC,
                f"{self.places.root} has {sized(free)} free, but one checkpoint needs "
                f"{sized(needed)}: free some room, or give another cache_dir",
            )

    def make(self, nbytes: int, keep: Collection[str] = ()) -> int:
        """Evict until so many bytes are freed, or nothing is left to evict; how many were.

        What the system refuses to remove is left; WriteError if that is all there is.
        """
        freed = 0
        refused: WriteError | None = None
        contents = Contents.of(self.places)
        for candidate in candidates(self.places, contents, self._claims(), keep):
            if freed >= nbytes:
                break
            try:
                freed += evict(self.places, self.lease, candidate)
            except WriteError as error:
                refused = error
        if refused is not None and not freed:
            raise refused
        return freed

    def has_spare(self) -> bool:
        """Whether all is within the budget and on the disk, with all that is still to come."""
        return self.excess({}, Waiting()) <= 0

    def find(
        self,
        missing: Mapping[str, int],
        wanted: Mapping[str, int],
        waiting: Waiting,
    ) -> bool:
        """Whether the missing files may come, now or after something was evicted for them."""
        excess = self.excess(missing, waiting)
        if excess <= 0:
            return True
        if self._evictable_bytes(wanted) >= excess:
            self.make(excess, wanted)
            return self.excess(missing, waiting) <= 0
        if waiting.urgent():
            self.lease.wait_for(sum(missing.values()), waiting)
            if not waiting.shed():
                self._require_hope(missing, wanted, waiting)
        return False

    def excess(self, missing: Mapping[str, int], waiting: Waiting) -> int:
        """By how many bytes the missing files are too many: positive means no room."""
        others = self.lease.others()
        claims = [*others, self.lease.claims]
        contents = Contents.of(self.places)
        first = 0 if waiting.urgent() else sum(each.waiting_bytes for each in claims)
        # what is there of our own missing files is counted in full, with them
        used = contents.used_bytes(claims) - sum(
            contents.partials.get(digest, 0) for digest in missing
        )
        needed = sum(missing.values()) + first
        there = sum(min(size, contents.partials.get(digest, 0)) for digest, size in missing.items())
        coming = contents.coming_bytes(claims)
        disk = needed - there + coming + SPARE_BYTES - free_bytes(self.places.root)
        if self.budget_bytes is None:
            return disk
        return max(disk, used + needed - self.budget_bytes)

    def _evictable_bytes(self, keep: Collection[str]) -> int:
        found = candidates(self.places, Contents.of(self.places), self._claims(), keep)
        return sum(candidate.nbytes for candidate in found)

    def _require_hope(
        self, missing: Mapping[str, int], wanted: Mapping[str, int], waiting: Waiting
    ) -> None:
        """NoHopeError if nobody will make the room that is missing, by this look."""
        if any(_large(each.using) or each.fetching for each in self.lease.others()):
            return
        own = self.lease.claims
        in_use = _large(own.using) - set(wanted)
        if own.fetching or (in_use and waiting.closes):
            return
        excess = self.excess(missing, waiting)
        if excess <= self._evictable_bytes(wanted):
            return  # somebody has let go since it was counted
        if in_use and self.budget_bytes is not None:
            held = sum(Contents.of(self.places).blobs.get(digest, 0) for digest in in_use)
            raise NoHopeError from ArgumentError(
                f"a disk budget of {sized(self.budget_bytes)} has no room for one more checkpoint "
                f"of {sized(sum(wanted.values()))}: this process has {sized(held)} open; close "
                "those checkpoints first (Checkpoint.close), or give more"
            )
        raise NoHopeError from WriteError(
            errno.ENOSPC,
            f"{self.places.root} lacks {sized(excess)} for a checkpoint of "
            f"{sized(sum(wanted.values()))}, and nothing is left there that may be removed: free "
            "some room, or give another cache_dir",
        )

    def _claims(self) -> list[Claims]:
        return [*self.lease.others(), self.lease.claims]


def _large(digests: Collection[str]) -> set[str]:
    """Those that take room."""
    return {digest for digest in digests if not is_small(digest)}
