"""Files of the Hub, several at once, into files that a later process can go on with.

Memory: `body.BUFFER_BYTES` for each connection, and a quarter of that for each file on its way, of
which there are no more than connections. Threads are daemons: none keeps the process alive.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from pathlib import Path

from huggingface_hub.errors import (
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pythia_fast.errors import ArgumentError, HubError, OfflineError, PythiaFastError
from pythia_fast.hub.arrival import Arrival, Arrived, Piece, rest_of
from pythia_fast.hub.asking import asked_wait_s, in_our_words, may_pass
from pythia_fast.hub.body import StoppedError
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.ranges import RangeReader

CONNECTIONS = 16
PATIENCE_S = 1800.0
"""A file of which nothing has come for so long that would not come again is given up."""
PATIENCES, SLOWEST_FILE_BYTES_PER_S = 10, 2**15
"""In all a file has so many times the patience, and what its size takes at this rate."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
"""Between attempts that fail, where the server does not say how long; doubled each time."""
SENSELESS_ATTEMPTS = 8
"""So often a range is asked for, in about a minute, if answers make no sense or are refusals."""
_CLOSE_S = 1.0

_GONE = (RemoteEntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError)
_log = logging.getLogger("pythia_fast")


class Downloader:
    """Fetches files in the order in which they are submitted, over several connections.

    A file whose requests fail is asked for with one request at a time until something comes, so
    that it does not hold up the others. A server that asks to be left alone is, by all of them.
    Until anything has come of any file, `first_patience_s` takes the place of `patience_s`.
    """

    def __init__(
        self,
        *,
        connections: int = CONNECTIONS,
        patience_s: float = PATIENCE_S,
        first_patience_s: float | None = None,
    ) -> None:
        if connections < 1:
            raise ArgumentError(f"{connections} connections: one is the least")
        self._connections, self._later_patience_s = connections, patience_s
        self._first_patience_s = patience_s if first_patience_s is None else first_patience_s
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._queue: list[Arrival] = []
        self._paused_until_s: dict[str, float] = {}
        self._threads: list[threading.Thread] = []
        self._received_bytes = 0
        self._closed = False

    def __enter__(self) -> "Downloader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def received_bytes(self) -> int:
        """What has come over the network so far, of all files."""
        return self._received_bytes

    @property
    def _patience_s(self) -> float:
        return self._later_patience_s if self._received_bytes else self._first_patience_s

    def submit(
        self,
        reader: RangeReader,
        file: HubFile,
        partial: Path,
        *,
        keeps_wrong: Callable[[], bool] = lambda: True,
    ) -> Future[Arrived]:
        """Let `partial`, in a folder that is there, become the file, verified; resumed if begun.

        What has come is recorded beside it (`record_of`), and a later process goes on from there,
        also where all has come; the record is removed by who gives the file its place.
        Bytes that are not what the Hub lists are put aside (`quarantine_of`), and stay there if
        `keeps_wrong` has room for them; they are fetched afresh once. The future's errors:
        ChecksumError if that is wrong too, the reader's `missing` if the file is gone, HubError if
        nothing has come for `patience_s`, or not all of it in PATIENCES such and what its size
        takes at SLOWEST_FILE_BYTES_PER_S, or if what comes makes no sense; OfflineError, WriteError
        (ENOSPC where the disk is full); after `close`, CancelledError. To cancel the future stops
        the file; what has come of it stays.
        """
        if file.sha256 is None and file.git_oid is None:
            raise ArgumentError(f"{reader.repo}: no hash is listed for {file.path}: not verifiable")
        arrival = Arrival(reader, file, partial, self._lock, keeps_wrong)
        with self._lock:
            if self._closed:
                raise ArgumentError(f"{file.path} cannot be fetched: the downloader is closed")
            self._queue.append(arrival)
            while len(self._threads) < self._connections:
                self._start(self._serve, f"pythia-fast-download-{len(self._threads)}")
            self._work.notify()
        arrival.future.add_done_callback(lambda _: self._leave(arrival))
        return arrival.future

    def close(self) -> None:
        """Stop everything, within about a second; what has come stays, and can be gone on with."""
        with self._lock:
            self._closed = True
            unfinished = list(self._queue)
            threads = list(self._threads)
            self._work.notify_all()
        for arrival in unfinished:
            arrival.future.cancel()
        until_s = time.monotonic() + _CLOSE_S
        for thread in threads:  # one that waits for a server's first word is left to itself
            if thread is not threading.current_thread():
                thread.join(max(0.0, until_s - time.monotonic()))

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (task := self._next()) is not None:
            arrival, piece = task
            try:
                if piece is None:
                    self._begin(arrival)
                else:
                    self._fetch(arrival, piece)
            except StoppedError:
                pass
            except Exception as error:  # whatever it is, it is the file's, and never lost
                self._fail(arrival, error)
            finally:
                with self._lock:
                    arrival.flying -= 1
                    self._work.notify_all()

    def _next(self) -> tuple[Arrival, Piece | None] | None:
        """The first thing to do that may be done now; waits for one. None when closed."""
        with self._lock:
            while not self._closed:
                now_s, soonest_s = time.monotonic(), float("inf")
                full = sum(arrival.begun for arrival in self._queue) >= self._connections
                for arrival in self._queue:
                    if not arrival.begun and full:
                        break
                    if arrival.begun and (
                        not arrival.pieces or (arrival.failures and arrival.flying)
                    ):
                        continue
                    paused_s = self._paused_until_s.get(arrival.reader.endpoint, 0.0)
                    ready_s = max(arrival.not_before_s, paused_s)
                    if ready_s > now_s:
                        soonest_s = min(soonest_s, ready_s)
                        continue
                    arrival.flying += 1
                    if arrival.begun:
                        return arrival, arrival.pieces.popleft()
                    arrival.begun = True
                    return arrival, None
                self._work.wait(None if soonest_s == float("inf") else soonest_s - now_s)
        return None

    def _begin(self, arrival: Arrival) -> None:
        with arrival.writing():
            arrival.begin()
        arrival.began_s = time.monotonic()
        threading.Thread(
            target=self._verify, args=(arrival,), name="pythia-fast-verify", daemon=True
        ).start()

    def _fetch(self, arrival: Arrival, piece: Piece) -> None:
        """One attempt at a piece; what does not come of it is put back."""
        partial = arrival.partial
        if not partial.hold():
            return
        began_s = time.monotonic()
        at = recorded = piece.begin

        def take(view: memoryview) -> None:
            nonlocal at, recorded
            if arrival.stopped:
                raise StoppedError
            with arrival.writing():
                partial.write(at, view)
            recorded = self._record(arrival, recorded, at + len(view), len(view))
            at += len(view)
            if self._is_late(arrival):
                raise TimeoutError("too slow in all")

        try:
            arrival.reader.stream(
                arrival.file, piece.begin, piece.end, take, stopped=lambda: arrival.stopped
            )
        except StoppedError:
            return
        except Exception as error:
            if at < piece.end:
                self._put_back(arrival, piece, recorded, error, began_s)
            else:  # all the same it is there
                arrival.fetched()
        else:
            with arrival.writing():
                arrival.fetched()
        finally:
            partial.release()

    def _record(self, arrival: Arrival, begin: int, end: int, nbytes: int) -> int:
        with self._lock:  # before it is recorded: with the last of it the file is complete
            self._received_bytes += nbytes
            arrival.received_bytes += nbytes
        recorded = arrival.record(begin, end)
        with self._lock:
            if recorded > begin:  # less than that comes again
                if arrival.failures:
                    arrival.failures = 0
                    self._work.notify_all()
                arrival.failing_since_s, arrival.not_before_s = None, 0.0
            arrival.came.notify_all()
        return recorded

    def _put_back(
        self, arrival: Arrival, piece: Piece, begin: int, error: Exception, began_s: float
    ) -> None:
        """After a failure: the rest of the piece waits for its next turn, or the file fails."""
        what = f"bytes {begin} to {piece.end - 1} of {arrival.file.path}"
        reader = arrival.reader
        ours = in_our_words(
            error, reader.repo, what, endpoint=reader.endpoint, missing=reader.missing
        )
        final = isinstance(error, _GONE) or isinstance(ours, OfflineError)
        final |= isinstance(error, PythiaFastError) and not isinstance(error, HubError)
        rest = rest_of(piece, begin, senseless=not may_pass(error))
        if final or rest.senseless >= SENSELESS_ATTEMPTS:
            if ours is error:
                raise ours
            raise ours from error
        with self._lock:
            waited_s = self._postpone(arrival, asked_wait_s(error), began_s)
            arrival.pieces.appendleft(rest)
        if waited_s >= self._patience_s:
            raise type(ours)(f"{ours}; no byte has come for {waited_s:.0f} s") from error
        if self._is_late(arrival):
            took_s = time.monotonic() - arrival.began_s
            raise type(ours)(f"{ours}; the file has not come in {took_s:.0f} s") from error
        _log.debug("%s: %s is asked for again: %s", reader.repo, what, error)

    def _is_late(self, arrival: Arrival) -> bool:
        """Whether a file has taken longer than any may, whatever comes of it."""
        longest_s = PATIENCES * self._patience_s + arrival.file.size / SLOWEST_FILE_BYTES_PER_S
        return time.monotonic() - arrival.began_s > longest_s

    def _postpone(self, arrival: Arrival, asked_s: float | None, began_s: float) -> float:
        """When the file has its next turn; returns how long it will then have had nothing."""
        now_s = time.monotonic()
        if arrival.failing_since_s is None:
            arrival.failing_since_s = began_s
        if asked_s is not None:
            endpoint = arrival.reader.endpoint
            until_s = now_s + asked_s * random.uniform(1, 1.05) + random.uniform(0, FIRST_WAIT_S)
            until_s = max(until_s, self._paused_until_s.get(endpoint, 0.0))
            waited_s = until_s - arrival.failing_since_s
            if waited_s < self._patience_s:
                self._paused_until_s[endpoint] = until_s
            return waited_s
        if now_s >= arrival.not_before_s:  # several connections may have broken at once
            longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(arrival.failures, 10))
            arrival.failures += 1
            arrival.not_before_s = now_s + longest_s * random.uniform(0.5, 1)
        return now_s - arrival.failing_since_s

    def _verify(self, arrival: Arrival) -> None:
        try:
            arrived = arrival.verify(self._wake)
        except StoppedError:
            pass
        except Exception as error:
            self._fail(arrival, error)
        else:
            arrival.seal()
            with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
                arrival.future.set_result(arrived)
        finally:
            arrival.partial.release()

    def _wake(self) -> None:
        with self._lock:
            self._work.notify_all()

    def _fail(self, arrival: Arrival, error: Exception) -> None:
        arrival.seal()
        with contextlib.suppress(InvalidStateError):  # another piece was faster
            arrival.future.set_exception(error)

    def _leave(self, arrival: Arrival) -> None:
        """The file has come, failed or been cancelled: whoever works at it has stopped, or does."""
        arrival.seal()
        if arrival.future.cancelled():
            arrival.future.set_running_or_notify_cancel()
        with self._lock:
            with contextlib.suppress(ValueError):
                self._queue.remove(arrival)
            arrival.came.notify_all()
            self._work.notify_all()
