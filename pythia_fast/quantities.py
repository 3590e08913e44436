"""Numbers of bytes, of seconds and of things, as users write and read them."""

import math
import operator
import re
from fractions import Fraction
from itertools import pairwise

from pythia_fast.errors import ArgumentError

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGTP])(I?))?B?\s*", re.ASCII | re.IGNORECASE)
_BITS_PER_S = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*([KMGTPkmgtp][Ii]?)?(?:b|\s*[Bb]its?)(?:ps|\s*/\s*s)?\s*", re.ASCII
)
_FLOP_PER_S = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*([KMGTP])?\s*(?:FLOPS?(?:\s*/\s*s)?)?\s*", re.ASCII | re.IGNORECASE
)


def parse_bytes(size: int | str, *, least_bytes: int = 1) -> int:
    """A size as users write it, in bytes: a number, or a text such as "500GB", "1.5 TiB" or "80M".

    KB, MB, GB, TB and PB are powers of 1000, with an i (GiB) of 1024; the B may be left out.
    ArgumentError if it is nothing of that, or less than `least_bytes`, 0 or 1.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        nbytes = size
    elif isinstance(size, str) and (match := _SIZE.fullmatch(size)):
        number, prefix, binary = match.groups()
        power = " KMGTP".index(prefix.upper()) if prefix else 0
        nbytes = int(Fraction(number) * (1024 if binary else 1000) ** power)
    else:
        raise ArgumentError(f"{size!r} is no size in bytes: a number, or such as '500GB' or '2TiB'")
    if nbytes < least_bytes:
        raise ArgumentError(f"{size!r} is less than a byte: give a size such as '500GB' or '2TiB'")
    return nbytes


def parse_bytes_per_s(rate: float | str) -> float:
    """Bytes a second as users write them: a number, or a text such as "1GB/s" or "1GB"; whole: int.

    ArgumentError if it is nothing of that, not more than 0, or may be meant in bits: networks are
    sold in "10 Gb/s", which is 1.25 GB/s.
    """
    if not isinstance(rate, str):
        value = _positive(rate, "rate in bytes a second", "'1GB/s'")
        return int(value) if value.is_integer() else value
    if (match := _BITS_PER_S.fullmatch(rate)) is not None:
        number, prefix = float(match[1]), match[2] or ""
        raise ArgumentError(
            f"{rate!r} may be meant in bits, which rates are not given in here: write "
            f"'{number / 8:g}{prefix}B/s' if it is, or '{number:g}{prefix}B/s' for bytes"
        )
    try:
        return parse_bytes(re.sub(r"\s*/\s*s\s*$", "", rate))
    except ArgumentError as error:
        raise ArgumentError(
            f"{rate!r} is no rate in bytes a second above 0: give a number, or such as '1GB/s'"
        ) from error


def parse_flop_per_s(rate: float | str) -> float:
    """Operations a second as users write them: a number, or a text such as "400TFLOP/s".

    "400 TFLOPS" and "400T" are the same. ArgumentError if it is nothing of that, or not more
    than 0.
    """
    if not isinstance(rate, str):
        return _positive(rate, "rate in operations a second", "'400TFLOP/s'")
    match = _FLOP_PER_S.fullmatch(rate)
    if match is None:
        raise ArgumentError(f"{rate!r} is no rate of operations: give such as '400TFLOP/s'")
    number, prefix = match.groups()
    value = float(number) * 1000.0 ** (" KMGTP".index(prefix.upper()) if prefix else 0)
    return _positive(value, "rate in operations a second", "'400TFLOP/s'")


def _positive(value: object, what: str, example: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ArgumentError(f"{value!r} is no {what}: give a number above 0, or such as {example}")
    return float(value)


def integer(value: int, name: str) -> int:
    """`value` as an int. ArgumentError, with its name, if it is none."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} must be an int, got {value!r}") from None


def counted(count: float, what: str) -> str:
    """So many of something: "1 step", "1,234 steps", "0.5 CPUs"."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {what}{'' if count == 1 else 's'}"


def sized(nbytes: float) -> str:
    """In decimal units, with three digits: "166 MB", "3.74 TB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def duration(elapsed_s: float) -> str:
    """Seconds as people say them: "4 min 10 s", "2 d 3 h"."""
    whole = round(elapsed_s)
    if whole < 1:
        return f"{elapsed_s:.2f} s"
    names = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    for (unit, name), (smaller, smaller_name) in pairwise(names):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {smaller_name}"
    return f"{whole} s"
