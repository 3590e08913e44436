"""Large files made of parts of others: whole or not there at all, and resumable.

    <record>                    what is made of what, how many bytes of it the disk surely has,
                                and the token
    .<name>.<token>.partial     a file in the making, from the start of its full size

A file gets its name when all of them are whole; the record goes last. After a kill or a power
failure only what the record says is trusted. Nothing relies on locks: of two processes that make
the same, the later goes on with the other's record, writes the same bytes to the same places, and
may find the names taken; of two that make something else, each has its own files.
"""

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_fast.errors import ReadError, WorkInterruptedError, WriteError
from pythia_fast.publish import (
    link,
    published,
    remove_partials,
    sync_folder,
    write_error,
)
from pythia_fast.tokens.assembling.copying import copy_range
from pythia_fast.tokens.assembling.flusher import Flusher
from pythia_fast.tokens.assembling.parts import Target, in_chunks, left_of, plan_of, shareable_bytes

Progress = Callable[[int, int], None]
"""Called with the bytes that are done, and with all."""

CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Assembled:
    """What was done: bytes in all, found from an earlier attempt, and with shared blocks."""

    total_bytes: int
    resumed_bytes: int
    shared_bytes: int


def assemble(
    targets: Sequence[Target],
    record: Path,
    *,
    resume: bool = True,
    progress: Progress | None = None,
) -> Assembled:
    """Make all `targets`, which lie in the folder of `record`, or go on where it was stopped.

    `resume=False` discards what an earlier attempt has left. WriteError if one of the names is
    taken, if what was left is of another attempt, if the disk has no room (before anything is
    written, if it can be known) or where the system refuses; ReadError if a source cannot be read
    or changes meanwhile; WorkInterruptedError for Ctrl-C. What was done is kept in each case.
    """
    work = _Assembly(tuple(targets), record)
    try:
        if not resume:
            work.discard()
        return work.run(progress or (lambda _, __: None))
    except (ReadError, WriteError):
        raise
    except OSError as error:
        raise write_error(targets[0].path, error) from error


