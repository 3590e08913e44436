"""The store: what is taken stays, what is not goes when there is no room, and nothing else does."""

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.core import File
from pythia_fast.errors import ArgumentError, ReadError, WriteError
from pythia_fast.hub.files import HubFile
from pythia_fast.store import (
    CheckpointStore,
    Claim,
    Hold,
    Stopped,
    Waiting,
    evicting,
    leases,
    room,
    store,
)
from pythia_fast.store.contents import Contents
from pythia_fast.store.leases import Lease

Until = Callable[[Callable[[], bool]], None]
SIZE = 1000
TICK_S = 0.02
"""A file system's clock moves on within that time."""
REPO, COMMIT = "owner/name", "c" * 40


def file_of(number: int, size: int = SIZE) -> HubFile:
    """A file with its own bytes, `content(number, size)`."""
    digest = hashlib.sha256(content(number, size)).hexdigest()
    return HubFile(f"model-{number}.safetensors", size, digest)


def content(number: int, size: int = SIZE) -> bytes:
    return (b"%d" % number * size)[:size]


def fetch(of: CheckpointStore, *files: HubFile, waiting: Waiting | None = None) -> Hold:
    """What a download does: claim, make the missing files, publish them. They are held."""
    claim = of.claim(files, waiting or Waiting())
    for file in files:
        if file.sha256 in claim.missing:
            number = int(file.path.split("-")[1].split(".")[0])
            of.places.partial(str(file.sha256)).write_bytes(content(number, file.size))
            of.publish(REPO, COMMIT, file)
    return claim.hold


def blobs(of: CheckpointStore) -> set[str]:
    return set(Contents.of(of.places).blobs)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def digests(*numbers: int) -> set[str]:
    return {str(file_of(number).sha256) for number in numbers}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOOK_AGAIN_S", 0.01)


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    first, second = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    fetch(first, file_of(1)).close()
    claim = second.claim([file_of(1), file_of(2)], Waiting())
    assert set(claim.here) == digests(1)
    assert set(claim.missing) == digests(2)
    assert second.has(file_of(1))
    assert not second.has(HubFile("x", SIZE + 1, file_of(1).sha256))
    origin = json.loads(first.places.origin(claim.here[0]).read_bytes())
    assert origin == {"repo": REPO, "commit": COMMIT, "path": file_of(1).path, "size": SIZE}


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=3 * SIZE)
    for age, number in enumerate((1, 2, 3)):
        fetch(of, file_of(number)).close()
        os.utime(of.places.origin(str(file_of(number).sha256)), (age, age))
    fetch(of, file_of(1)).close()  # used again
    fetch(of, file_of(4)).close()
    assert blobs(of) == digests(1, 3, 4)
    assert not of.places.origin(str(file_of(2).sha256)).exists()


def test_what_is_held_stays_until_it_is_closed_or_forgotten(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=2 * SIZE)
    held, other = fetch(of, file_of(1)), fetch(of, file_of(2))
    with pytest.raises(ArgumentError, match=r"2 kB has no room.*has 2 kB open; close"):
        fetch(of, file_of(3))
    other.close()
    other.close()
    third = fetch(of, file_of(3))
    assert blobs(of) == digests(1, 3)
    del held
    third.close()
    fetch(of, file_of(4), file_of(5)).close()
    assert blobs(of) == digests(4, 5)


def test_one_that_is_held_twice(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=SIZE)
    first, second = fetch(of, file_of(1)), fetch(of, file_of(1))
    first.close()
    with pytest.raises(ArgumentError, match="no room"):
        fetch(of, file_of(2))
    second.close()
    fetch(of, file_of(2))
    assert not of.has(file_of(1))


def test_what_somebody_put_there_is_never_evicted(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=3 * SIZE)
    of.places.blobs.mkdir(parents=True)
    of.places.blob(str(file_of(1).sha256)).write_bytes(content(1))
    fetch(of, file_of(1)).close()  # it is used, too
    for number in (2, 3, 4, 5):
        fetch(of, file_of(number)).close()
        time.sleep(TICK_S)
    assert blobs(of) == digests(1, 4, 5)
    with pytest.raises(ArgumentError, match="put there by somebody and are never removed"):
        of.room.require([file_of(2, 3 * SIZE)])


