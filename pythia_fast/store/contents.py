"""What lies in a store, and how much of the disk it takes."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pythia_fast.errors import ReadError
from pythia_fast.store.leases import Claims
from pythia_fast.store.places import (
    DIGEST,
    QUARANTINE_SUFFIX,
    Places,
    evicted_parts,
    is_small,
)

_BLOCK_BYTES = 512  # of st_blocks, on every file system


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a store by digest, in bytes: `blobs` in full, others as allocated.

    `evicted` are files that have lost their name while it is decided whether they may go. The
    records beside partial files are too small to count.
    """

    blobs: Mapping[str, int] = field(default_factory=dict)
    evicted: Mapping[str, int] = field(default_factory=dict)
    partials: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, places: Places) -> "Contents":
        """As the folders are now. ReadError if they cannot be listed."""
        blobs: dict[str, int] = {}
        evicted: dict[str, int] = {}
        partials: dict[str, int] = {}
        quarantined: dict[str, int] = {}
        for name, status in _statuses(places.blobs):
            if DIGEST.fullmatch(name):
                blobs[name] = status.st_size
            elif (parts := evicted_parts(name)) is not None:
                evicted[parts[0]] = evicted.get(parts[0], 0) + status.st_size
        for name, status in _statuses(places.partials):
            allocated = status.st_blocks * _BLOCK_BYTES
            if DIGEST.fullmatch(name):
                partials[name] = allocated
            elif DIGEST.fullmatch(digest := name.removesuffix(QUARANTINE_SUFFIX)):
                quarantined[digest] = allocated
            elif (parts := evicted_parts(name)) is not None:
                evicted[parts[0]] = evicted.get(parts[0], 0) + allocated
        return cls(blobs, evicted, partials, quarantined)

    def used_bytes(self, claims: Iterable[Claims]) -> int:
        """What all of it takes, where a file that is being fetched counts as if it were there.

        Small files do not count, as little as records do.
        """
        coming = {digest: size for each in claims for digest, size in each.fetching.items()}
        here = sum(size for digest, size in self.blobs.items() if not is_small(digest))
        here += sum(self.evicted.values())
        left = sum(size for digest, size in self.partials.items() if digest not in coming)
        expected = sum(size for digest, size in coming.items() if digest not in self.blobs)
        return here + left + expected + sum(self.quarantined.values())

    def coming_bytes(self, claims: Iterable[Claims]) -> int:
        """What the files that are being fetched will still take of the disk."""
        coming = {digest: size for each in claims for digest, size in each.fetching.items()}
        return sum(
            max(0, size - self.partials.get(digest, 0))
            for digest, size in coming.items()
            if digest not in self.blobs
        )


def _statuses(folder: Path) -> list[tuple[str, os.stat_result]]:
    """The regular files of a folder; one that goes meanwhile is left out."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file(follow_symlinks=False):
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReadError.of(folder, error, "list") from error
    return found
