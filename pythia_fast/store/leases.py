"""Which files of a store the processes at work use and fetch, told without locks or file clocks.

A process writes what it uses into a file of its own, before it opens anything; whoever removes
files reads those of all others. A process of this machine that has ended is known by its number
and start; one of another machine has ended if its file, which it rewrites every HEARTBEAT_S, has
not changed for SILENT_S of our own clock.

This needs a file to be seen as soon as it is written. A client of NFS may see what another one has
written up to a minute later ("acdirmax"): a blob that is taken there in that time may be removed
here, and the next read of it fails with a ReadError. Machines that share a store over NFS should
mount it with "lookupcache=none,actimeo=0", or have a store each.
"""

import contextlib
import errno
import json
import os
import secrets
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pythia_fast.errors import ReadError, WriteError
from pythia_fast.identity import Identity
from pythia_fast.store.places import DIGEST, write_record

HEARTBEAT_S = 10.0
SILENT_S = 120.0


@dataclass(frozen=True, slots=True)
class Claims:
    """What one process has said: blobs in use, files that it fetches with their full sizes.

    `waiting_bytes` is what it cannot go on without, and has no room for.
    """

    holder: str
    identity: Identity
    using: frozenset[str] = frozenset()
    fetching: Mapping[str, int] = field(default_factory=dict)
    waiting_bytes: int = 0


class Lease:
    """What this process uses and fetches in one store. Threads may share it.

    Changes are on the disk when a method returns, except for what is given back by `drop_later`.
    A forked child begins with nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[bytes, float]] = {}  # of others: when it was first as it is
        self._begin()
        os.register_at_fork(after_in_child=partial(_forked, weakref.ref(self)))

    def _begin(self) -> None:
        self.lock = threading.RLock()
        self.identity = Identity.of_this_process()
        self.holder = f"{self.identity.pid}-{secrets.token_hex(6)}"
        self._using: Counter[str] = Counter()
        self._fetching: dict[str, int] = {}
        self._waiting: dict[object, int] = {}
        self._beats = 0
        self._beating = False
        self._dropped: deque[tuple[str, ...]] = deque()
        path = self._folder / f"{self.holder}.json"
        self._remove = weakref.finalize(self, _remove, path, os.getpid())

    @property
    def claims(self) -> Claims:
        """Our own."""
        with self.lock:
            self._take_back()
            return Claims(
                *(self.holder, self.identity, frozenset(self._using), dict(self._fetching)),
                waiting_bytes=sum(self._waiting.values()),
            )

    def use(self, *digests: str) -> None:
        """These blobs are in use once more than before. WriteError, and then they are not."""
        with self.lock:
            self._using.update(digests)
            try:
                self._write()
            except WriteError:
                self._using -= Counter(digests)
                raise

    def drop(self, *digests: str) -> None:
        """They are in use once less."""
        with self.lock:
            self._using -= Counter(digests)
            self._write_later()

    def drop_later(self, digests: tuple[str, ...], holder: str) -> None:
        """The same from wherever the interpreter collects garbage, where no lock may be taken."""
        if holder == self.holder:
            self._dropped.append(digests)

    def fetch(self, sizes: Mapping[str, int]) -> None:
        """Say that we fetch these files, of such sizes. WriteError, and then we do not."""
        with self.lock:
            before = dict(self._fetching)
            self._fetching.update(sizes)
            try:
                self._write()
            except WriteError:
                self._fetching = before
                raise

    def fetched(self, *digests: str) -> None:
        """They are no longer being fetched."""
        with self.lock:
            for digest in digests:
                self._fetching.pop(digest, None)
            self._write_later()

    def wait_for(self, nbytes: int, waiter: object) -> None:
        """Say that so many bytes are waited for by one of several waiters; 0 for none."""
        with self.lock:
            if nbytes != self._waiting.get(waiter, 0):
                self._waiting[waiter] = nbytes
                if not nbytes:
                    del self._waiting[waiter]
                self._write_later()

    def others(self) -> list[Claims]:
        """What all other processes that run have said last. The files of those that ended go.

        ReadError if one cannot be read: it is not known then what may be removed.
        """
        found = []
        names = set()
        for path in _files(self._folder):
            if path.stem == self.holder:
                continue
            raw = _content(path)
            if raw is None:
                continue
            names.add(path.name)
            claims = _parse(path.stem, raw)
            runs = claims.identity.runs() if claims is not None else None
            if runs is None:
                runs = self._moves(path.name, raw)
            if not runs:
                with contextlib.suppress(OSError):
                    path.unlink()
            elif claims is not None:
                found.append(claims)
        with self.lock:
            self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        return found

    def _moves(self, name: str, raw: bytes) -> bool:
        """Whether a file that we cannot judge otherwise has changed lately."""
        now = time.monotonic()
        with self.lock:
            seen, since = self._seen.get(name, (b"", 0.0))
            if seen != raw:
                self._seen[name] = raw, now
                return True
            return now - since < SILENT_S

    def _take_back(self) -> None:
        while self._dropped:
            self._using -= Counter(self._dropped.popleft())

    def _write_later(self) -> None:
        """Write it now, or at the next beat if the disk is full: more is kept than need be."""
        with contextlib.suppress(WriteError):
            self._write()

    def _write(self) -> None:
        self._take_back()
        path = self._folder / f"{self.holder}.json"
        if not self._using and not self._fetching and not self._waiting:
            with contextlib.suppress(OSError):
                path.unlink()
            return
        if not self._beating:
            self._beating = True
            threading.Thread(
                target=_beat,
                args=(weakref.ref(self), HEARTBEAT_S),
                name="pythia-fast-lease",
                daemon=True,
            ).start()
        self._beats += 1
        write_record(
            path,
            {
                "identity": self.identity.to_record(),
                "beats": self._beats,
                "using": sorted(self._using),
                "fetching": self._fetching,
                "waiting_bytes": sum(self._waiting.values()),
            },
        )

    def _beat(self) -> bool:
        """Show that we run; False once there is nothing to show it for."""
        with self.lock:
            self._write_later()
            if self._using or self._fetching or self._waiting:
                return True
            self._beating = False
            return False


def _beat(of: Callable[[], Lease | None], every_s: float) -> None:
    while True:
        time.sleep(every_s)
        lease = of()
        if lease is None or not lease._beat():
            return
        del lease


def _remove(path: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a child that was forked from the process that wrote it
        with contextlib.suppress(OSError):
            path.unlink()


def _forked(of: Callable[[], Lease | None]) -> None:
    lease = of()
    if lease is not None:
        lease._remove.detach()
        lease._begin()


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == ".json"]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unknown(folder, error) from error


def _content(path: Path) -> bytes | None:
    """What a lease says; None if it was given back meanwhile."""
    try:
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return path.read_bytes()  # written anew, or given back, by another machine
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unknown(path, error) from error


def _unknown(path: Path, error: OSError) -> ReadError:
    return ReadError(
        error.errno,
        f"cannot read {path}: {error.strerror}; what the processes at work use is not known, so "
        "nothing may be removed: try again, or see to it that this user may read it",
    )


def _parse(holder: str, raw: bytes) -> Claims | None:
    """What a lease says; None if it is none of ours."""
    try:
        record: Any = json.loads(raw)
        identity = Identity.from_record(record["identity"])
        using = frozenset(map(str, record["using"]))
        fetching = {str(digest): int(size) for digest, size in record["fetching"].items()}
        waiting_bytes = int(record["waiting_bytes"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if identity is None or not all(map(DIGEST.fullmatch, using | fetching.keys())):
        return None
    return Claims(holder, identity, using, fetching, waiting_bytes)