def test_a_budget_below_one_checkpoint(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=2 * SIZE)
    of.room.require([file_of(1), file_of(2)])
    with pytest.raises(ArgumentError, match=r"needs 3 kB; give at least 3000 bytes"):
        of.room.require([file_of(1), file_of(2), file_of(3)])


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = CheckpointStore(tmp_path)
    fetch(of, file_of(1)).close()
    monkeypatch.setattr(room, "free_bytes", lambda folder: room.SPARE_BYTES + SIZE)
    of.room.require([file_of(2, 2 * SIZE)])  # once the first has gone
    with pytest.raises(WriteError, match="free some room") as caught:
        of.room.require([file_of(2, 2 * SIZE + 1)])
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(WriteError, match="nothing is left there that may be removed"):
        fetch(of, file_of(2, 2 * SIZE + 1))


def test_without_a_budget_the_disk_is_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = CheckpointStore(tmp_path)
    total = room.SPARE_BYTES + 2 * SIZE
    monkeypatch.setattr(
        room, "free_bytes", lambda _: total - sum(Contents.of(of.places).blobs.values())
    )
    for number in (1, 2, 3):
        fetch(of, file_of(number)).close()
        time.sleep(TICK_S)
    assert blobs(of) == digests(2, 3)


def test_a_lease_that_a_full_disk_refuses_makes_room_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = CheckpointStore(tmp_path)
    fetch(of, file_of(1)).close()
    write = of.lease._write

    def full() -> None:
        if digests(1) <= blobs(of):
            raise WriteError(errno.ENOSPC, "full")
        write()

    monkeypatch.setattr(of.lease, "_write", full)
    fetch(of, file_of(2))
    assert blobs(of) == digests(2)


def test_who_waits_long_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (CheckpointStore(tmp_path, budget_bytes=SIZE) for _ in range(2))
    monkeypatch.setattr(store, "SAID_AFTER_S", 0.0)
    hold = fetch(first, file_of(1))
    asked: list[None] = []
    waiting = Waiting(stopped=lambda: len(asked) > 9 or asked.append(None) is not None)
    written: list[Path] = []
    write = leases.write_record

    def count(path: Path, content: object) -> None:
        written.append(path)
        write(path, content)

    monkeypatch.setattr(leases, "write_record", count)
    with pytest.raises(Stopped):
        second.claim([file_of(2)], waiting)
    assert caplog.text.count("waits for room") == 1
    assert len(written) == 1, "a lease is not written at every look"
    hold.close()


def test_files_of_a_checkpoint_come_together_or_wait_together(tmp_path: Path, until: Until) -> None:
    """Two that each held half of what they need would wait for each other for ever."""
    first, second = (CheckpointStore(tmp_path, budget_bytes=2 * SIZE) for _ in range(2))
    one = first.claim([file_of(1), file_of(2)], Waiting())
    stop = threading.Event()
    waiting = Waiting(stopped=stop.is_set)
    caught: list[BaseException] = []

    def claim() -> None:
        try:
            second.claim([file_of(3), file_of(4)], waiting)
        except Stopped as error:
            caught.append(error)

    thread = threading.Thread(target=claim)
    thread.start()
    until(lambda: any(each.waiting_bytes == 2 * SIZE for each in first.lease.others()))
    assert not any(each.fetching for each in first.lease.others())
    stop.set()
    thread.join()
    assert len(caught) == 1
    assert first.lease.others() == []
    first.give_up(one.missing)


