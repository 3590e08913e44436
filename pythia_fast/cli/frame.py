"""What all commands have in common: exit codes, errors in one line, --json and --debug."""

import errno
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from pythia_fast.errors import ConversionError, Failure, PythiaFastError, SweepError

BAD_INPUT = 3
INCOMPLETE = 4
INTERRUPTED = 130

_STREAM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
_DEBUG = "pythia_fast.debug"
F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose help ends with examples, one line each, as they are typed."""

    def __init__(self, *args: Any, examples: tuple[str, ...], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, not wrapped."""
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(Command, click.Group):
    """Turns errors into one line on standard error and the exit code that belongs to them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse them, which may print: --help and --version."""
        with _told(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _told(ctx):
            result = super().invoke(ctx)
            if sys.stdout is not None:  # as it is where the shell has closed it
                sys.stdout.flush()
            return result


def common(command: F) -> F:
    """Add --json, which the command gets as `as_json`, and --debug, which it need not know."""
    as_json = click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print JSON on standard output, and everything else on standard error.",
    )
    debug = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        help="Show where in the program an error arose.",
    )
    return as_json(debug(command))


def print_json(value: Any) -> None:
    """One JSON document on standard output; numbers that JSON lacks (NaN, infinity) become null."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def failure_rows(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """Failed steps as --json tells them."""
    return [{"step": each.step, "error": each.error, "message": each.message} for each in failures]


def tell_failures(failures: Sequence[Failure], whose: str = "") -> None:
    """A line for each on standard error, `whose` at its beginning."""
    for each in failures:
        click.echo(f"{whose}step {each.step} failed: {each.error}: {each.message}", err=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _told(ctx: click.Context) -> Iterator[None]:
    """Errors become a line. BrokenPipeError means that the reader has seen enough: no error."""
    try:
        yield
    except BrokenPipeError:
        _drop_stdout()
        ctx.exit(0)
    except (PythiaFastError, KeyboardInterrupt, OSError) as error:
        if ctx.meta.get(_DEBUG):
            traceback.print_exception(error)
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            _drop_stdout()
        click.echo(f"pythia-fast: {_one_line(error)}", err=True)
        ctx.exit(_exit_code(error))


def _drop_stdout() -> None:
    """Have nothing left for the flush at exit, which would fail again."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_DEBUG] = value


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return INCOMPLETE if isinstance(error, (SweepError, ConversionError)) else BAD_INPUT


def _one_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, PythiaFastError):
        return "interrupted"
    if (
        isinstance(error, OSError)
        and not isinstance(error, PythiaFastError)
        and error.filename is None  # it was print's
        and error.errno in _STREAM_ERRORS
    ):
        return f"standard output cannot be written: {error.strerror}"
    return " ".join(re.sub(r"^\[Errno \d+\] ", "", str(error)).split())
