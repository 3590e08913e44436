"""Files that appear under their name when they are complete, and not before."""

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from pythia_fast.errors import PythiaFastError, WriteError
from pythia_fast.identity import is_dead, mark
from pythia_fast.quantities import sized

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
_RANDOM_BYTES = 4  # in the name of a partial


class TakenError(Exception):
    """Somebody else was first. Not an error of the package: it never leaves it."""


@contextlib.contextmanager
def published(path: Path) -> Iterator[IO[bytes]]:
    """A new file, which takes the place of `path` at the end, flushed to the disk, unless it fails.

    WriteError where the system refuses, also for what is written inside.
    """
    partial = partial_of(path)
    try:
        with writing(path):
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def published_folder(path: Path) -> Iterator[Path]:
    """A new folder to be filled, which gets the name `path` at the end, unless something fails.

    TakenError if somebody was first and there is a folder with something in it: that one stays and
    the new one goes. What kills have left of earlier ones goes too. WriteError where the system
    refuses; what is written inside is to be flushed by whoever writes it.
    """
    remove_partials(path)
    partial = partial_of(path)
    try:
        with writing(path):
            partial.mkdir()
            yield partial
            sync_folder(partial)
            try:
                partial.rename(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                raise TakenError(str(path)) from error
            sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_of(path: Path) -> Path:
    """A new name for what is to become `path`; it says which process, of where, writes it."""
    writer = f"{os.getpid()}-{mark()}{secrets.token_hex(_RANDOM_BYTES)}"
    return path.with_name(f".{path.name}.{writer}.partial")


def left_by_the_dead(partial: Path) -> bool:
    """Whether whoever wrote a `partial_of` something is known to have ended.

    A process of another machine, or of another container on this one, is not.
    """
    writer = re.search(r"\.(\d+)-([0-9a-f]+)\.partial$", partial.name)
    return writer is None or is_dead(int(writer[1]), writer[2][: -2 * _RANDOM_BYTES])


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there. WriteError."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def existing_folder(path: Path) -> Path:
    """The nearest folder on the way up that is there, be it `path` itself."""
    here = (each for each in (path, *path.parents) if os.path.isdir(each))  # noqa: PTH112 - no raise
    return next(here, path)


def free_bytes(folder: Path) -> int:
    """What its file system has left for a folder, be it there yet or not. WriteError."""
    with writing(folder):
        return shutil.disk_usage(existing_folder(folder)).free


def require_space(folder: Path, needed_bytes: int, hint: str = "write elsewhere") -> None:
    """WriteError if the file system of `folder` has less room; `hint` is a way on.

    The folder need not be there.
    """
    if (free := free_bytes(folder)) < needed_bytes:
        raise WriteError(
            errno.ENOSPC,
            f"{folder} has {sized(free)} free, but {sized(needed_bytes)} are to be written: "
            f"free some room, take less of it, or {hint}",
        )


def require_writable(folder: Path, hint: str = "write elsewhere") -> None:
    """WriteError if no file can be made in a folder, or the folder cannot; `hint` is the way on.

    One is made to find out: permissions do not tell.
    """
    if reason := in_the_way(folder):
        raise WriteError(errno.ENOTDIR, f"cannot write {folder}: {reason}")
    there = existing_folder(folder)
    partial = partial_of(there / "probe")
    try:
        with partial.open("xb") as file:
            file.write(b"probe")
    except OSError as error:
        reason = str(error.strerror)
        if there != folder:
            reason = f"no file can be made in {there} ({reason})"
        raise WriteError(error.errno, f"cannot write {folder}: {reason}; {hint}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def require_folder(path: Path) -> None:
    """WriteError unless the folder that `path` is to lie in is there: a mistyped one stays away."""
    folder = path.parent
    if not os.path.isdir(folder):  # noqa: PTH112 - never raises
        reason = in_the_way(folder) or f"there is no folder {folder}: make it, or give another"
        raise WriteError(errno.ENOENT, f"cannot write {path}: {reason}")


def require_plain(path: Path) -> None:
    """WriteError if the name belongs to anything but a file: a link, a folder, a device."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_error(path, error) from error
    if stat.S_ISDIR(mode):
        raise WriteError(
            errno.EISDIR, f"cannot write {path}: Is a directory: give the name of a file in it"
        )
    if stat.S_ISLNK(mode):
        raise WriteError(
            errno.ELOOP,
            f"{path} is a symbolic link; it is not followed: give the name of the file itself",
        )
    if not stat.S_ISREG(mode):
        raise WriteError(
            errno.EINVAL, f"{path} is a device, pipe or socket: give the name of a file"
        )


def is_writable(folder: Path) -> bool:
    """Whether a folder is there and files can be made in it."""
    try:
        require_writable(folder)
    except WriteError:
        return False
    return os.path.isdir(folder)  # noqa: PTH112 - never raises


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """While entered, what the system refuses is a WriteError, see `write_error`."""
    try:
        yield
    except PythiaFastError:  # some are OSErrors too, but of something else
        raise
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> WriteError:
    """The system's refusal, with the path and its words, or with what is in the path's way."""
    reason = in_the_way(path, error.errno) or error.strerror or error
    return WriteError(error.errno, f"cannot write {path}: {reason}")


def in_the_way(path: Path, number: int | None = errno.EEXIST) -> str | None:
    """Why there can be no such folder, where `number` is the system's refusal; else None.

    Of a link that leads nowhere it says that it exists, and cannot be made.
    """
    if number not in (errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
        return None
    for each in (path, *path.parents):
        if os.path.islink(each) and not os.path.exists(each):  # noqa: PTH110, PTH114 - never raise
            return f"{each} is a link that leads nowhere: mend or remove it, or give another name"
        if os.path.isfile(each) and (each != path or number == errno.EEXIST):  # noqa: PTH113
            return f"{each} is a file, not a folder: give the name of a folder"
    return None


def link(path: Path, name: Path) -> None:
    """Give a file another name too, or instead where there are no links. OSError if it is taken."""
    try:
        os.link(path, name, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(name):
            raise FileExistsError(errno.EEXIST, "File exists", str(name)) from error
        path.rename(name)  # a file system without links


def remove_partials(path: Path) -> None:
    """Remove what kills have left of what was to become `path`, but nothing that is being written.

    A folder goes with all that is in it.
    """
    _remove_dead(_partials(path))


def has_dead_partial(path: Path) -> bool:
    """Whether a kill has left something of what was to become `path`."""
    return any(map(left_by_the_dead, _partials(path)))


def _partials(path: Path) -> Iterator[Path]:
    return path.parent.glob(f".{glob.escape(path.name)}.*.partial")


def remove_partials_in(folder: Path) -> None:
    """The same for all files of a folder, but not of those below it."""
    _remove_dead(folder.glob(".*.partial"))


def _remove_dead(partials: Iterable[Path]) -> None:
    for partial in partials:
        if left_by_the_dead(partial):
            if partial.is_dir() and not partial.is_symlink():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Bring to the disk which names a folder has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
