"""What a store holds, told and removed: see also tests/cli/test_cache.py."""

import errno
import os
from pathlib import Path

import pytest

from pythia_fast.errors import WriteError
from pythia_fast.hub.files import HubFile
from pythia_fast.store import CheckpointStore, Hold, Waiting
from pythia_fast.store.entries import Use, entries, prune

REPO, OTHER = "owner/name", "owner/other"
COMMIT, LATER = "c" * 40, "d" * 40
SHARED, OWN, THEIRS, HALF, WRONG = (character * 64 for character in "01234")
CONFIG = "e" * 40


@pytest.fixture
def of(tmp_path: Path) -> CheckpointStore:
    """A file of two revisions, one of another model, one that was put there, and leftovers."""
    of = CheckpointStore(tmp_path)
    files = (HubFile("model.bin", 10, SHARED, "a" * 40), HubFile("config.json", 3, None, CONFIG))
    of.listings.keep_files(REPO, COMMIT, files)
    of.listings.keep_files(REPO, LATER, files)
    branches = {"main": LATER, "step8": LATER, "step9-old": LATER, "other": COMMIT}
    of.listings.keep_branches(REPO, branches, endpoint="http://x")
    of.put(REPO, COMMIT, files[0], b"0" * 10)
    of.put(REPO, COMMIT, files[1], b"{} ")
    of.put(OTHER, COMMIT, HubFile("model.bin", 20, OWN), b"1" * 20)
    of.places.blob(THEIRS).write_bytes(b"2" * 30)
    of.places.partials.mkdir()
    of.places.partial(HALF).write_bytes(b"3")
    of.places.quarantine(WRONG).write_bytes(b"4")
    for age, digest in enumerate((SHARED, OWN)):
        os.utime(of.places.origin(digest), (age, age))
    return of


def test_entries(of: CheckpointStore) -> None:
    found = {each.digest: each for each in entries(of)}
    assert found.keys() == {SHARED, OWN, THEIRS, HALF, WRONG, f"git-{CONFIG}"}
    assert set(found[SHARED].uses) == {
        Use(REPO, COMMIT, "model.bin", None),
        Use(REPO, LATER, "model.bin", 8),
    }
    assert found[OWN].uses == (Use(OTHER, COMMIT, "model.bin", None),)
    assert [each.digest for each in found.values() if not each.ours] == [THEIRS]
    assert found[SHARED].last_used == 0
    assert {digest: each.kind for digest, each in found.items() if each.kind != "blob"} == {
        HALF: "partial",
        WRONG: "quarantine",
    }
    hold = taken(of)
    users = {each.digest: each.in_use_by for each in entries(of) if each.in_use_by}
    assert list(users) == [OWN]
    assert users[OWN][0].startswith(f"{os.getpid()} at ")
    hold.close()


def taken(of: CheckpointStore) -> Hold:
    """Another store of the same folder uses a file."""
    return CheckpointStore(of.places.root).claim([HubFile("x", 20, OWN)], Waiting()).hold


def left(of: CheckpointStore) -> set[str]:
    return {each.digest for each in entries(of)}


def test_prune(of: CheckpointStore, tmp_path: Path) -> None:
    everything = left(of)
    hold = taken(of)
    planned = prune(of, dry_run=True)
    assert {each.digest for each in planned} == {SHARED, HALF, WRONG}
    assert left(of) == everything
    assert prune(of) == planned
    assert left(of) == {OWN, THEIRS, f"git-{CONFIG}"}
    for folder in (of.places.origins, of.places.partials, of.places.listings / "owner--name"):
        (folder / ".torn.json.123-abc.partial").touch()
    (of.places.partials / ".torn.123-abc.partial.done").touch()
    (of.places.partials / f"{OWN}.done").touch()  # killed right behind the rename of the file
    prune(of)
    assert len(list(tmp_path.rglob(".torn*"))) == 4  # somebody is at work
    hold.close()
    prune(of, small_too=True)
    assert not list(tmp_path.rglob(".torn*"))
    assert not list(of.places.partials.iterdir())
    assert left(of) == {THEIRS}
    assert of.listings.files(REPO, COMMIT) is None
    assert not list(of.places.origins.iterdir())


def test_prune_leaves_what_a_living_process_writes(of: CheckpointStore) -> None:
    living = of.scratch(f"git-{CONFIG}")  # small files are in no lease
    dead = living.with_name(living.name.replace(f".{os.getpid()}-", ".4194305-"))
    for path in (living, dead):
        path.touch()
        path.with_name(f"{path.name}.done").touch()
    prune(of)
    left = {path.name for path in of.places.partials.iterdir()}
    assert left == {living.name, f"{living.name}.done"}


def test_prune_goes_on_where_one_cannot_be_removed(
    of: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name == SHARED:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(WriteError, match=f"{SHARED}: Operation not permitted"):
        prune(of)
    assert left(of) == {SHARED, THEIRS, f"git-{CONFIG}"}


def test_prune_one_model(of: CheckpointStore) -> None:
    assert [each.digest for each in prune(of, repo=OTHER)] == [OWN]
    assert SHARED in left(of)


def test_prune_until_little_enough_is_left(of: CheckpointStore) -> None:
    sizes = {each.digest: each.nbytes for each in entries(of) if each.digest != f"git-{CONFIG}"}
    used = sum(sizes.values())
    assert prune(of, keep_bytes=used) == []
    removed = prune(of, keep_bytes=used - sizes[WRONG] - 1)
    assert [each.digest for each in removed] == [WRONG, SHARED]
    assert prune(of, keep_bytes=used - sizes[WRONG] - sizes[SHARED]) == []


def test_listings_that_are_torn_or_not_ours(of: CheckpointStore) -> None:
    path = of.places.listing(REPO, COMMIT)
    good = path.read_text()
    for bad in ("", "[]", '{"files": 5}', good.replace(SHARED, "../x"), good.replace("10", "-1")):
        path.write_text(bad)
        assert of.listings.files(REPO, COMMIT) is None
    for bad in (good.replace("model.bin", "../model.bin"), good[:-9], good.replace("[", "[5,")):
        path.write_text(bad)
        assert of.listings.files(REPO, COMMIT) is None
    of.places.listing(REPO, "branches").write_text('{"branches": []}')
    assert of.listings.branches(REPO) is None
