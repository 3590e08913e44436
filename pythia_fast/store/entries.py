"""What a store holds, for people: which checkpoints, how large, used by whom; and removing it."""

import contextlib
import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from pythia_fast.errors import WriteError
from pythia_fast.hub.partial import RECORD_SUFFIX
from pythia_fast.publish import remove_partials_in
from pythia_fast.store.contents import Contents
from pythia_fast.store.evicting import Candidate, Kind, candidates, evict, last_used
from pythia_fast.store.leases import Claims
from pythia_fast.store.places import is_small, read_record
from pythia_fast.store.store import CheckpointStore

_STEP = re.compile(r"step(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Use:
    """A file of a revision: `step` is None where its branch is not known."""

    repo: str
    commit: str
    path: str
    step: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the store. `ours` is False if somebody has put it there: it is never removed.

    `uses` are the revisions that it is known to be part of, `in_use_by` processes, as "pid at
    host". `last_used` is in seconds since 1970, None if that is not known.
    """

    kind: Kind
    digest: str
    nbytes: int
    uses: tuple[Use, ...]
    ours: bool
    in_use_by: tuple[str, ...]
    last_used: float | None


def entries(store: CheckpointStore) -> list[Entry]:
    """All files of a store, by model, step and name."""
    contents = Contents.of(store.places)
    uses = _uses(store)
    claims = [*store.lease.others(), store.lease.claims]
    kinds: tuple[tuple[Kind, dict[str, int]], ...] = (
        ("blob", dict(contents.blobs)),
        ("partial", dict(contents.partials)),
        ("quarantine", dict(contents.quarantined)),
    )
    found = []
    for kind, sizes in kinds:
        for digest, nbytes in sizes.items():
            used_at = last_used(store.places, digest) if kind == "blob" else None
            found.append(
                Entry(
                    *(kind, digest, nbytes, tuple(sorted(uses.get(digest, ()), key=_place))),
                    ours=kind != "blob" or used_at is not None,
                    in_use_by=_users(digest, claims),
                    last_used=used_at,
                )
            )
    return sorted(found, key=_order)


def prune(
    store: CheckpointStore,
    *,
    repo: str | None = None,
    keep_bytes: int = 0,
    small_too: bool = False,
    dry_run: bool = False,
) -> list[Candidate]:
    """Remove what no process uses and nobody has put there, until `keep_bytes` are left: what went.

    Least recently used first. `repo` spares the other repositories; `small_too` also removes
    configs, and with `keep_bytes` 0 what was listed, so that nothing can be opened offline.
    `dry_run` only says what would go. WriteError where the system refuses; the others are gone
    then.
    """
    contents = Contents.of(store.places)
    claims = [*store.lease.others(), store.lease.claims]
    uses = _uses(store)
    left = contents.used_bytes(claims)
    removed = []
    refused: WriteError | None = None
    for candidate in candidates(store.places, contents, claims, small_too=small_too):
        of = {use.repo for use in uses.get(candidate.digest, ())}
        if left <= keep_bytes and not (small_too and is_small(candidate.digest)):
            continue
        if repo is not None and repo not in of:
            continue
        try:
            if not dry_run and not evict(store.places, store.lease, candidate):
                continue
        except WriteError as error:
            refused = error
            continue
        removed.append(candidate)
        left -= 0 if is_small(candidate.digest) else candidate.nbytes
    if not dry_run and not claims[:-1]:
        _remove_leftovers(store)
    if small_too and not keep_bytes and not dry_run:
        _remove_listings(store, repo)
    if refused is not None:
        raise refused
    return removed


def _uses(store: CheckpointStore) -> dict[str, list[Use]]:
    """The revisions that each file is part of, by what was listed or else by its origin."""
    found: defaultdict[str, list[Use]] = defaultdict(list)
    branches: dict[str, dict[str, int]] = {}  # those of steps
    for repo, commit, file in store.listings.every():
        if repo not in branches:
            known = store.listings.branches(repo) or {}
            steps = ((commit, _STEP.fullmatch(name)) for name, commit in known.items())
            branches[repo] = {commit: int(step[1]) for commit, step in steps if step}
        use = Use(repo, commit, file.path, branches[repo].get(commit))
        for digest in (file.sha256, file.git_oid and f"git-{file.git_oid}"):
            if digest is not None:
                found[digest].append(use)
                break
    for path in store.places.origins.glob("*.json"):
        record = read_record(path)
        if path.stem not in found and record is not None:
            repo, commit, name = (str(record.get(key)) for key in ("repo", "commit", "path"))
            found[path.stem].append(Use(repo, commit, name, None))
    return found


def _users(digest: str, claims: Collection[Claims]) -> tuple[str, ...]:
    return tuple(
        f"{each.identity.pid} at {each.identity.host}"
        for each in claims
        if digest in each.using or digest in each.fetching
    )


def _remove_leftovers(store: CheckpointStore) -> None:
    """Records and small files in the making that kills have left."""
    root = store.places.root
    for folder in {path.parent for path in root.glob("**/.*.partial")}:
        remove_partials_in(folder)
    records = store.places.partials.glob(f"*{RECORD_SUFFIX}")
    for path in (*root.glob("**/.*.partial.*"), *records):  # beside one that is gone
        if not path.with_suffix("").exists():
            with contextlib.suppress(OSError):
                path.unlink()


def _remove_listings(store: CheckpointStore, repo: str | None) -> None:
    pattern = "*" if repo is None else repo.replace("/", "--")
    for path in store.places.listings.glob(f"{pattern}/*.json"):
        with contextlib.suppress(OSError):
            path.unlink()


def _order(entry: Entry) -> tuple[object, ...]:
    first = entry.uses[0] if entry.uses else Use("~", "", "", None)
    return *_place(first), entry.kind, entry.digest


def _place(use: Use) -> tuple[object, ...]:
    return use.repo, use.step is None, use.step or 0, use.commit, use.path
