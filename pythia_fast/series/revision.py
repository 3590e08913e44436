"""What is known of a step's files before the first of them is fetched."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pythia_fast.errors import PythiaFastError
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.masks import makes_masks
from pythia_fast.suite.architecture import Architecture

_REST_BYTES = 2**20  # of a file: its directory, rotary tables, alignment


@dataclass(frozen=True, slots=True)
class Revision:
    """The weights files of one step, in the order in which they are read.

    `commit` is None for a local folder, and so is `weights_sha256`, which is otherwise that of the
    `Checkpoint` to come, until its files are hashed. `here_bytes` of the files are on this machine
    already, `elsewhere_bytes` of them in huggingface_hub's own cache, where they take no room of
    ours. About `made_bytes` are causal masks, which are made here rather than fetched. With an
    `error` the step cannot be opened: its branch, or a file of it, is missing, and the rest says
    what is known.

    In a folder, steps with the same weights have the same `outline`, others hardly ever. Where the
    weights are to be merged `parts_sha256` is that of their parts, once these are hashed, and
    `identity` what the series says of the files that were hashed.
    """

    step: int
    commit: str | None = None
    files: tuple[HubFile, ...] = ()
    weights_sha256: str | None = None
    here_bytes: int = 0
    elsewhere_bytes: int = 0
    made_bytes: int = 0
    error: PythiaFastError | None = None
    outline: str | None = None
    parts_sha256: str | None = None
    identity: str | None = None

    @property
    def digest(self) -> str | None:
        """Steps in which it is the same have the same weights; None if it is not known."""
        return self.weights_sha256 or self.parts_sha256

    @property
    def nbytes(self) -> int:
        """What the files take on a disk."""
        return sum(file.size for file in self.files)

    @property
    def coming_bytes(self) -> int:
        """What the disk does not have yet."""
        return self.nbytes - self.here_bytes

    @property
    def download_bytes(self) -> int:
        """What of that comes over the network: about so much, where masks are made."""
        return self.coming_bytes - self.made_bytes * self.coming_bytes // max(self.nbytes, 1)


def made_bytes(nbytes: int, architecture: Architecture) -> int:
    """About how much of a checkpoint's files are causal masks: one a layer, a byte an element.

    0 where the files are not about as large as that and their weights, in two or four bytes each.
    """
    side = architecture.max_positions
    masks = architecture.layers * side**2 if makes_masks(side) else 0
    rests = (nbytes - masks - architecture.parameters * itemsize for itemsize in (2, 4))
    return masks if any(0 <= rest <= _REST_BYTES + nbytes // 50 for rest in rests) else 0


def weights_digest(digests: Mapping[str, str]) -> str:
    """A fingerprint of weights, in hex, from their files' sha256 by name.

    That of the file, or for shards the sha256 of their lines "name sha256", sorted.
    """
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
