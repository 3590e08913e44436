"""What is known of a step's files before the first of them is fetched."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pythia_fast.errors import PythiaFastError
from pythia_fast.hub.files import HubFile


@dataclass(frozen=True, slots=True)
class Revision:
    """The weights files of one step, in the order in which they are read.

    `commit` is None for a local folder, and so is `weights_sha256`, which is otherwise that of the
    `Checkpoint` to come. `here_bytes` of the files are on this machine already. With an `error` the
    step cannot be opened: its branch, or a file of it, is missing, and the rest says what is known.
    """

    step: int
    commit: str | None = None
    files: tuple[HubFile, ...] = ()
    weights_sha256: str | None = None
    here_bytes: int = 0
    error: PythiaFastError | None = None

    @property
    def nbytes(self) -> int:
        """What the files take on a disk."""
        return sum(file.size for file in self.files)

    @property
    def download_bytes(self) -> int:
        """What is still to come."""
        return self.nbytes - self.here_bytes


def weights_digest(digests: Mapping[str, str]) -> str:
    """A fingerprint of weights, in hex, from their files' sha256 by name.

    That of the file, or for shards the sha256 of their lines "name sha256", sorted.
    """
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
