"""Which files of a folder or a revision hold its weights: one file, or shards with an index.

An index is a stranger's text: a shard is only ever looked up by its bare name among the files that
are known to be there.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_fast.core import File
from pythia_fast.errors import FormatError, MissingCheckpointError
from pythia_fast.series.strict_json import parse_object
from pythia_fast.suite.architecture import Architecture
from pythia_fast.words import listed

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
INDEX_SUFFIX = ".index.json"
SINGLE_FILES = ("pytorch_model.bin", "model.safetensors")
"""In this order: where both are, the safetensors were converted later, and some from another step
(EleutherAI/pythia issue 205)."""

INDEX_LIMIT_BYTES = 16 * 2**20
_NAMED_AT_MOST = 4  # files in one error
_UNFINISHED = (".incomplete", ".tmp", ".part", ".partial")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The names of the files to read, and for shards which of them holds which tensor."""

    names: tuple[str, ...]
    shard_of: Mapping[str, str] | None = None
    index: Path | None = None


def choose_weights(
    available: Collection[str], locate: Callable[[str], Path], where: str
) -> WeightFiles:
    """The weights among the file names `available` in `where`.

    `locate` gives an index file's path on this machine. MissingCheckpointError if there are no
    weights or not all shards of them, FormatError if an index is malformed or names anything but
    files beside it.
    """
    unfinished = sorted(name for name in available if name.endswith(_UNFINISHED))
    hint = (
        f"; unfinished files are there: {listed(unfinished, _NAMED_AT_MOST)}" if unfinished else ""
    )
    for name in SINGLE_FILES:
        if name in available:
            return WeightFiles((name,))
        if name + INDEX_SUFFIX in available:
            index = locate(name + INDEX_SUFFIX)
            shard_of = _read_index(index, Path(name).suffix)
            shards = tuple(sorted(set(shard_of.values())))
            if missing := [shard for shard in shards if shard not in available]:
                raise MissingCheckpointError(
                    f"{where} lacks {len(missing)} of the {len(shards)} shards that "
                    f"{name + INDEX_SUFFIX} names: {listed(missing, _NAMED_AT_MOST)}{hint}"
                )
            return WeightFiles(shards, shard_of, index)
    raise MissingCheckpointError(
        f"{where} holds no weights: neither {' nor '.join(SINGLE_FILES)}, whole or in shards{hint}"
    )


def weights_by_name(available: Collection[str]) -> tuple[str, ...] | None:
    """The weights among file names, without a look into an index.

    None where names leave a doubt: not just one set of shards "-0000x-of-0000y", and all of it.
    """
    for name in SINGLE_FILES:
        if name in available:
            return (name,)
        if name + INDEX_SUFFIX in available:
            stem, suffix = Path(name).stem, Path(name).suffix
            shard = re.compile(rf"{stem}-(\d{{5}})-of-(\d{{5}}){re.escape(suffix)}", re.ASCII)
            found = sorted(other for other in available if shard.fullmatch(other))
            count = len(found)
            whole = [f"{stem}-{k:05}-of-{count:05}{suffix}" for k in range(1, count + 1)]
            return tuple(found) if found and found == whole else None
    return None


def read_architecture(path: Path) -> Architecture:
    """The model that a `config.json` describes. FormatError if it is malformed or no GPT-NeoX."""
    return Architecture.from_config(_read_json(path), path)


def _read_json(path: Path) -> dict[str, Any]:
    """A small JSON object from a file. FormatError if it is too large, or anything else."""
    file = File(path)
    if file.size > INDEX_LIMIT_BYTES:
        raise FormatError(path, f"{file.size} bytes; {INDEX_LIMIT_BYTES} are allowed")
    raw = file.read(0, file.size)
    try:
        return parse_object(raw)
    except ValueError as error:
        raise FormatError(path, f"no valid JSON: {error}") from error


def _read_index(path: Path, suffix: str) -> dict[str, str]:
    """The index's weight_map, tensor -> shard; every shard is a bare name with the suffix."""
    weight_map = _read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(path, "the index has no weight_map from tensors to shards")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_bare_name(shard):
            raise FormatError(
                path,
                f"the index puts {tensor[:200]!r} into {str(shard)[:200]!r}, no file beside it",
            )
        if not shard.endswith(suffix):
            raise FormatError(
                path, f"the index names {shard[:200]!r} as a shard, no *{suffix} file"
            )
    return weight_map


def _is_bare_name(name: str) -> bool:
    return name not in ("", ".", "..") and not any(char in name for char in "/\\\0")
