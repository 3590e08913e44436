"""A file of a repository, as the Hub lists it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the Hub lists it; without `sha256` it is not kept in LFS.

    `git_oid` is git's own name for what git stores: the sha1 of the file itself with git's header
    in front, or, for a file in LFS, of the pointer to it.
    """

    path: str
    size: int
    sha256: str | None
    git_oid: str | None = None
