"""A file of a repository, as the Hub lists it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the Hub lists it; without `sha256` it is not kept in LFS."""

    path: str
    size: int
    sha256: str | None