def test_who_waits_for_nothing_urgent_lets_others_first(tmp_path: Path) -> None:
    first, second = (CheckpointStore(tmp_path, budget_bytes=2 * SIZE) for _ in range(2))
    for of in (first, second):  # another process, or another thread
        asked: list[None] = []

        def stopped(asked: list[None] = asked) -> bool:
            asked.append(None)
            return len(asked) > 20

        of.lease.wait_for(2 * SIZE, "somebody")
        with pytest.raises(Stopped):
            first.claim([file_of(1)], Waiting(stopped=stopped, urgent=lambda: False))
        claim = first.claim([file_of(1)], Waiting())
        first.give_up(claim.missing)
        claim.hold.close()
        of.lease.wait_for(0, "somebody")
    assert first.claim([file_of(1)], Waiting(urgent=lambda: False)).missing


def test_another_that_fetches_the_same_is_waited_for(tmp_path: Path, until: Until) -> None:
    first, second = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    first.claim([file_of(1)], Waiting())
    found: list[Claim] = []
    looks: list[None] = []
    waiting = Waiting(stopped=lambda: looks.append(None) is not None)
    thread = threading.Thread(
        target=lambda: found.append(second.claim([file_of(1)], waiting)), daemon=True
    )
    thread.start()
    until(lambda: len(looks) > 5)
    assert not found
    first.places.partial(str(file_of(1).sha256)).write_bytes(content(1))
    first.publish(REPO, COMMIT, file_of(1))
    thread.join(60)
    assert set(found[0].here) == digests(1)
    assert not found[0].missing


def test_room_is_made_by_giving_up_what_is_not_needed_so_soon(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=2 * SIZE)
    holds = [fetch(of, file_of(1)), fetch(of, file_of(2))]

    def shed() -> bool:
        holds.pop().close()
        return True

    fetch(of, file_of(3), waiting=Waiting(shed=shed))
    assert blobs(of) == digests(1, 3)


def around_the_leases(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[], object], *, after: bool = False
) -> None:
    """Let something happen just before an evictor reads the leases, or just after."""
    taken = evicting._is_taken

    def first(candidate: evicting.Candidate, lease: Lease) -> bool:
        monkeypatch.setattr(evicting, "_is_taken", taken)
        if not after:
            action()
        found = taken(candidate, lease)
        if after:
            action()
        return found

    monkeypatch.setattr(evicting, "_is_taken", first)


def test_what_is_taken_while_it_is_evicted_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    digest = str(file_of(1).sha256)
    fetch(first, file_of(1)).close()
    candidate = evicting.Candidate("blob", digest, SIZE)
    around_the_leases(monkeypatch, lambda: second.lease.use(digest))
    assert evicting.evict(first.places, first.lease, candidate) == 0
    assert blobs(first) == {digest}
    second.lease.drop(digest)
    for after in (False, True):
        found: list[Claim] = []
        take = partial(lambda to: to.append(second.claim([file_of(1)], Waiting())), found)
        around_the_leases(monkeypatch, take, after=after)
        evicting.evict(first.places, first.lease, candidate)
        assert found[0].here == (digest,)
        assert names(first.places.blobs) == {digest}
        assert first.places.origin(digest).exists()
        found[0].hold.close()
    assert evicting.evict(first.places, first.lease, candidate) == SIZE
    assert evicting.evict(first.places, first.lease, candidate) == 0
    assert names(first.places.blobs) == set()


def test_nothing_is_evicted_where_it_cannot_be_seen_who_uses_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=SIZE)
    fetch(of, file_of(1)).close()
    candidate = evicting.Candidate("blob", str(file_of(1).sha256), SIZE)
    unreadable = of.places.leases / "1-ab.json"

    def hide() -> None:
        unreadable.mkdir()

    around_the_leases(monkeypatch, hide)
    with pytest.raises(ReadError, match=r"1-ab\.json"):
        evicting.evict(of.places, of.lease, candidate)
    assert names(of.places.blobs) == digests(1)
    with pytest.raises(ReadError, match="nothing may be removed"):
        of.claim([file_of(2)], Waiting())
    assert names(of.places.blobs) == digests(1)
    assert of.lease.claims.using == frozenset()
    unreadable.rmdir()

    def refused(path: Path) -> list[Path]:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refused)
        with pytest.raises(ReadError, match=r"cannot list .*blobs: Too many open files"):
            evicting.restore(of.places, str(file_of(3).sha256))


