"""Files of checkpoints from the Hub, verified, on this machine: found, waited for, or fetched."""

import contextlib
import errno
import functools
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, wait
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.core import File
from pythia_fast.errors import (
    ChecksumError,
    HubError,
    MissingCheckpointError,
    ReadError,
    WriteError,
)
from pythia_fast.hub.arrival import Arrived
from pythia_fast.hub.download import Downloader
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.partial import present_bytes, quarantine_of, record_of
from pythia_fast.hub.ranges import RangeReader
from pythia_fast.series.checkpoint import CheckpointFile, FetchReport
from pythia_fast.series.layout import INDEX_LIMIT_BYTES
from pythia_fast.store import CheckpointStore, Claim, Hold, Stopped, Waiting
from pythia_fast.store.places import digest_of
from pythia_fast.store.store import FULL

FULL_PAUSE_S = 0.5
"""After the disk was found full; doubled each time that nothing has come since."""
FULL_TRIES = 8
STOP_S = 0.1
"""How soon it is noticed that nobody waits any more."""

_log = logging.getLogger("pythia_fast")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A checkpoint's weights files, open and verified, and what keeps them there."""

    files: tuple[tuple[CheckpointFile, File], ...]
    hold: Hold
    report: FetchReport


@dataclass(slots=True)
class Begun:
    """Files that have been claimed, of which the missing ones are on their way."""

    commit: str
    files: tuple[HubFile, ...]
    waiting: Waiting
    downloader: Downloader
    claim: Claim
    futures: dict[Future[Arrived], HubFile]
    begun_s: float


