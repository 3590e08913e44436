"""Paths as users write them, and where this package keeps what it may lose.

That is: runs without a folder of their own, and token rows.
"""

import os
from pathlib import Path

from pythia_fast.errors import ArgumentError


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, or else `pythia_fast` in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    if cache_dir is not None:
        return expanded(cache_dir).absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (expanded(home).absolute() if home else Path.home() / ".cache") / "pythia_fast"


def expanded(path: str | os.PathLike[str]) -> Path:
    """`path` with `~` and `~user` replaced. ArgumentError if it is no path, or no such user's."""
    try:
        return Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(f"{str(path)!r} is no path: {error}") from error