class _Assembly:
    def __init__(self, targets: tuple[Target, ...], record: Path) -> None:
        self._targets = targets
        self._record = record
        self._total = sum(target.nbytes for target in targets)
        self._plan = plan_of(targets)
        self._token = ""
        self._current = targets[0]

    def run(self, progress: Progress) -> Assembled:
        done = self._recorded()
        if done is None:
            self._check_names()
            self._check_space(0)
            self._begin()
            done = self._recorded() or 0  # the record may be another's, who was first
        done = self._surely_done(done)
        if done < self._total:
            self._check_names()
            self._check_space(done)
        for target in self._targets:
            if not self._is_published(target, done):
                _make_room(self._partial(target), target.nbytes)
        shared = self._copy(done, progress)
        self._check_sources()
        self._check_sizes()
        for target in self._targets:
            self._publish(target)
        sync_folder(self._record.parent)
        self._forget_record()
        return Assembled(self._total, done, shared)

    def discard(self) -> None:
        """Remove what earlier attempts have left."""
        self._forget_record()
        for target in self._targets:
            remove_partials(target.path)

    def _partial(self, target: Target) -> Path:
        return target.path.with_name(f".{target.path.name}.{self._token}.partial")

    def _recorded(self) -> int | None:
        """What the record says is done; None if there is none. WriteError if it is another's."""
        try:
            record = json.loads(self._record.read_bytes())
            plan, done, token = record["plan"], record["done_bytes"], record["token"]
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            plan, done, token, reason = None, 0, "", f"it is damaged: {error!r}"
        else:
            reason = "its sources have other names, sizes or times of change, or its parts differ"
        fits = isinstance(done, int) and 0 <= done <= self._total and _is_token(token)
        if plan != self._plan or not fits:
            raise WriteError(
                errno.EEXIST,
                f"{self._record} is of another attempt that was not finished ({reason}). Remove "
                "it, or start anew without resuming",
            )
        self._token = token
        return int(done)

    def _begin(self) -> None:
        """Make the first record, unless another process has just made one."""
        self._token = secrets.token_hex(8)
        first = self._record.with_name(f".{self._record.name}.{self._token}.partial")
        try:
            with first.open("xb") as file:
                file.write(self._recording(0))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                link(first, self._record)
        finally:
            first.unlink(missing_ok=True)

    def _keep(self, done: int) -> None:
        """Write the record anew: the disk has the first `done` bytes.

        If its name is lost in a power failure, an older record is there, or none: both are true.
        """
        with published(self._record) as file:
            file.write(self._recording(done))

    def _recording(self, done: int) -> bytes:
        record = {"plan": self._plan, "done_bytes": done, "token": self._token}
        return json.dumps(record).encode() + b"\n"

    def _forget_record(self) -> None:
        """The record goes, and before it what a kill has left of new ones."""
        remove_partials(self._record)
        self._record.unlink(missing_ok=True)

    def _surely_done(self, recorded: int) -> int:
        """`recorded`, or up to the first file that is no more what it then was."""
        begin = 0
        for target in self._targets:
            if begin >= recorded:
                break
            published = self._is_published(target, recorded)
            try:
                there = (target.path if published else self._partial(target)).lstat()
            except FileNotFoundError:
                return begin
            if not stat.S_ISREG(there.st_mode) or there.st_size != target.nbytes:
                return begin
            begin += target.nbytes
        return recorded

    def _check_names(self) -> None:
        for target in self._targets:
            if os.path.lexists(target.path):
                raise _taken(target.path)

    def _check_space(self, done: int) -> None:
        folder = self._record.parent
        system = os.statvfs(folder)
        free_bytes = system.f_bavail * system.f_frsize
        needed_bytes = self._total - done
        if free_bytes < needed_bytes:  # only then is it worth knowing
            needed_bytes -= shareable_bytes(folder, self._targets, done)
        if free_bytes < needed_bytes:
            raise WriteError(
                errno.ENOSPC,
                f"{folder} has {free_bytes / 1e9:.1f} GB free, but {needed_bytes / 1e9:.1f} GB "
                "are to be written: free some room or give another place",
            )

    def _copy(self, done: int, progress: Progress) -> int:
        """Everything from the byte `done` on; returns how many share their blocks."""
        shared = 0
        with Flusher(self._keep, done) as flusher, self._told(flusher):
            progress(done, self._total)
            for target, part, begin in left_of(self._targets, done):
                if target is not self._current:
                    flusher.flush()
                self._current = target
                with _opened(self._partial(target)) as file, _source(part.path) as source:
                    for chunk, offset in in_chunks(part, begin, CHUNK_BYTES):
                        shares = copy_range(source, chunk.offset, file, offset, chunk.nbytes)
                        shared += shares
                        done += chunk.nbytes
                        flusher.note(file, done, chunk.nbytes - shares)
                        progress(done, self._total)
            flusher.flush()
            flusher.wait()
        return shared

    @contextlib.contextmanager
    def _told(self, flusher: Flusher) -> Iterator[None]:
        """What was done before an error is kept, and the error says so."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(OSError):
                flusher.flush()
                flusher.wait()
            kept = f"{flusher.kept_bytes:,} of {self._total:,} bytes are kept"
            if isinstance(error, KeyboardInterrupt):
                raise WorkInterruptedError(
                    f"interrupted; {kept}, and the same command goes on from there"
                ) from error
            if isinstance(error, OSError) and not isinstance(error, ReadError):
                raise WriteError(
                    error.errno,
                    f"cannot write {self._current.path}: {error.strerror}; {kept}: once that is "
                    "mended, the same command goes on from there",
                ) from error
            raise

    def _check_sources(self) -> None:
        if plan_of(self._targets) != self._plan:
            raise ReadError(
                errno.ESTALE,
                f"what {self._targets[0].path} is made of has changed meanwhile; start anew "
                "without resuming",
            )

    def _check_sizes(self) -> None:
        for target in self._targets:
            published = self._is_published(target, self._total)
            path = target.path if published else self._partial(target)
            nbytes = path.lstat().st_size
            if nbytes != target.nbytes:
                raise WriteError(
                    errno.EIO,
                    f"{path} has {nbytes} bytes, not {target.nbytes}: something else writes to "
                    "it. Start anew without resuming",
                )

    def _is_published(self, target: Target, done: int) -> bool:
        """Whether it has its name already, where it can only have it once all is done."""
        if done < self._total or os.path.lexists(self._partial(target)):
            return False
        return os.path.lexists(target.path)

    def _publish(self, target: Target) -> None:
        """Give a whole file its name, which none may have but a link of its own."""
        if self._is_published(target, self._total):
            return
        partial = self._partial(target)
        try:
            link(partial, target.path)
        except FileExistsError:
            if not os.path.samestat(partial.lstat(), target.path.lstat()):
                raise _taken(target.path) from None
        partial.unlink(missing_ok=True)


def _is_token(token: Any) -> bool:
    return isinstance(token, str) and len(token) == 16 and token.isalnum()


def _make_room(path: Path, nbytes: int) -> None:
    """A file in its full size, of zeros where nothing is written yet; no link is followed."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        os.ftruncate(file, nbytes)
    finally:
        os.close(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _source(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ReadError(error.errno, f"cannot read {path}: {error.strerror}") from error
    try:
        yield file
    finally:
        os.close(file)


def _taken(path: Path) -> WriteError:
    return WriteError(errno.EEXIST, f"{path} is there already; remove it, or give another place")
