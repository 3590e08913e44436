"""How far long work is, on standard error: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

LINE_EVERY_S = 30.0


class Progress:
    """Called with what is done, and with all of it where that is known.

    What is done at the first call says nothing of the speed: an earlier attempt may have done it.
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._bar: Any = None
        self._started = self._last_line = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int | None = None) -> None:
        """So much is done."""
        if self._first is None:
            self._first = done
            if sys.stderr.isatty():
                from tqdm import tqdm

                self._bar = tqdm(
                    total=total,
                    initial=done,
                    desc=self._what,
                    unit=self._unit,
                    unit_scale=True,
                    dynamic_ncols=True,
                    leave=False,
                )
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            rate = (done - self._first) / (now - self._started)
            of = "" if total is None else f" of {total:,}"
            text = f"{self._what}: {done:,}{of} {self._unit}, {rate:,.0f} {self._unit}/s"
            click.echo(text, err=True)

    def close(self) -> None:
        """The bar goes; lines stay."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def shown(what: str, unit: str, *, quiet: bool) -> Iterator[Progress | None]:
    """Something to call while it lasts; None if nothing is to be shown."""
    if quiet or sys.stderr is None:  # as it is where the shell has closed it
        yield None
        return
    progress = Progress(what, unit)
    try:
        yield progress
    finally:
        progress.close()
