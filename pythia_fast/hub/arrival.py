"""One file on its way: which pieces are still to be fetched, and whether what came is right."""

import contextlib
import errno
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from pythia_fast.errors import ChecksumError, ReadError, WriteError
from pythia_fast.hub.body import StoppedError
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.masks import find_masks, probe
from pythia_fast.hub.partial import BLOCK_BYTES, PartialFile, quarantine_of, record_of
from pythia_fast.hub.ranges import RangeReader
from pythia_fast.publish import write_error

PIECES = 8
"""A file is asked for in about so many ranges, which may come at once."""
PIECE_BYTES = (2**23, 2**27)
"""But a range is not shorter, or longer, than this."""
_HASHED_BYTES = 2**18  # stays in the cache between the read and the hash


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that is complete and has been verified, and how it came.

    `sha256` is its own, computed here. `download_s` is from the first request to the last byte,
    `verify_s` what was waited for the hash after that. `received_bytes` came over the network, also
    those that came again; `resumed_bytes` were there from before, `made_bytes` made here.
    """

    sha256: str
    download_s: float
    verify_s: float
    received_bytes: int
    resumed_bytes: int
    made_bytes: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of the file still to be fetched; `senseless` answers came for it before."""

    begin: int
    end: int
    senseless: int = 0


class Arrival:
    """A file on its way to `path`. What changes in it is guarded by `lock`, or one thread's own.

    `begin` comes first, in one thread. Then threads fetch the `pieces`, `record` what has come, and
    call `fetched` when there are no more; `verify`, in a thread of its own, ends it. Who changes
    the file says so by `writing`, and nobody does any more after `seal`.
    """

    def __init__(
        self,
        reader: RangeReader,
        file: HubFile,
        path: Path,
        lock: threading.Lock,
        keeps_wrong: Callable[[], bool] = lambda: True,
    ) -> None:
        self.reader, self.file, self.path = reader, file, path
        self.future: Future[Arrived] = Future()
        self.came = threading.Condition(lock)
        self.pieces: deque[Piece] = deque()
        self.begun = False
        self.flying = 0
        self.failures = 0
        self.failing_since_s: float | None = None
        self.not_before_s = 0.0
        self.began_s = float("inf")
        self.received_bytes = 0
        self._partial: PartialFile | None = None
        self._keeps_wrong = keeps_wrong
        self._writers = 0
        self._sealed = False
        self._fresh = False
        self._planned = False
        self._resumed_bytes = 0
        self._made: list[tuple[int, int]] = []
        self._first_s = self._complete_s = 0.0

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for it any more, or it has failed."""
        return self.future.done()

    @property
    def partial(self) -> PartialFile:
        """The file in the making, once it has begun."""
        if self._partial is None:
            raise RuntimeError("begin comes first")
        return self._partial

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """While the file, or what lies beside it, is changed. StoppedError if it may not be."""
        with self.came:
            if self._sealed:
                raise StoppedError
            self._writers += 1
        try:
            yield
        finally:
            with self.came:
                self._writers -= 1
                if not self._writers:
                    self.came.notify_all()

    def seal(self) -> None:
        """Let nobody change the file any more, and wait for whoever is about it."""
        with self.came:
            self._sealed = True
            while self._writers:
                self.came.wait()

    def begin(self) -> None:
        """Open what is there already, and see which pieces are missing."""
        self._partial = PartialFile(self.path, self.file.size)
        try:
            self._find_pieces()
        except BaseException:
            self._partial.release()
            raise

    def _find_pieces(self) -> None:
        self._first_s = self._complete_s = time.monotonic()
        wanted = probe(self.file.path, self.file.size)
        if wanted is not None:
            begin = wanted[0] // BLOCK_BYTES * BLOCK_BYTES
            if self.partial.frontier(begin) < wanted[1]:
                self.pieces.append(Piece(begin, wanted[1]))
                return
        self._plan()

    def fetched(self) -> None:
        """A piece is there, and was the last of `pieces`; there may be more now."""
        if not self._planned:
            self._plan()

    def record(self, begin: int, end: int) -> int:
        """Bytes [begin, end) are there; returns the end of what is on record."""
        marked = self.partial.mark(begin, end)
        self._complete_s = time.monotonic()
        return marked

    def verify(self, wake: Callable[[], None]) -> Arrived:
        """Hash the bytes as they come, and compare; `wake` is told of pieces to be fetched again.

        StoppedError if `stopped`, ChecksumError if the bytes are wrong even after they were fetched
        afresh, WriteError.
        """
        while True:
            sha256, right = self._hash()
            if right:
                break
            with self.writing():
                self._begin_again()
            with self.came:
                self._resumed_bytes = 0 if self._fresh else self._resumed_bytes
                self._cut()
            wake()
        if not self.partial.in_place():
            raise WriteError(
                errno.ENOENT, f"{self.path} was removed or replaced while it was fetched"
            )
        now_s = time.monotonic()
        return Arrived(
            sha256,
            download_s=self._complete_s - self._first_s,
            verify_s=now_s - self._complete_s,
            received_bytes=self.received_bytes,
            resumed_bytes=self._resumed_bytes,
            made_bytes=sum(end - begin for begin, end in self._made),
        )

    def _begin_again(self) -> None:
        """After a wrong hash: without what was made here; or afresh, but only once."""
        if self._made:  # a guess was wrong: that says nothing of what came
            for begin, end in self._made:
                self.partial.mark(begin, end, there=False)
            self._made = []
        elif self._fresh:
            self._put_aside()
            raise ChecksumError(
                f"{self.reader.repo}: {self.file.path} of commit {self.reader.commit} does not "
                f"have the hash {self.file.sha256 or self.file.git_oid} that the Hub lists, "
                f"even after a fresh download; {self._where_wrong()}"
            )
        else:
            self._put_aside()
            old, self._partial = self.partial, PartialFile(self.path, self.file.size)
            old.release()
            self._fresh = True

    def _plan(self) -> None:
        """Make what can be made; the rest becomes pieces."""
        partial, wanted = self.partial, probe(self.file.path, self.file.size)
        if wanted is not None:
            probed = bytearray(wanted[1] - wanted[0])
            partial.read_into(memoryview(probed), wanted[0])
            for mask in find_masks(self.file.path, self.file.size, bytes(probed)):
                begin = -(-mask.offset // BLOCK_BYTES) * BLOCK_BYTES
                end = mask.end // BLOCK_BYTES * BLOCK_BYTES
                for offset, part in mask.parts():  # blocks that are only half of it are fetched
                    low, high = max(offset, begin), min(offset + len(part), end)
                    if low < high:
                        partial.write(low, memoryview(part)[low - offset : high - offset])
                if begin < end:
                    partial.mark(begin, end)
                    self._made.append((begin, end))
        with self.came:
            self._planned = True
            made = sum(end - begin for begin, end in self._made)
            self._resumed_bytes = max(0, partial.present_bytes - made - self.received_bytes)
            self._cut()
            self.came.notify_all()

    def _cut(self) -> None:
        low, high = PIECE_BYTES
        most = min(high, max(low, self.file.size // PIECES // BLOCK_BYTES * BLOCK_BYTES))
        for begin, end in self.partial.missing():
            self.pieces.extend(Piece(at, min(at + most, end)) for at in range(begin, end, most))

    def _hash(self) -> tuple[str, bool]:
        """The sha256 of the whole file, once it is there, and whether the file is right."""
        partial, size = self.partial, self.file.size
        sha256 = hashlib.sha256()
        git = hashlib.sha1(b"blob %d\0" % size) if self.file.sha256 is None else None
        buffer = memoryview(bytearray(min(_HASHED_BYTES, size)))
        at = 0
        while at < size:
            end = self._wait_beyond(at)
            while at < end:
                view = buffer[: min(len(buffer), end - at)]
                partial.read_into(view, at)
                sha256.update(view)
                if git is not None:
                    git.update(view)
                at += len(view)
                if self.stopped:
                    raise StoppedError
        found = sha256.hexdigest()
        if git is not None:
            return found, git.hexdigest() == self.file.git_oid
        return found, found == self.file.sha256

    def _wait_beyond(self, at: int) -> int:
        with self.came:
            while not self._planned or (end := self.partial.frontier(at)) <= at:
                if self.stopped:
                    raise StoppedError
                self.came.wait()
        return end

    def _put_aside(self) -> None:
        if not self.partial.in_place():
            return
        wrong = quarantine_of(self.path)
        try:
            record_of(self.path).unlink(missing_ok=True)
            self.path.replace(wrong)
            if not self._keeps_wrong():  # what is fetched instead needs the room
                wrong.unlink(missing_ok=True)
        except ReadError:
            raise
        except OSError as error:
            raise write_error(self.path, error) from error

    def _where_wrong(self) -> str:
        wrong = quarantine_of(self.path)
        kept = wrong.exists()
        return f"the wrong bytes are in {wrong}" if kept else "there was no room to keep them"


def rest_of(piece: Piece, begin: int, *, senseless: bool) -> Piece:
    """What is left of a piece after an attempt."""
    return replace(piece, begin=begin, senseless=piece.senseless + senseless)