def test_a_partial_file_that_is_taken_while_it_is_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    digest = str(file_of(1).sha256)
    first.places.partials.mkdir(parents=True)
    path = first.places.partial(digest)
    path.write_bytes(b"half")
    candidate = evicting.Candidate("partial", digest, 4)
    around_the_leases(monkeypatch, lambda: second.lease.fetch({digest: SIZE}))
    assert evicting.evict(first.places, first.lease, candidate) == 0
    assert path.read_bytes() == b"half"
    second.lease.fetched(digest)
    assert evicting.evict(first.places, first.lease, candidate) == 4
    assert names(first.places.partials) == set()


def test_a_blob_whose_eviction_was_killed_has_its_name_again(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path)
    fetch(of, file_of(1)).close()
    digest = str(file_of(1).sha256)
    path = of.places.blob(digest)
    evicted = path.with_name(f".{digest}.123-abc.evicted")
    path.rename(evicted)
    assert Contents.of(of.places).used_bytes(()) == SIZE
    found = CheckpointStore(tmp_path).claim([file_of(1)], Waiting())
    assert set(found.here) == digests(1)
    assert not evicted.exists()


def test_what_cannot_be_removed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=3 * SIZE)
    for number in (1, 2, 3):
        fetch(of, file_of(number)).close()
        os.utime(of.places.origin(str(file_of(number).sha256)), (number, number))
    kept = digests(1)
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name in kept:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    fetch(of, file_of(4)).close()
    assert blobs(of) == digests(1, 3, 4)
    kept |= digests(3, 4)
    with pytest.raises(WriteError, match="Operation not permitted"):
        of.claim([file_of(5)], Waiting())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_blob_published_while_its_origin_goes_is_still_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    first, second = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    fetch(first, file_of(1)).close()
    digest = str(file_of(1).sha256)
    unlink = Path.unlink

    def publishing(path: Path, missing_ok: bool = False) -> None:
        if when == "after":
            unlink(path, missing_ok)
        if path == first.places.origin(digest):
            monkeypatch.setattr(Path, "unlink", unlink)
            fetch(second, file_of(1)).close()
        if when == "before":
            unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", publishing)
    evicting.evict(first.places, first.lease, evicting.Candidate("blob", digest, SIZE))
    assert blobs(first) == {digest}
    origin = json.loads(first.places.origin(digest).read_bytes())
    assert origin["path"] == file_of(1).path


def test_damaged_files_go_first_and_even_where_the_right_ones_are_used(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path, budget_bytes=4 * 4096)
    for number in (1, 2):
        hold = fetch(of, file_of(number, 4096))
        of.places.quarantine(hold.digests[0]).write_bytes(bytes(4096))
        if number == 1:
            hold.close()
    fetch(of, file_of(3, 4096))
    assert names(of.places.blobs) == {file_of(number, 4096).sha256 for number in (1, 2, 3)}
    assert len(names(of.places.partials)) == 1
    assert of.room.has_spare()
    claim = of.claim([file_of(4, 4096)], Waiting())
    assert names(of.places.partials) == set()
    of.places.quarantine(claim.missing[0]).write_bytes(bytes(4096))
    assert not of.room.has_spare()
    assert of.room.make(1) == 4096


def test_partial_files_of_nobody_go_after_blobs_and_those_of_somebody_stay(tmp_path: Path) -> None:
    of, other = CheckpointStore(tmp_path, budget_bytes=20_000), CheckpointStore(tmp_path)
    fetch(of, file_of(1)).close()
    for number, name in ((2, ""), (3, ".wrong"), (4, "")):
        path = of.places.partials / f"{file_of(number).sha256}{name}"
        path.write_bytes(bytes(4096))
    of.places.partials.joinpath(f"{file_of(2).sha256}.done").write_text("{}")
    other.lease.fetch({str(file_of(4).sha256): 4096})
    fetch(of, file_of(5, 11_500)).close()
    assert blobs(of) == {file_of(5, 11_500).sha256}
    left = names(of.places.partials)
    assert left == {str(file_of(4).sha256), f"{file_of(2).sha256}.done", str(file_of(2).sha256)}
    fetch(of, file_of(6, 15_000)).close()
    assert names(of.places.partials) == {str(file_of(4).sha256)}


