"""Where an .idx and its .bin lie, the .bin perhaps in shards, and whether they are all there.

Shards are named `<stem>-000NN-of-000MM.bin` beside `<stem>.idx`, where MM is the number of the last
one: the published sets have 00000 to 00020 of 00020. All but the last have the same size.
"""

import errno
import os
import platform
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pythia_fast.cache import expanded
from pythia_fast.core import TokenStore
from pythia_fast.errors import (
    ArgumentError,
    MissingTokensError,
    PythiaFastError,
    ReadError,
    TokenFileError,
)
from pythia_fast.words import near

MAGIC = b"MMIDIDX\0\0"
HEADER = struct.Struct("<9sQBQQ")
"""Of an .idx: MAGIC, version 1, dtype code, rows, documents. The rows' lengths follow."""
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,})-of-(?P<last>\d{5,})\.bin", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Files:
    """An .idx and the files whose concatenation is its .bin, with their sizes when found.

    The paths are made absolute, so that they mean the same in whatever folder the process is when
    they are opened again. In another process, after a pickle, the sizes must be the same still.
    """

    index: Path
    bins: tuple[Path, ...]
    nbytes: tuple[int, ...]
    """Of the .idx, then of each of `bins`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", self.index.absolute())
        object.__setattr__(self, "bins", tuple(path.absolute() for path in self.bins))

    def open(self) -> TokenStore:
        """Map and check them: TokenFileError where their numbers do not add up.

        MissingTokensError, which names this machine, where they are gone, or never were.
        """
        for path, before in zip((self.index, *self.bins), self.nbytes, strict=True):
            try:
                now = _size(path)
            except ReadError as error:
                if error.errno != errno.ENOENT:
                    raise
                raise MissingTokensError(
                    f"there is no {path} on {platform.node()}, of data that was opened already: "
                    "every machine that is to read it needs it under the same path"
                ) from error
            if now != before:
                raise TokenFileError(
                    path, f"the file has {now} bytes, but had {before} when the data was opened"
                )
        store = TokenStore(self.index, self.bins)
        total = sum(self.nbytes[1:])
        if len(self.bins) > 1 and store.bin_bytes != total:
            raise TokenFileError(
                self.index,
                f"its rows take {store.bin_bytes} bytes, but the {len(self.bins)} shards beside it "
                f"have {total}: one or the other belongs to other data",
            )
        return store

    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each row as the .idx has them, mapped: [L], not aligned, and not checked."""
        rows = len(self.open())
        if rows == 0:
            return np.empty(0, dtype=np.int32)
        return np.memmap(self.index, "<i4", "r", offset=HEADER.size, shape=(rows,))

    def __str__(self) -> str:
        first, last = self.bins[0], self.bins[-1]
        return str(first) if first == last else f"{first} to {last.name}"


def find_files(path: str | os.PathLike[str]) -> Files:
    """The files that `path` stands for: a prefix, an .idx, a .bin, a shard, or a folder.

    MissingTokensError where some are not there, TokenFileError where they do not belong together,
    ArgumentError for a folder with more than one data set, and for a .npy file.
    """
    given = expanded(path)
    try:
        index, bin_ = pair(given)
        prefix = index.with_suffix("")
        if not index.exists():
            if given.is_dir():
                return _in_folder(given)
            if shard := SHARD.fullmatch(given.name):
                prefix = given.with_name(shard["stem"])
        shards = () if bin_.exists() and prefix == index.with_suffix("") else find_shards(prefix)
        if shards:
            return _sharded(prefix, shards)
        missing = [str(file) for file in (index, bin_) if not file.exists()]
    except PythiaFastError:
        raise
    except OSError as error:  # a text in place of a path
        raise ReadError.of(given, error, "look for") from error
    if missing and given.suffix == ".npy" and given.is_file():
        raise ArgumentError(f"{given} is a .npy file, and an .idx/.bin pair is needed here")
    if missing:
        is_half = f"{missing[0]} is not there, though its other half is"
        is_none = f"neither {index} nor {bin_} is there"
        raise MissingTokensError(
            f"no token data at {os.fspath(path)!r}: {is_half if len(missing) == 1 else is_none}"
            f"{near_names(given)}. Give the path of an .idx/.bin pair without its ending, of a "
            "shard, of their folder, or of a .npy file. Texts become a pair by `pythia-fast "
            "tokenize`, are read as they are by `sweep --tokens FILE --tokenizer`, and in Python "
            "are TokenDataset(texts, tokenizer=…)"
        )
    return Files(index, (bin_,), (_size(index), _size(bin_)))


