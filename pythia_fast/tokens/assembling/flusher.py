"""Bringing to the disk what was written, while writing goes on."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

FLUSH_BYTES = 1 << 28


class Flusher:
    """Flushes in a thread of its own, and then calls `keep` with how many bytes the disk has.

    `kept_bytes` is what it was last called with; it begins with what is there already.
    """

    def __init__(self, keep: Callable[[int], None], kept_bytes: int) -> None:
        self.kept_bytes = kept_bytes
        self._keep = keep
        self._pool = ThreadPoolExecutor(1, "flush")
        self._pending: Future[None] | None = None
        self._written_bytes = 0  # since the last flush was begun
        self._noted: tuple[int, int] | None = None
        self._failed = False

    def __enter__(self) -> "Flusher":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._forget()
        with self._pool:  # nothing is in work any more when this is left
            if kind is None:
                self.wait()

    def note(self, file: int, done: int, written_bytes: int) -> None:
        """So much is done, and wrote so much more. It goes to the disk when that is enough."""
        self._forget()
        self._noted = os.dup(file), done  # which may be closed before it is flushed
        self._written_bytes += written_bytes
        if self._written_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Bring to the disk what was noted, and then keep that it is there.

        Nothing after a failure: the system tells it once, and later flushes succeed all the same.
        """
        self.wait()
        if self._failed:
            return
        noted, self._noted = self._noted, None
        if noted is not None:
            self._written_bytes = 0
            self._pending = self._pool.submit(self._run, *noted)

    def wait(self) -> None:
        """Until what was begun is kept; raises what went wrong in it."""
        if self._pending is None:
            return
        try:
            self._pending.result()
        except Exception:  # not an interrupt while waiting, which says nothing about the flush
            self._failed, self._pending = True, None
            raise
        self._pending = None

    def _forget(self) -> None:
        if self._noted is not None:
            os.close(self._noted[0])
            self._noted = None

    def _run(self, file: int, done: int) -> None:
        try:
            os.fsync(file)
        finally:
            os.close(file)
        self._keep(done)
        self.kept_bytes = done
