"""Where this package keeps what it may lose: runs without a folder of their own, and token rows."""

import os
from pathlib import Path


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, or else `pythia_fast` in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "pythia_fast"
