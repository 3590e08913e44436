"""Checkpoint files by their hash, shared by processes, within a budget of the disk.

Who wants files claims all of a checkpoint at once: those that are here are then in use, for the
others there is room. So no two processes can each wait for room that the other one has taken for
half a checkpoint.
"""

import contextlib
import errno
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from pythia_fast.cache import expanded
from pythia_fast.core import File
from pythia_fast.errors import ArgumentError, ChecksumError, WriteError
from pythia_fast.hub.endpoint import check_endpoint
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.partial import record_of
from pythia_fast.publish import in_the_way, make_folder, partial_of, write_error
from pythia_fast.store.claims import Claim, Hold, Stopped, Waiting
from pythia_fast.store.evicting import last_used, recover, restore
from pythia_fast.store.hashing import Verified, digest_is
from pythia_fast.store.leases import Lease
from pythia_fast.store.listings import Listings
from pythia_fast.store.places import Places, digest_of, write_bytes, write_record
from pythia_fast.store.room import NoHopeError, Room

LOOK_AGAIN_S = 0.25
"""How often a claim that waits looks whether there is room."""

HOPELESS_S = 1.0
"""So long it must look as if nobody would make room before that is an error."""
SAID_AFTER_S = 60.0
"""How long a claim that somebody needs now waits before it says so in the log."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a system says whose disk, or one's part of it, is full."""

FOLDER = "checkpoints"

_log = logging.getLogger("pythia_fast")


