"""One checkpoint: its open files, and where in them each weight lies, checked against the model."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from pythia_fast.core import File
from pythia_fast.digest import Digests
from pythia_fast.errors import FormatError, MissingCheckpointError, WeightsError
from pythia_fast.series.layout import WeightFiles
from pythia_fast.series.revision import weights_digest
from pythia_fast.series.safetensors import read_safetensors
from pythia_fast.series.tensors import TensorRange
from pythia_fast.series.torch_zip import read_torch_zip
from pythia_fast.suite.architecture import Architecture
from pythia_fast.words import listed

WEIGHT_DTYPES = ("F16", "BF16", "F32", "F64")

_BUFFER = re.compile(
    r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)", re.ASCII
)
_ALIASES = {"lm_head.weight": "embed_out.weight"}
"""What transformers 5 calls a weight in memory, and so in a state dict saved by hand; its own files
keep the old name."""
HASHED_AT_ONCE = 4  # shards of a checkpoint; 12b has three
_NAMED_AT_MOST = 4  # tensors in one error


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One weights file. `sha256` was promised by the source and verified; None if it is mute."""

    name: str
    path: Path
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What it took to have the files of a checkpoint here.

    `wait_s` was spent waiting for room on the disk, or for another process that fetched the same
    file; `verify_s` on hashes that were not computed while the bytes came.
    """

    download_s: float = 0.0
    verify_s: float = 0.0
    wait_s: float = 0.0
    received_bytes: int = 0


class Held(Protocol):
    """What keeps a checkpoint's files on the disk until it is closed."""

    def close(self) -> None:
        """Let go of them; a second time does nothing."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of one step, as byte ranges of files that stay open while this exists.

    `tensors` has exactly `architecture.shapes()`: names, shapes and a float dtype are checked, the
    buffers that older files carry are left out. `source` says where from, in words; `commit` is the
    Hub's, None for a local folder. `fetch` is None where nothing had to come from elsewhere.
    """

    step: int
    source: str
    commit: str | None
    architecture: Architecture
    files: tuple[CheckpointFile, ...]
    tensors: Mapping[str, TensorRange]
    _opened: dict[str, File] = field(repr=False)
    _tensors: dict[str, TensorRange] = field(repr=False)
    fetch: FetchReport | None = None
    _held: Held | None = field(default=None, repr=False)
    _digests: Digests = field(default_factory=Digests, repr=False)

    def close(self) -> None:
        """Give back the files that were taken from a store, which may then evict them.

        They are also closed, so that their room is free as soon as they are: `tensors` is empty
        from then on. Closing again, or a checkpoint of a folder, does nothing. One that nobody has
        any more is closed by itself.
        """
        if self._held is not None:
            self._tensors.clear()
            self._opened.clear()
            self._held.close()

    @cached_property
    def weights_sha256(self) -> str:
        """The weights' fingerprint, in hex: a file's sha256, or that of "name sha256" lines.

        The lines are those of all shards, sorted. Where the source promised no sha256 it is
        computed here, over the open files, so that what was verified is what is read; of several
        shards at the same time. Files whose digest the series knows are not read again.
        """
        with ThreadPoolExecutor(HASHED_AT_ONCE, "pythia_fast-hash") as pool:
            digests = pool.map(
                lambda file: file.sha256 or self._digests.of(self._opened[file.name]), self.files
            )
            names = [file.name for file in self.files]
            return weights_digest(dict(zip(names, digests, strict=True)))


def open_checkpoint(
    weights: WeightFiles,
    opened: Sequence[tuple[CheckpointFile, File]],
    *,
    step: int,
    source: str,
    commit: str | None,
    architecture: Architecture,
    fetch: FetchReport | None = None,
    held: Held | None = None,
    read: Callable[[CheckpointFile, File], Iterable[TensorRange]] | None = None,
    digests: Digests | None = None,
) -> Checkpoint:
    """Read the headers of the `opened` files, which are those of `weights`, and check them.

    The checkpoint closes what is `held` for it, when it is closed itself. `read` gives the tensors
    of a file under the architecture's names; None reads the Hub's formats. `digests` are those of
    files that were hashed before.

    FormatError (and its kinds) for a malformed file or an index that does not fit its shards,
    WeightsError if the tensors are not the architecture's.
    """
    tensors: dict[str, TensorRange] = {}
    shard_of = {_ALIASES.get(name, name): s for name, s in (weights.shard_of or {}).items()}
    for description, file in opened:
        for tensor in (read or _weights_of)(description, file):
            if tensor.name in tensors:
                first = tensors[tensor.name].file.path
                raise FormatError(file.path, f"{tensor.name!r} is there twice, also in {first}")
            if weights.index is not None and shard_of.get(tensor.name) != description.name:
                reason = f"the index does not put {tensor.name[:200]!r} into {description.name!r}"
                raise FormatError(weights.index, f"{reason}, where it is")
            tensors[tensor.name] = tensor
    for name, shard in shard_of.items():
        if weights.index is not None and name not in tensors and not _BUFFER.fullmatch(name):
            raise FormatError(weights.index, f"{name[:200]!r} is not in {shard!r}, its shard")
    _check_weights(tensors, architecture, source)
    ours = {name: tensors[name] for name in architecture.shapes()}
    return Checkpoint(
        step=step,
        source=source,
        commit=commit,
        architecture=architecture,
        files=tuple(description for description, _ in opened),
        tensors=MappingProxyType(ours),
        _opened={description.name: file for description, file in opened},
        _tensors=ours,
        fetch=fetch,
        _held=held,
        _digests=digests or Digests(),
    )


def _weights_of(description: CheckpointFile, file: File) -> Iterator[TensorRange]:
    """The tensors of one file without the buffers, under the names of the architecture."""
    refuse_pointer(file)
    read = read_torch_zip if description.name.endswith(".bin") else read_safetensors
    for name, tensor in read(file).items():
        if not _BUFFER.fullmatch(name):
            yield replace(tensor, name=_ALIASES[name]) if name in _ALIASES else tensor


def refuse_pointer(file: File) -> None:
    """MissingCheckpointError if git has put a pointer in the weights' place."""
    if file.size < 1024 and file.read(0, min(file.size, 24)).startswith(b"version https://git-lfs"):
        raise MissingCheckpointError(
            f"{file.path} is a git-lfs pointer, not the weights; fetch them with `git lfs pull`"
        )


def _check_weights(
    tensors: Mapping[str, TensorRange], architecture: Architecture, source: str
) -> None:
    """WeightsError that names what is missing, unknown, or of another shape or dtype."""
    if architecture.layers > len(tensors):  # before a table of so many layers is made
        raise WeightsError(
            f"the config.json of {source} describes {architecture.layers} layers, but its weights "
            f"are {len(tensors)} tensors"
        )
    shapes = architecture.shapes()
    missing = [name for name in shapes if name not in tensors]
    unknown = [name[:200] for name in tensors if name not in shapes]
    wrong = [
        f"{name} is {list(tensors[name].shape)}, not {list(shape)}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    untyped = [
        f"{name} is {tensor.dtype}"
        for name, tensor in tensors.items()
        if name in shapes and tensor.dtype not in WEIGHT_DTYPES
    ]
    complaints = [
        f"{what}: {listed(names, _NAMED_AT_MOST)}"
        for what, names in {
            "missing": missing,
            "unknown": unknown,
            "of another shape": wrong,
            f"none of {', '.join(WEIGHT_DTYPES)}": untyped,
        }.items()
        if names
    ]
    if complaints:
        raise WeightsError(
            f"the weights of {source} are not those that its config.json describes; "
            f"{'; '.join(complaints)}"
        )
