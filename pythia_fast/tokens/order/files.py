"""An order's three .npy files, under the names by which GPT-NeoX finds them."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, MissingTokensError, OrderError, ReadError, WriteError
from pythia_fast.publish import partial_of, write_error

PARTS = ("doc_idx", "sample_idx", "shuffle_idx")

# The last group is what later versions of GPT-NeoX add; the arrays are the same.
STEM = re.compile(r".+_indexmap_(\d+)ns_(\d+)sl_(\d+)s(_packedpi(_ac)?)?")
ENDING = re.compile(rf"_({'|'.join(PARTS)})\.npy$")


@dataclass(frozen=True, slots=True)
class OrderFiles:
    """Where an order lies: what the three files' names have in common, and what they say."""

    stem: Path
    samples: int
    sequence_length: int
    seed: int
    mmap: bool = True

    def path(self, part: str) -> Path:
        """The file of one of PARTS."""
        return self.stem.with_name(f"{self.stem.name}_{part}.npy")

    @property
    def paths(self) -> tuple[Path, ...]:
        """All three."""
        return tuple(map(self.path, PARTS))


def find(path: str | os.PathLike[str], *, mmap: bool) -> OrderFiles:
    """The files that `path` means: one of them, their stem, or the prefix of the data beside them.

    MissingTokensError where there are none; ArgumentError where there are several orders.
    """
    given = expanded(path)
    name = ENDING.sub("", given.name)
    if STEM.fullmatch(name):
        return _files(given.with_name(name), mmap)
    prefix = re.sub(r"\.(idx|bin)$", "", name)
    try:
        beside = sorted(given.parent.iterdir()) if given.parent.is_dir() else []
    except OSError as error:
        raise ReadError.of(given.parent, error) from error
    stems = sorted(
        {
            stem
            for file in beside
            if file.name.startswith(f"{prefix}_")
            and STEM.fullmatch(stem := ENDING.sub("", file.name))
            and stem != file.name
        }
    )
    if not stems:
        raise MissingTokensError(
            f"no order at {os.fspath(path)!r}: looked for "
            f"{given.with_name(f'{prefix}_*_indexmap_*_doc_idx.npy')}. "
            "`pythia-fast order build` makes one"
        )
    if len(stems) > 1:
        raise ArgumentError(
            f"{len(stems)} orders at {os.fspath(path)!r}; name one of them: {', '.join(stems)}"
        )
    return _files(given.with_name(stems[0]), mmap)


def load(files: OrderFiles) -> dict[str, npt.NDArray[Any]]:
    """The arrays of PARTS, mapped or in memory. OrderError for a file that is none, or torn."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for part in PARTS:
        path = files.path(part)
        try:
            array = np.load(path, mmap_mode="r" if files.mmap else None, allow_pickle=False)
        except FileNotFoundError as error:
            raise MissingTokensError(
                f"no {path} on {platform.node()}: an order has three files, for {', '.join(PARTS)}"
            ) from error
        except OSError as error:
            if error.errno is None:  # numpy's own, for a file with too few bytes
                raise OrderError(f"{path}: {error}") from error
            raise ReadError.of(path, error) from error
        except (ValueError, EOFError) as error:
            raise OrderError(f"{path} is no whole .npy file of numbers: {error}") from error
        if not isinstance(array, np.ndarray):
            raise OrderError(f"{path} is no .npy file, but an archive of them")
        if not array.flags.c_contiguous:
            raise OrderError(f"{path} holds an array in Fortran's order, as no GPT-NeoX writes it")
        arrays[part] = array
    return arrays


def save(
    prefix: str | os.PathLike[str],
    name: str,
    samples: int,
    sequence_length: int,
    seed: int,
    arrays: Mapping[str, npt.NDArray[Any]],
) -> Path:
    """Write PARTS and return their stem. All are on the disk before the first has its name.

    An order that was there before goes first: nobody who looks in between finds parts of both.
    """
    given = expanded(prefix)
    if given.name in ("", ".."):
        raise ArgumentError(
            f"{os.fspath(prefix)!r} gives the files no name: give a prefix as data/document"
        )
    if not re.fullmatch(r"[^/\0]+", name):
        raise ArgumentError(f"the name of an order becomes part of a file's, which {name!r} cannot")
    stem = f"{given.name}_{name}_indexmap_{samples}ns_{sequence_length}sl_{seed}s"
    files = _files(given.with_name(stem), mmap=True)
    path = files.path(PARTS[0])
    partial: dict[str, Path] = {}
    try:
        for part in PARTS:
            path = files.path(part)
            partial[part] = partial_of(path)
            with partial[part].open("xb") as file:
                np.save(file, arrays[part], allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        files.path(PARTS[0]).unlink(missing_ok=True)
        for part in reversed(PARTS):
            path = files.path(part)
            partial[part].replace(path)
    except OSError as error:
        if error.errno is None:  # numpy's own
            raise WriteError(f"cannot write {path}: {error}. Is the disk full?") from error
        raise write_error(path, error) from error
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return files.stem


def _files(stem: Path, mmap: bool) -> OrderFiles:
    match = STEM.fullmatch(stem.name)
    if match is None:
        raise ArgumentError(f"{stem.name!r} is no name of an order: …_indexmap_1ns_2sl_3s")
    samples, sequence_length, seed = (int(match[group]) for group in (1, 2, 3))
    return OrderFiles(stem, samples, sequence_length, seed, mmap)