class CheckpointStore:
    """The files under `root`, of which at most `budget_bytes` are there at a time.

    Threads may share it. Errors: WriteError and ReadError where the system refuses.
    """

    def __init__(self, root: Path, *, budget_bytes: int | None = None) -> None:
        self.places = Places(root)
        self.lease = Lease(self.places.leases)
        self.room = Room(self.places, self.lease, budget_bytes)
        self.listings = Listings(self.places)
        self._verified = Verified()
        self._claiming = threading.Lock()
        self._recovered = False

    def __repr__(self) -> str:
        return f"CheckpointStore({str(self.places.root)!r})"

    def has(self, file: HubFile) -> bool:
        """Whether a file of that hash and size is here; nothing is held, or verified."""
        try:
            return self.places.blob(digest_of(file)).stat().st_size == file.size
        except OSError:
            return False

    def claim(self, files: Collection[HubFile], waiting: Waiting) -> Claim:
        """Wait until the files may be had: hold those that are here, have room for the others.

        Files that another process fetches are waited for. Afterwards each missing file is either
        `publish`ed or `give_up`. Stopped if it was; ArgumentError or WriteError if there will never
        be room.
        """
        wanted = {digest_of(file): file.size for file in files}
        if not wanted:
            return Claim(Hold(self.lease, ()), (), (), 0.0)
        started = time.monotonic()
        hopeless_since_s: float | None = None
        waited = said = False
        try:
            while True:
                if waiting.stopped():
                    raise Stopped
                claim = None
                try:
                    with self._claiming:
                        claim = self._try(wanted, waiting)
                    hopeless_since_s = None
                except NoHopeError as error:
                    # Another process may have been between two checkpoints: look again for a while.
                    hopeless_since_s = hopeless_since_s or time.monotonic()
                    if error.__cause__ and time.monotonic() - hopeless_since_s > HOPELESS_S:
                        raise error.__cause__ from None
                if claim is not None:
                    waited_s = time.monotonic() - started if waited else 0.0
                    return Claim(claim.hold, claim.here, claim.missing, waited_s)
                waited = True
                if not said and waiting.urgent() and time.monotonic() - started > SAID_AFTER_S:
                    said = True
                    _log.warning(
                        "a checkpoint waits for room in %s, or for another process that fetches it",
                        self.places.root,
                    )
                _pause(waiting.stopped)
        finally:
            if waited:
                self.lease.wait_for(0, waiting)

    def publish(self, repo: str, commit: str, file: HubFile) -> None:
        """Let a file that was claimed, and is complete and verified in `partial`, be a blob."""
        digest = digest_of(file)
        partial = self.places.partial(digest)
        origin = {"repo": repo, "path": file.path, "commit": commit, "size": file.size}
        try:
            # first: a blob without it would never go
            self._write(lambda: write_record(self.places.origin(digest), origin))
            self.places.blobs.mkdir(parents=True, exist_ok=True)
            with partial.open("rb") as verified:
                partial.replace(self.places.blob(digest))
                self._verified.add(digest, os.fstat(verified.fileno()))  # the rename changed it
            with contextlib.suppress(OSError):  # a record of what is complete
                record_of(partial).unlink(missing_ok=True)
            if last_used(self.places, digest) is None:
                self._write(lambda: write_record(self.places.origin(digest), origin))
        except WriteError:
            raise
        except OSError as error:
            raise write_error(self.places.blob(digest), error) from error
        self.lease.fetched(digest)

    def give_up(self, digests: Collection[str]) -> None:
        """These files are not fetched after all; what has come of them stays."""
        self.lease.fetched(*digests)

    def scratch(self, digest: str) -> Path:
        """A name for a file in the making that is nobody else's. WriteError."""
        self._make_folders()
        return partial_of(self.places.partial(digest))

    def put(self, repo: str, commit: str, file: HubFile, content: bytes) -> Path:
        """Keep a small file whose bytes are here, and have been verified."""
        digest = digest_of(file)
        write_record(
            self.places.origin(digest),
            {"repo": repo, "path": file.path, "commit": commit, "size": file.size},
        )
        write_bytes(self.places.blob(digest), content)
        return self.places.blob(digest)

    def verify(
        self, digest: str, file: File, *, stopped: Callable[[], bool] = lambda: False
    ) -> bool:
        """Whether an open file has that digest: hashed, unless this process has done so before.

        Stopped if `stopped` says so meanwhile.
        """

        def seen(_: int) -> None:
            if stopped():
                raise Stopped

        status = os.fstat(file.fileno())
        if not self._verified.has(digest, status):
            if not digest_is(digest, file, seen=seen):
                return False
            self._verified.add(digest, status)
        return True

    def quarantine(self, digest: str, damaged: File) -> None:
        """Put a blob out of the way that is open, and not what its name says.

        Not one that has come in its place since. ChecksumError if somebody has put it there: that
        is not ours to take away.
        """
        blob, target = self.places.blob(digest), self.places.quarantine(digest)
        try:
            if not os.path.samestat(os.fstat(damaged.fileno()), blob.stat()):
                return
            if last_used(self.places, digest) is None:
                raise ChecksumError(
                    f"{blob} was put there by somebody, and its bytes do not have the hash that is "
                    "its name: remove it, and it is downloaded"
                )
            self.places.partials.mkdir(parents=True, exist_ok=True)
            blob.replace(target)
        except FileNotFoundError:
            pass  # another process has done it
        except ChecksumError:
            raise
        except OSError as error:
            raise write_error(target, error) from error

    def _try(self, wanted: Mapping[str, int], waiting: Waiting) -> Claim | None:
        """The claim, or None if it has to wait; then nothing is held."""
        self._make_folders()
        if not self._has_room(wanted, waiting):
            return None
        digests = tuple(wanted)
        self._write(lambda: self.lease.use(*digests))
        hold = Hold(self.lease, digests)
        claim = None
        try:
            here = tuple(digest for digest in digests if self._is_here(digest))
            missing = {digest: wanted[digest] for digest in digests if digest not in here}
            if not missing or self._reserve(missing, wanted, waiting):
                self._touch(here)
                claim = Claim(hold, here, tuple(missing), 0.0)
        finally:
            if claim is None:
                hold.close()
        return claim

    def _has_room(self, wanted: Mapping[str, int], waiting: Waiting) -> bool:
        """A first look, without a lease, which would be written anew as often as we look."""
        missing = {
            digest: size for digest, size in wanted.items() if not self.places.blob(digest).exists()
        }
        if not missing:
            return True
        return not self._are_fetched(missing) and self.room.find(missing, wanted, waiting)

    def _are_fetched(self, missing: Collection[str]) -> bool:
        """Whether some of the files are on their way already."""
        claims = [*self.lease.others(), self.lease.claims]
        return any(digest in each.fetching for each in claims for digest in missing)

    def _reserve(
        self,
        missing: Mapping[str, int],
        wanted: Mapping[str, int],
        waiting: Waiting,
    ) -> bool:
        """Say that we fetch these files, if nobody else does and there is room for them."""
        if self._are_fetched(missing) or not self.room.find(missing, wanted, waiting):
            return False
        self._write(lambda: self.lease.fetch(missing))
        with contextlib.ExitStack() as undo:
            undo.callback(self.lease.fetched, *missing)
            others = self.lease.others()
            if any(digest in each.fetching for each in others for digest in missing):
                return False
            if any(self._is_here(digest) for digest in missing):
                return False  # it was published between our look at the blobs and at the leases
            if self.room.excess({}, waiting) > 0:
                return False
            undo.pop_all()
        self.lease.wait_for(0, waiting)
        return True

    def _write(self, write: Callable[[], None]) -> None:
        """Write a record; where the disk is full, after something was evicted for it."""
        try:
            write()
        except WriteError as error:
            if error.errno not in FULL or not self.room.make(1):
                raise
            write()

    def _is_here(self, digest: str) -> bool:
        return self.places.blob(digest).exists() or restore(self.places, digest)

    def _touch(self, digests: Collection[str]) -> None:
        """Remember that they are used now: a hint for whoever evicts."""
        for digest in digests:
            with contextlib.suppress(OSError):
                os.utime(self.places.origin(digest))

    def _make_folders(self) -> None:
        for folder in (self.places.blobs, self.places.partials):
            make_folder(folder)
        if not self._recovered:
            recover(self.places, self.lease)
            self._recovered = True


def default_root(cache_dir: str | Path | None = None) -> Path:
    """Where the store is: in `cache_dir`, or beside huggingface_hub's own cache (HF_HOME).

    It need not exist; ArgumentError if it cannot be a folder, or HF_ENDPOINT is no address.
    """
    if cache_dir is not None:
        folder = expanded(cache_dir)
        if reason := in_the_way(folder):
            raise ArgumentError(f"{folder} cannot be the cache: {reason}")
        return folder / FOLDER
    check_endpoint()
    from huggingface_hub import constants  # here: it reads the environment when it is imported

    return Path(constants.HF_ASSETS_CACHE) / "pythia-fast" / FOLDER


def _pause(stopped: Callable[[], bool]) -> None:
    """A while of random length, so that two that are in each other's way get out of it."""
    end = time.monotonic() + random.uniform(LOOK_AGAIN_S / 2, LOOK_AGAIN_S * 1.5)
    while (left_s := end - time.monotonic()) > 0 and not stopped():
        time.sleep(min(left_s, 0.05))