def test_a_file_that_is_changed_is_hashed_again(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path)
    fetch(of, file_of(1))
    digest = str(file_of(1).sha256)
    path = of.places.blob(digest)
    assert of.verify(digest, File(path))
    time.sleep(TICK_S)
    path.write_bytes(b"x" * SIZE)
    assert not of.verify(digest, File(path))
    with pytest.raises(Stopped):
        of.verify(digest, File(path), stopped=lambda: True)
    damaged = File(path)
    of.quarantine(digest, damaged)
    of.quarantine(digest, damaged)
    assert of.places.quarantine(digest).read_bytes() == b"x" * SIZE
    small = HubFile("config.json", 3, None, "d800886d9c86731ae5c4a62b0b77c437015e00d2")
    path = of.put(REPO, COMMIT, small, b"123")
    assert path.name == f"git-{small.git_oid}"
    assert of.verify(path.name, File(path))  # as `printf 123 | git hash-object --stdin` says
    time.sleep(TICK_S)
    path.write_bytes(b"124")
    assert not of.verify(path.name, File(path))


def test_a_file_that_is_changed_and_given_its_old_time_is_hashed_again(tmp_path: Path) -> None:
    of = CheckpointStore(tmp_path)
    fetch(of, file_of(1)).close()
    digest = str(file_of(1).sha256)
    path = of.places.blob(digest)
    before = path.stat()
    assert of.verify(digest, File(path))
    time.sleep(TICK_S)
    path.write_bytes(b"x" * SIZE)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not of.verify(digest, File(path))


def test_what_was_verified_while_it_came_is_not_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the name that it gets then changes its ctime."""
    hashed = []

    def counting(digest: str, *_: object, **__: object) -> bool:
        hashed.append(digest)
        return True

    monkeypatch.setattr(store, "digest_is", counting)
    of = CheckpointStore(tmp_path)
    digest = str(file_of(1).sha256)
    fetch(of, file_of(1)).close()
    assert of.verify(digest, File(of.places.blob(digest)))
    assert hashed == []
    again = CheckpointStore(tmp_path)
    for _ in range(2):
        assert again.verify(digest, File(of.places.blob(digest)))
    assert hashed == [digest]


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    kept=st.lists(st.booleans(), min_size=12, max_size=12),
    budget=st.integers(50, 200),
)
def test_the_budget_always_holds(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], kept: list[bool], budget: int
) -> None:
    of = CheckpointStore(tmp_path_factory.mktemp("store"), budget_bytes=budget)
    holds = []
    for number, (size, keep) in enumerate(zip(sizes, kept, strict=False), 100):
        held = sum(len(hold.digests) and hold.size for hold in holds)  # type: ignore[attr-defined]
        try:
            hold = fetch(of, file_of(number, size))
        except ArgumentError:
            assert held + size > budget
            continue
        assert held + size <= budget
        hold.size = size  # type: ignore[attr-defined]
        if keep:
            holds.append(hold)
        else:
            hold.close()
        present = Contents.of(of.places).blobs
        assert sum(present.values()) <= budget
        assert {digest for hold in holds for digest in hold.digests} <= present.keys()


def test_room_that_another_gives_back_while_it_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First too little may go, and a moment later nobody is there who could make room."""
    other, ours = (CheckpointStore(tmp_path, budget_bytes=SIZE) for _ in range(2))
    held = fetch(other, file_of(1))
    real = room.candidates

    def then_given_back(*arguments: object) -> object:
        found = real(*arguments)  # type: ignore[arg-type]
        held.close()
        return found

    monkeypatch.setattr(room, "candidates", then_given_back)
    fetch(ours, file_of(2), waiting=Waiting(urgent=lambda: True)).close()
    assert blobs(ours) == digests(2)