class Fetching:
    """The files of one repository, through a store. Threads may share it.

    `hub_cache` is a cache of huggingface_hub: what is complete there is read where it is.
    """

    def __init__(self, store: CheckpointStore, hub_cache: Path, repo: str, endpoint: str) -> None:
        self.store = store
        self._repo = repo
        self._endpoint = endpoint
        self._hub_cache = hub_cache / f"models--{repo.replace('/', '--')}"
        self._readers: dict[str, RangeReader] = {}
        self._wrong: set[str] = set()  # in huggingface_hub's cache, which is not ours to put right

    def here_bytes(self, commit: str, files: Sequence[HubFile]) -> int:
        """How much of the files is on this machine already, by their sizes; nothing is read."""
        return sum(
            file.size
            if self.store.has(file) or self._in_hub_cache(commit, file) is not None
            else present_bytes(self.store.places.partial(digest_of(file)), file.size)
            for file in files
        )

    def from_store(self, commit: str, files: Sequence[HubFile]) -> list[HubFile]:
        """Those of the files that need room in the store."""
        return [file for file in files if self._in_hub_cache(commit, file) is None]

    def small(
        self,
        commit: str,
        file: HubFile,
        downloader: Downloader,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Path:
        """A config, an index or a tokenizer, verified by the hash that the Hub lists.

        ChecksumError if it is wrong even after a fresh download, MissingCheckpointError, HubError,
        WriteError; Stopped if the downloader is closed meanwhile, or `stopped` says so.
        """
        if file.size > INDEX_LIMIT_BYTES:
            raise HubError(
                f"{self._repo}: {file.path} has {file.size} bytes; {INDEX_LIMIT_BYTES} are allowed"
            )
        digest = digest_of(file)
        blob = self.store.places.blob(digest)
        for path in (self._in_hub_cache(commit, file), blob):
            found = None if path is None else _opened(path, ours=path == blob)
            if found is None or path is None:
                continue
            if self._is_right(found, file, Waiting()):
                return path
            if path == blob:
                self.store.quarantine(digest, found)
        return self._fetch_small(commit, file, downloader, stopped)

    def begin(
        self, commit: str, files: Sequence[HubFile], waiting: Waiting, downloader: Downloader
    ) -> Begun:
        """Claim the files, and let those that are missing come. To be followed by `finish`.

        Waits for room if need be, and for what other processes fetch: Stopped if `waiting` was.
        WriteError or ArgumentError if there will never be room; ReadError.
        """
        claim = self.store.claim(self.from_store(commit, files), waiting)
        begun = Begun(commit, tuple(files), waiting, downloader, claim, {}, time.monotonic())
        try:
            self._submit(begun, claim.missing)
        except BaseException:
            self.abandon(begun)
            raise
        return begun

    def finish(self, begun: Begun) -> Fetched:
        """Wait until they are here, open and verified.

        ChecksumError if a file is wrong even after a fresh download, MissingCheckpointError,
        HubError, Stopped if `waiting` was, and the errors of `begin`.
        """
        arrived: list[Arrived] = []
        wait_s = begun.claim.waited_s
        download_s = verify_s = 0.0
        while True:
            try:
                if begun.futures:
                    came, room_s = self._arrive(begun)
                    arrived += came
                    wait_s += room_s
                    download_s += time.monotonic() - begun.begun_s - room_s
                started = time.monotonic()
                opened, lost = self._open(begun)
                verify_s += time.monotonic() - started
            except BaseException:
                self.abandon(begun)
                raise
            if not lost:
                verify_s += sum(each.verify_s for each in arrived)
                received = sum(each.received_bytes for each in arrived)
                report = FetchReport(download_s, verify_s, wait_s, received)
                return Fetched(tuple(opened), begun.claim.hold, report)
            self.abandon(begun)
            for file, damaged in lost:
                if damaged is not None:
                    _log.warning("%s of %s is damaged: it is fetched afresh", file.path, self._repo)
                    self.store.quarantine(digest_of(file), damaged)
                if digest_of(file) in begun.claim.missing:
                    raise ChecksumError(
                        f"{self._repo}: {file.path} of commit {begun.commit} was downloaded, and "
                        "is damaged on the disk already: is the disk failing?"
                    )
            begun = self.begin(begun.commit, begun.files, begun.waiting, begun.downloader)
            wait_s += begun.claim.waited_s

    def _arrive(self, begun: Begun) -> tuple[list[Arrived], float]:
        """Wait for what is on its way and publish it; go on where the disk was full.

        What arrived, and how long there was no room.
        """
        arrived: list[Arrived] = []
        waited_s = 0.0
        failures = 0
        before = -1
        while True:
            _await(begun.futures, begun.waiting.stopped)
            full: WriteError | None = None
            error: BaseException | None = None
            left: dict[str, HubFile] = {}
            for future, file in begun.futures.items():
                if not future.done():
                    left[digest_of(file)] = file
                    continue
                try:
                    came = future.result()
                except CancelledError:
                    error = Stopped()
                except WriteError as problem:
                    left[digest_of(file)] = file
                    full = problem if problem.errno in FULL else full
                    error = error or (None if problem.errno in FULL else problem)
                except Exception as problem:
                    error = error or problem
                else:
                    arrived.append(came)
                    waited_s += self._publish(begun, file)
            if error is not None:
                raise error
            if full is None:
                return arrived, waited_s
            for future in begun.futures:
                future.cancel()  # those that still come would find no room either
            wait(begun.futures)
            started = time.monotonic()
            now = sum(present_bytes(self.store.places.partial(d), f.size) for d, f in left.items())
            failures = 0 if now > before >= 0 else failures + 1
            before = now
            if failures > FULL_TRIES:
                raise full
            needed = sum(file.size for file in left.values())
            self._free(begun, needed, tuple(left.values()), failures)
            waited_s += time.monotonic() - started
            begun.futures = {}
            self._submit(begun, tuple(left))

    def _publish(self, begun: Begun, file: HubFile) -> float:
        """Let a file that has come be a blob; for how long the disk was too full even for that."""
        started = time.monotonic()
        for failures in range(1, FULL_TRIES + 1):
            try:
                self.store.publish(self._repo, begun.commit, file)
            except WriteError as error:
                if error.errno not in FULL or failures == FULL_TRIES:
                    raise
                self._free(begun, 1, [file], failures)
            else:
                break
        return time.monotonic() - started

    def _free(self, begun: Begun, nbytes: int, files: Sequence[HubFile], failures: int) -> None:
        """Evict so much for the files, and give others time to do so too."""
        freed = self.store.room.make(nbytes, begun.claim.hold.digests)
        _log.warning(
            "the disk of %s is full: %d bytes were freed, and it is tried again with %s",
            *(self.store.places.root, freed, ", ".join(file.path for file in files)),
        )
        end = time.monotonic() + FULL_PAUSE_S * 2 ** (failures - 1 if failures else 0)
        while time.monotonic() < end and not begun.waiting.stopped():
            time.sleep(min(FULL_PAUSE_S, 0.1))
        if begun.waiting.stopped():
            raise Stopped

    def _submit(self, begun: Begun, digests: Sequence[str]) -> None:
        files = {digest_of(file): file for file in begun.files}
        reader = self._reader(begun.commit)
        for digest in digests:
            partial = self.store.places.partial(digest)
            future = begun.downloader.submit(
                reader, files[digest], partial, keeps_wrong=self.store.room.has_spare
            )
            begun.futures[future] = files[digest]

    def abandon(self, begun: Begun) -> None:
        """Stop what is under way and let go of all; what has come stays."""
        for future in begun.futures:
            future.cancel()
        wait(begun.futures)
        self.store.give_up(begun.claim.missing)
        begun.claim.hold.close()

    def _open(
        self, begun: Begun
    ) -> tuple[list[tuple[CheckpointFile, File]], list[tuple[HubFile, File | None]]]:
        """The files, open, and those that are gone or damaged, then with what the store has."""
        opened: list[tuple[CheckpointFile, File]] = []
        lost: list[tuple[HubFile, File | None]] = []
        held = set(begun.claim.hold.digests)
        for file in begun.files:
            digest = digest_of(file)
            path = self.store.places.blob(digest)
            if digest not in held:
                path = self._in_hub_cache(begun.commit, file) or path
            found = _opened(path, ours=digest in held)
            if found is not None and self._is_right(found, file, begun.waiting):
                opened.append((CheckpointFile(file.path, path, file.size, file.sha256), found))
            elif digest in held:
                lost.append((file, found))
            else:
                _tell_wrong(path, f"{file.path} of {self._repo} at {begun.commit[:12]}")
                self._wrong.add(digest)
                lost.append((file, None))
        return opened, lost

    def _is_right(self, found: File, file: HubFile, waiting: Waiting) -> bool:
        """Whether it is what the Hub lists. ReadError if that cannot be read."""
        return found.size == file.size and self.store.verify(
            digest_of(file), found, stopped=waiting.stopped
        )

    def _in_hub_cache(self, commit: str, file: HubFile) -> Path | None:
        """The file in huggingface_hub's cache, complete by its size."""
        etag = file.sha256 or file.git_oid
        if digest_of(file) in self._wrong:
            return None
        for path in (
            self._hub_cache / "blobs" / str(etag),
            self._hub_cache / "snapshots" / commit / file.path,
        ):
            try:
                if path.stat().st_size == file.size:
                    return path
            except OSError:
                continue
        return None

    def _fetch_small(
        self, commit: str, file: HubFile, downloader: Downloader, stopped: Callable[[], bool]
    ) -> Path:
        """Fetch it under a name of its own: nobody claims small files."""
        for _ in range(FULL_TRIES):
            partial = self.store.scratch(digest_of(file))
            try:
                future = downloader.submit(self._reader(commit), file, partial)
                try:
                    _await([future], stopped)
                    future.result()
                finally:
                    future.cancel()
                return self.store.put(self._repo, commit, file, partial.read_bytes())
            except CancelledError:
                raise Stopped from None
            except WriteError as error:
                if error.errno not in FULL or not self.store.room.make(file.size):
                    raise
            except ChecksumError as error:
                raise ChecksumError(
                    f"{self._repo}: {file.path} of commit {commit} does not have the hash that the "
                    "Hub lists, even after a fresh download"
                ) from error
            finally:
                for path in (partial, record_of(partial), quarantine_of(partial)):
                    with contextlib.suppress(OSError):
                        path.unlink()
        raise WriteError(
            errno.ENOSPC, f"{self.store.places.root} has no room for {file.path}: free some"
        )

    def _reader(self, commit: str) -> RangeReader:
        if commit not in self._readers:
            self._readers[commit] = RangeReader(
                *(self._repo, commit),
                endpoint=self._endpoint,
                repo_type="model",
                missing=MissingCheckpointError,
            )
        return self._readers[commit]


@functools.cache  # once in a process, however many series come upon it
def _tell_wrong(path: Path, what: str) -> None:
    _log.warning(
        "%s, in huggingface_hub's cache, is damaged or gone: %s is not read there; remove it",
        *(path, what),
    )


def _opened(path: Path, *, ours: bool) -> File | None:
    """A file, open; None if it is gone, or is another's (not `ours`) who does not let us read it.

    ReadError where the system refuses otherwise, which says nothing of what is in it.
    """
    try:
        return File(path)
    except ReadError as error:
        if error.errno == errno.ENOENT or (error.errno == errno.EACCES and not ours):
            return None
        raise


def _await(futures: Collection[Future[Arrived]], stopped: Callable[[], bool]) -> None:
    """Wait until all have come, one has failed or was cancelled; Stopped once `stopped` says so."""
    while True:
        done, left = wait(futures, timeout=STOP_S, return_when=FIRST_EXCEPTION)
        if not left or any(each.cancelled() or each.exception() is not None for each in done):
            return
        if stopped():
            raise Stopped
