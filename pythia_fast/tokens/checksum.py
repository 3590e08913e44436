"""The sha256 of token files: many at once, against a list or to make one."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.cache import expanded
from pythia_fast.core import File
from pythia_fast.digest import sha256
from pythia_fast.errors import (
    ArgumentError,
    MissingTokensError,
    PythiaFastError,
    ReadError,
)
from pythia_fast.tokens.files import find_files, find_shards, pair
from pythia_fast.tokens.threads import thread_count

Progress = Callable[[int, int], None]
"""Called with the bytes that are hashed, and with all."""

TOKEN_FILES = (".bin", ".idx")


@dataclass(frozen=True, slots=True)
class Checked:
    """Files beside a list. `digests` are of those that were hashed, by name, in the list's order.

    `extra` are token files (.bin, .idx) that the list does not name: told, but no fault.
    """

    digests: Mapping[str, str]
    wrong: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]  # by name, with the reason
    extra: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every file of the list is there and has its sha256."""
        return not (self.wrong or self.missing or self.unreadable)


def checksums(
    data: str | os.PathLike[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """The sha256 of the token files that `data` stands for, by name, sorted.

    `data` is a folder (its .bin and .idx), a file, or the prefix of a pair or of shards. So many
    files as there are `threads`, by default one for each processor, are read at once.
    MissingTokensError if there are none; ReadError if one cannot be read.
    """
    files = token_files(data)
    found, unreadable = _hash_all({path.name: path for path in files}, threads, progress)
    for error in unreadable.values():
        raise error
    return {path.name: found[path.name] for path in files}


def check(
    folder: str | os.PathLike[str],
    expected: Mapping[str, str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Hash the files of a folder that `expected` (name: sha256; see `read_checksums`) names.

    ArgumentError if there is no such folder. What is wrong with a file is in the result.
    """
    place = expanded(folder)
    if not place.is_dir():
        raise ArgumentError(f"{place} is no folder; give the one in which the files lie")
    there = {name: place / name for name in expected if (place / name).exists()}
    found, unreadable = _hash_all(there, threads, progress)
    digests = {name: found[name] for name in expected if name in found}
    return Checked(
        digests,
        tuple(name for name, digest in digests.items() if digest != expected[name].lower()),
        tuple(name for name in expected if name not in there),
        {name: str(error) for name, error in unreadable.items()},
        tuple(path.name for path in _listed(place) if path.name not in expected),
    )


def whole_checksum(
    data: str | os.PathLike[str], *, progress: Progress | None = None
) -> tuple[str, str]:
    """Name and sha256 of the .bin that `data` stands for, or that its shards would make.

    The errors of `find_files`; ReadError if one cannot be read.
    """
    whole = pair(data)[1]
    if whole.is_file():  # which needs no .idx
        paths: tuple[Path, ...] = (whole,)
    else:
        found = find_files(data)
        whole, paths = found.index.with_suffix(".bin"), found.bins
    files = [File(path) for path in paths]
    seen = _Seen(sum(file.size for file in files), progress)
    return whole.name, sha256(*files, seen=seen.add)


def token_files(data: str | os.PathLike[str]) -> list[Path]:
    """The .bin and .idx files that `data` stands for, sorted. MissingTokensError if none."""
    place = expanded(data)
    if place.is_dir():
        found = _listed(place)
    elif place.is_file():
        found = [place]
    else:
        found = sorted(each for each in pair(place) if each.is_file())
        if not any(each.suffix == ".bin" for each in found):
            found = sorted({*found, *find_shards(pair(place)[0].with_suffix(""))})
    if not found:
        raise MissingTokensError(f"{place} holds neither .bin nor .idx files")
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix in TOKEN_FILES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise ReadError.of(folder, error, "list") from error


def _hash_all(
    paths: Mapping[str, Path], threads: int | None, progress: Progress | None
) -> tuple[dict[str, str], dict[str, PythiaFastError]]:
    """The digests by name, and the errors of those that cannot be read."""
    workers = thread_count(threads)
    if workers < 1:
        raise ArgumentError(f"threads must be positive, got {threads}")
    sizes = {name: _size(path) for name, path in paths.items()}
    seen = _Seen(sum(sizes.values()), progress)
    with ThreadPoolExecutor(workers, "hash") as pool:
        largest_first = sorted(paths, key=lambda name: -sizes[name])
        work = {name: pool.submit(_hash, paths[name], seen) for name in largest_first}
        left = set(work.values())
        try:
            _, left = wait(left, return_when=FIRST_EXCEPTION)
        finally:
            if left:  # after an error or an interrupt
                seen.stop()  # those in work end at their next step
                pool.shutdown(cancel_futures=True)
    for future in work.values():
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, _StoppedError):
            raise error
    found = {name: future.result() for name, future in work.items()}
    return (
        {name: each for name, each in found.items() if isinstance(each, str)},
        {name: each for name, each in found.items() if not isinstance(each, str)},
    )


def _hash(path: Path, seen: "_Seen") -> str | PythiaFastError:
    """The digest, or why it cannot be had: of one file, which is no reason to leave the others."""
    try:
        return sha256(File(path), seen=seen.add)
    except PythiaFastError as error:
        return error


def _size(path: Path) -> int:
    """0 if it cannot be told: opening it will say why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _StoppedError(Exception):
    """Another thread has given up."""


class _Seen:
    """How many bytes are done, added up over threads; ends them if it has been stopped."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._stopped = False
        self._lock = threading.Lock()

    def add(self, nbytes: int) -> None:
        with self._lock:
            if self._stopped:
                raise _StoppedError
            self._done += nbytes
            if self._progress is not None:
                try:
                    self._progress(self._done, self._total)
                except BaseException:
                    self._stopped = True
                    raise

    def stop(self) -> None:
        self._stopped = True


def describe(checked: Checked, expected: Mapping[str, str]) -> Sequence[str]:
    """One line for each file, in words."""
    lines = []
    for name in expected:
        if name in checked.wrong:
            lines.append(f"{name}: WRONG, it has {checked.digests[name]}, not {expected[name]}")
        elif name in checked.missing:
            lines.append(f"{name}: MISSING")
        elif name in checked.unreadable:
            lines.append(f"{name}: UNREADABLE, {checked.unreadable[name]}")
        else:
            lines.append(f"{name}: OK")
    return [*lines, *(f"{name}: not in the list" for name in checked.extra)]
