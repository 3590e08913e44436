"""Options that say A:B."""

import re

import click

DIGITS = 12  # beyond any row or step, and times any batch still an int64

Span = int | tuple[int | None, int | None]


def span(_: click.Context, __: click.Parameter, value: str | None) -> Span | None:
    """What an option says: a number, or the two sides of "a:b", either of which may be left out."""
    if value is None:
        return None
    if any(len(digits.lstrip("0")) > DIGITS for digits in re.findall(r"\d+", value, re.ASCII)):
        raise click.BadParameter(f"{value[:40]!r} is too large: no data has so many rows.")
    if re.fullmatch(r"\d+", value, re.ASCII):
        return int(value)
    match = re.fullmatch(r"(\d*):(\d*)", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is neither a number nor a:b.")
    first, end = (int(part) if part else None for part in match.groups())
    return first, end


def as_slice(rows: Span | None) -> slice:
    """The rows that `span` stands for; all without."""
    if rows is None:
        return slice(None)
    return slice(rows, rows + 1) if isinstance(rows, int) else slice(*rows)
