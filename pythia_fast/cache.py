"""Paths and sizes as users write them, and where this package keeps what it may lose.

That is: runs without a folder of their own, and token rows.
"""

import os
import re
from fractions import Fraction
from pathlib import Path

from pythia_fast.errors import ArgumentError

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGTP])(I?))?B?\s*", re.ASCII | re.IGNORECASE)


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, or else `pythia_fast` in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    if cache_dir is not None:
        return expanded(cache_dir)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "pythia_fast"


def expanded(path: str | os.PathLike[str]) -> Path:
    """`path` with `~` and `~user` replaced. ArgumentError if it is no path, or no such user's."""
    try:
        return Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(f"{str(path)!r} is no path: {error}") from error


def parse_bytes(size: int | str) -> int:
    """A size as users write it, in bytes: a number, or a text such as "500GB", "1.5 TiB" or "80M".

    KB, MB, GB, TB and PB are powers of 1000, with an i (GiB) of 1024; the B may be left out.
    ArgumentError if it is nothing of that, or less than one byte.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        nbytes = size
    elif isinstance(size, str) and (match := _SIZE.fullmatch(size)):
        number, prefix, binary = match.groups()
        power = " KMGTP".index(prefix.upper()) if prefix else 0
        nbytes = int(Fraction(number) * (1024 if binary else 1000) ** power)
    else:
        raise ArgumentError(f"{size!r} is no size in bytes: a number, or such as '500GB' or '2TiB'")
    if nbytes < 1:
        raise ArgumentError(f"{size!r} is less than a byte: give a size such as '500GB' or '2TiB'")
    return nbytes
