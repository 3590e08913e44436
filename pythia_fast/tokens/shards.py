"""Joining the shards of a .bin, and cutting a .bin into shards."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError
from pythia_fast.publish import make_folder, writing
from pythia_fast.tokens.assembling.assembly import Progress, assemble
from pythia_fast.tokens.assembling.parts import Part, Target
from pythia_fast.tokens.files import SHARD, Files, find_files, pair
from pythia_fast.tokens.sources import is_remote

LAST_SHARD = 99_999
"""The highest number that five digits hold."""
SHARD_BYTES = 5_000_000_000
"""Of a shard of Pythia's raw data sets."""


@dataclass(frozen=True, slots=True)
class Written:
    """What `shard` or `unshard` made."""

    bins: tuple[Path, ...]
    index: Path
    total_bytes: int  # of all files
    resumed_bytes: int  # of these, done by an earlier attempt
    shared_bytes: int  # whose blocks are the source's: they took no room


def shard_name(stem: str, number: int, last: int) -> str:
    """`<stem>-000NN-of-000MM.bin`, where MM is the number of the last shard."""
    return f"{stem}-{number:05}-of-{last:05}.bin"


def unshard(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool = True,
    progress: Progress | None = None,
) -> Written:
    """Join the shards that `source` stands for (see TokenDataset) into one .bin, with its .idx.

    `out` is the prefix of the new pair, or a folder, where the stem of the shards becomes the name;
    it is another folder than theirs, which would hold the data twice. Blocks are shared with the
    shards where the file system can; memory stays below 100 MB.

    An interrupted call goes on where it was, by the same call; neither file has its name before
    both are whole. Raises the errors of `find_files`, where a shard is missing, short or foreign;
    TokenFileError if the .idx is not theirs; ArgumentError if the .bin is in one piece, would lie
    beside the shards, or is on the Hub; the errors of `assemble`.
    """
    refuse_hub(source)
    files = find_files(source)
    first = SHARD.fullmatch(files.bins[0].name)
    if first is None:
        raise ArgumentError(f"{files.bins[0]} is in one piece already, there is nothing to join")
    target_index, target_bin = _out(out, first["stem"])
    if _same_folder(target_bin.parent, files.index.parent):
        raise ArgumentError(
            f"{target_bin} would lie beside its shards, in a folder that holds the data twice: "
            "give another folder (--out)"
        )
    parts = tuple(
        Part(path, 0, nbytes) for path, nbytes in zip(files.bins, files.nbytes[1:], strict=True)
    )
    record = target_bin.with_name(f".{target_bin.name}.partial.json")
    return _made((Target(target_bin, parts),), files, target_index, record, resume, progress)


def shard(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    shard_bytes: int = SHARD_BYTES,
    resume: bool = True,
    progress: Progress | None = None,
) -> Written:
    """Cut a .bin into shards of `shard_bytes` (the last one may be shorter) in the folder `out`.

    `source` is the prefix of the pair, whose .idx is copied too; the .bin may be in other shards.
    Blocks can be shared only if `shard_bytes` is a multiple of the file system's block, 4096 nearly
    everywhere; Pythia's own 5·10^9 is not.

    ArgumentError for more than 100,000 shards; the errors of `find_files`; TokenFileError if the
    .idx is not that of the .bin; the errors of `assemble`. Interrupted work goes on as in
    `unshard`.
    """
    if shard_bytes < 1:
        raise ArgumentError(f"shard_bytes must be positive, got {shard_bytes}")
    refuse_hub(source)
    files = find_files(source)
    total = sum(files.nbytes[1:])
    last = max(0, -(-total // shard_bytes) - 1)
    if last > LAST_SHARD:
        raise ArgumentError(
            f"{total:,} bytes in shards of {shard_bytes:,} are {last + 1:,} of them; names hold "
            f"{LAST_SHARD + 1:,}"
        )
    folder, stem = expanded(out), files.index.name.removesuffix(".idx")
    targets = tuple(
        Target(
            folder / shard_name(stem, number, last),
            _cut(files, number * shard_bytes, min(total, (number + 1) * shard_bytes)),
        )
        for number in range(last + 1)
    )
    record = folder / f".{stem}.shards.partial.json"
    return _made(targets, files, folder / files.index.name, record, resume, progress)


def _cut(files: Files, first: int, last: int) -> tuple[Part, ...]:
    """Bytes [first, last) of the .bin, wherever they lie."""
    parts, begin = [], 0
    for path, nbytes in zip(files.bins, files.nbytes[1:], strict=True):
        inside = range(max(first, begin), min(last, begin + nbytes))
        if inside:
            parts.append(Part(path, inside.start - begin, inside.stop - inside.start))
        begin += nbytes
    return tuple(parts)


def _made(
    bins: Sequence[Target],
    files: Files,
    target_index: Path,
    record: Path,
    resume: bool,
    progress: Progress | None,
) -> Written:
    files.open()  # which compares the .idx with the size of all
    targets = list(bins)
    with writing(record.parent):
        if not (target_index.exists() and target_index.samefile(files.index)):
            index = Part(files.index, 0, files.nbytes[0])
            targets.append(Target(target_index, (index,)))  # last: a reader looks for it first
    make_folder(record.parent)
    done = assemble(targets, record, resume=resume, progress=progress)
    return Written(
        tuple(target.path for target in bins),
        target_index,
        done.total_bytes,
        done.resumed_bytes,
        done.shared_bytes,
    )


def _out(out: str | os.PathLike[str], stem: str) -> tuple[Path, Path]:
    """The new .idx and .bin."""
    given = expanded(out)
    with writing(given):
        into = given.is_dir() or os.fspath(out).endswith(os.sep)
    return pair(given / stem if into else given)


def _same_folder(folder: Path, other: Path) -> bool:
    try:
        return folder.samefile(other)
    except OSError:  # it is not there yet
        return False


def refuse_hub(source: str | os.PathLike[str]) -> None:
    """ArgumentError for data on the Hub, where files on this machine are needed."""
    text = os.fspath(source)
    if is_remote(text):
        raise ArgumentError(
            f"{text} is on the Hub, and files on this machine are needed: download them first, "
            "with `hf download --repo-type dataset`, and give their folder"
        )
