"""Where a theme's checkpoints lie, and how they go if the theme is stopped in the middle."""

import os
import shutil
import tempfile
from pathlib import Path

IN_MEMORY = Path("/dev/shm")


def folder_for(needed_bytes: int) -> Path:
    """A new folder: in memory where there is room, so that no disk is measured.

    Else where temporary files are, from where the page cache has them.
    """
    roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > 1.1 * needed_bytes
    place = IN_MEMORY if roomy else None
    return Path(tempfile.mkdtemp(prefix=_prefix(os.getpid()), dir=place))


def remove_series_of(pid: int) -> None:
    """Remove what a process that is gone has left."""
    for place in (IN_MEMORY, Path(tempfile.gettempdir())):
        for folder in place.glob(f"{_prefix(pid)}*"):
            shutil.rmtree(folder, ignore_errors=True)


def _prefix(pid: int) -> str:
    return f"pythia-fast-gpu-{pid}-"