def near_names(given: Path) -> str:
    """What lies in the same folder and is called nearly so: "; near is train", or nothing."""
    try:
        names = [path.name for path in _listed(given.parent)]
    except OSError:
        return ""
    known = [name.removesuffix(".idx") for name in names if name.endswith((".idx", ".npy"))]
    return near(given.name, known)


def pair(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The .idx and the .bin that `path` stands for: a prefix, or one of the two."""
    text = str(expanded(path))
    prefix = text[:-4] if text.endswith((".idx", ".bin")) else text
    return Path(prefix + ".idx"), Path(prefix + ".bin")


def find_shards(prefix: Path) -> tuple[Path, ...]:
    """The shards of `prefix` in order, none missing and none foreign; () if there are none."""
    found: dict[int, dict[int, Path]] = {}
    for path in _listed(prefix.parent):
        shard = SHARD.fullmatch(path.name)
        if not shard or shard["stem"] != prefix.name:
            continue
        of_set = found.setdefault(int(shard["last"]), {})
        number = int(shard["number"])
        if number in of_set:
            raise TokenFileError(path, f"the same shard is there twice, also as {of_set[number]}")
        of_set[number] = path
    if not found:
        return ()
    if len(found) > 1:
        sets = ", ".join(
            f"{len(of_set)} of {prefix.name}-*-of-{last:05}.bin" for last, of_set in found.items()
        )
        raise TokenFileError(prefix.parent, f"these are shards of different sets: {sets}")
    ((last, shards),) = found.items()
    foreign = [path for number, path in shards.items() if number > last]
    if foreign:
        raise TokenFileError(foreign[0], f"the last shard of the set is number {last:05}")
    if len(shards) <= last:
        raise MissingTokensError(
            f"{last + 1 - len(shards)} of the {last + 1} shards of {prefix} are missing: "
            f"{prefix.name}-NNNNN-of-{last:05}.bin with NNNNN {', '.join(_gaps(shards, last))}"
        )
    return tuple(shards[number] for number in range(last + 1))


def _in_folder(folder: Path) -> Files:
    """The one data set that a folder holds."""
    names = [path.name for path in _listed(folder)]
    prefixes = [name[:-4] for name in names if name.endswith(".idx")]
    stems = sorted({shard["stem"] for shard in map(SHARD.fullmatch, names) if shard})
    if not prefixes:
        hint = f"; of the shards there it would be {stems[0]}.idx" if stems else ""
        raise MissingTokensError(f"the folder {folder} holds no .idx file{hint}")
    whole = [f"{prefix}.bin" for prefix in prefixes if f"{prefix}.bin" in names]
    if len(prefixes) > 1 or (whole and stems):
        candidates = [f"{prefix}.idx" for prefix in prefixes if len(prefixes) > 1]
        candidates += [*whole, *(f"{stem}-*.bin" for stem in stems)] if whole else []
        raise ArgumentError(
            f"the folder {folder} holds more than one data set: give the path of one, out of "
            f"{', '.join(candidates)}"
        )
    prefix = prefixes[0]
    foreign = [stem for stem in stems if stem != prefix]
    if foreign:
        raise TokenFileError(
            folder, f"beside {prefix}.idx lie shards of other data: {', '.join(foreign)}"
        )
    return find_files(folder / f"{prefix}.idx")


def _sharded(prefix: Path, shards: tuple[Path, ...]) -> Files:
    """The shards with their .idx; TokenFileError for one that is too short to be whole."""
    index = prefix.with_name(prefix.name + ".idx")
    if not index.exists():
        raise MissingTokensError(f"{shards[0]} is there, but its index {index} is not")
    sizes = [_size(path) for path in shards]
    whole = max(sizes[:-1], default=sizes[-1])
    for path, nbytes in zip(shards[:-1], sizes[:-1], strict=True):
        if nbytes < whole:
            raise TokenFileError(
                path,
                f"the shard ends here, {whole - nbytes} bytes short of the {whole} that all but "
                "the last have",
                offset=nbytes,
            )
    if sizes[-1] > whole:
        raise TokenFileError(
            shards[-1],
            f"the last shard has {sizes[-1]} bytes, more than the {whole} of those before it: "
            "they are cut short, or it belongs to another set",
        )
    return Files(index, shards, (_size(index), *sizes))


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder, by name, but not hidden."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if not path.name.startswith(".")]


def _gaps(numbers: Iterable[int], last: int) -> Iterator[str]:
    """The numbers up to `last` that are not there, as ranges."""
    for before, after in pairwise([-1, *sorted(numbers), last + 1]):
        if after - before == 2:
            yield f"{before + 1:05}"
        elif after - before > 2:
            yield f"{before + 1:05} to {after - 1:05}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ReadError.of(path, error) from error
