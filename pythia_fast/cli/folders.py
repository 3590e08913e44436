"""Run folders as commands take them."""

from collections.abc import Iterable
from pathlib import Path


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """The paths, but of a folder that holds run folders these, the smallest model's first.

    What is neither stays, for whoever opens it to say so.
    """
    from pythia_fast.cache import expanded
    from pythia_fast.runs.folder.parts import read_run, runs_in

    found: list[Path] = []
    for path in paths:
        is_run = read_run(expanded(path)) is not None
        found += [path] if is_run else runs_in(expanded(path)) or [path]
    return found
