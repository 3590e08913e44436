"""Removing files of a store that nobody uses, with nobody stopped and nothing locked.

A blob is renamed, then the leases are read again, and if somebody has taken it meanwhile it gets
its name back. Who looks for a blob has said so in a lease first, and gives it its name back too.
"""

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pythia_fast.errors import ReadError, WriteError
from pythia_fast.hub.partial import record_of
from pythia_fast.publish import link, write_error
from pythia_fast.store.contents import Contents
from pythia_fast.store.leases import Claims, Lease
from pythia_fast.store.places import (
    Places,
    evicted_name,
    evicted_parts,
    is_small,
    read_record,
    write_record,
)

Kind = Literal["blob", "partial", "quarantine"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may go, and what that frees."""

    kind: Kind
    digest: str
    nbytes: int


def candidates(
    places: Places,
    contents: Contents,
    claims: Iterable[Claims],
    keep: Collection[str] = (),
    *,
    small_too: bool = False,
) -> list[Candidate]:
    """What may go: damaged files, then blobs, least recently used first, then unfinished files.

    No blob or unfinished file that a process uses or fetches, or of `keep`; no small file unless
    `small_too`, and no blob that has no origin: somebody has put it there. The order is by file
    times, which at worst mislead it.
    """
    taken = {digest for each in claims for digest in (*each.using, *each.fetching)} | set(keep)
    ages = {
        digest: used_at
        for digest in contents.blobs
        if digest not in taken
        and (small_too or not is_small(digest))
        and (used_at := last_used(places, digest)) is not None
    }
    order = sorted(ages, key=lambda digest: ages[digest])
    return [
        *(Candidate("quarantine", *each) for each in sorted(contents.quarantined.items())),
        *(Candidate("blob", digest, contents.blobs[digest]) for digest in order),
        *(
            Candidate("partial", digest, nbytes)
            for digest, nbytes in sorted(contents.partials.items())
            if digest not in taken
        ),
    ]


def last_used(places: Places, digest: str) -> float | None:
    """When a process last took the blob, in seconds since 1970; None if it is not our download."""
    try:
        return places.origin(digest).lstat().st_mtime
    except OSError:
        return None


def evict(places: Places, lease: Lease, candidate: Candidate) -> int:
    """Remove it unless somebody has taken it meanwhile: the bytes that this freed.

    WriteError; ReadError if it cannot be seen who has taken what, and then it stays.
    """
    path = {
        "blob": places.blob,
        "partial": places.partial,
        "quarantine": places.quarantine,
    }[candidate.kind](candidate.digest)
    try:
        if candidate.kind == "quarantine":
            path.unlink()
            return candidate.nbytes
        if candidate.kind == "partial":
            record_of(path).unlink(missing_ok=True)  # first: without it nothing of the file counts
        evicted = evicted_name(path, lease.holder)
        path.rename(evicted)
    except FileNotFoundError:
        return 0  # somebody else was faster
    except OSError as error:
        raise write_error(path, error) from error
    taken = True
    try:
        taken = _is_taken(candidate, lease)
    finally:
        if taken:
            give_back(evicted, path)
    if taken:
        return 0
    try:
        evicted.unlink()
        if candidate.kind == "blob":
            _forget(places, candidate.digest)
    except FileNotFoundError:
        return 0  # given back, on a file system without links
    except OSError as error:
        raise write_error(evicted, error) from error
    return candidate.nbytes


def _forget(places: Places, digest: str) -> None:
    """Remove the origin of a blob that is gone, unless it is there again.

    Who publishes it looks after its origin at the end; who removes that, after the blob.
    """
    blob, origin = places.blob(digest), places.origin(digest)
    content = read_record(origin)
    if blob.exists():
        return
    origin.unlink(missing_ok=True)
    if blob.exists() and not origin.exists():  # without it, it would never go
        write_record(origin, content or {})


def _is_taken(candidate: Candidate, lease: Lease) -> bool:
    claims = [*lease.others(), lease.claims]
    if candidate.kind == "blob":
        return any(candidate.digest in (*each.using, *each.fetching) for each in claims)
    return any(candidate.digest in each.fetching for each in claims)


def give_back(evicted: Path, path: Path) -> None:
    """Let an evicted file have its name again, unless another file has it by now. WriteError."""
    try:
        with contextlib.suppress(FileExistsError):
            link(evicted, path)
        evicted.unlink(missing_ok=True)
    except FileNotFoundError:
        return  # by another process
    except OSError as error:
        raise write_error(path, error) from error


def restore(places: Places, digest: str) -> bool:
    """Give a blob that somebody is about to evict its name back; whether there was one.

    To be called with the blob in our lease. ReadError, WriteError.
    """
    found = False
    for name in _names(places.blobs):
        parts = evicted_parts(name)
        if parts is not None and parts[0] == digest:
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                try:
                    link(places.blobs / name, places.blob(digest))
                except (FileNotFoundError, FileExistsError):
                    raise
                except OSError as error:
                    raise write_error(places.blob(digest), error) from error
            found = True
    return found and places.blob(digest).exists()


def recover(places: Places, lease: Lease) -> None:
    """Finish what processes that were killed had begun: their blobs get their names back.

    That of one that is at work now may be among them; it will find that nothing was freed.
    """
    living = {each.holder for each in lease.others()} | {lease.holder}
    for name in _names(places.blobs):
        parts = evicted_parts(name)
        if parts is not None and parts[1] not in living:
            with contextlib.suppress(WriteError):
                give_back(places.blobs / name, places.blob(parts[0]))
    for name in _names(places.partials):
        parts = evicted_parts(name)
        if parts is not None and parts[1] not in living:
            with contextlib.suppress(OSError):
                (places.partials / name).unlink()


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReadError.of(folder, error, "list") from error
