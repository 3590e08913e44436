"""A bar on standard error while something else is read or written, if it is a terminal."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tqdm import tqdm


class Bar:
    """Counts, and prints lines on standard output without breaking the bar."""

    def __init__(self, shown: "tqdm[None] | None") -> None:
        self._shown = shown

    def advance(self, count: int) -> None:
        """So many more are done."""
        if self._shown is not None:
            self._shown.update(count)

    def print(self, line: str, *, err: bool = False) -> None:
        """A line on standard output, or error."""
        if self._shown is not None:
            with self._shown.external_write_mode():
                click.echo(line, err=err)
        else:
            click.echo(line, err=err)


@contextlib.contextmanager
def bar(total: int, unit: str, *, beside_output: bool = False) -> Iterator[Bar]:
    """A bar up to `total`, gone when it is done; none where it would stand amid the output."""
    amid = beside_output and (sys.stdout is None or sys.stdout.isatty())
    if amid or sys.stderr is None or not sys.stderr.isatty():
        yield Bar(None)
        return
    from tqdm import tqdm

    with tqdm(
        total=total, unit=f" {unit}", unit_scale=True, dynamic_ncols=True, leave=False
    ) as shown:
        yield Bar(shown)
