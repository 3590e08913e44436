"""Folders seen as a repository of the Hub: branches, commits, and files with their hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGE_SUFFIXES = (".bin", ".safetensors", ".idx", ".parquet")
"""What the Hub keeps in LFS, and has a sha256 of."""


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """One file of a commit; its content is read from `source` when it is asked for."""

    path: str
    source: Path
    size: int
    sha256: str
    git_oid: str

    @property
    def large(self) -> bool:
        """Whether it is kept in LFS."""
        return self.path.endswith(LARGE_SUFFIXES)

    @property
    def etag(self) -> str:
        """The sha256 for LFS, otherwise git's id."""
        return self.sha256 if self.large else self.git_oid

    def sibling(self) -> dict[str, Any]:
        """Its entry in what is told of a repository with `blobs`."""
        entry: dict[str, Any] = {
            "rfilename": self.path,
            "size": self.size,
            "blobId": self.git_oid,
        }
        if self.large:
            entry["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": 134}
        return entry

    def listing(self) -> dict[str, Any]:
        """Its entry in an answer of `/tree`."""
        entry: dict[str, Any] = {
            "type": "file",
            "oid": self.git_oid,
            "size": self.size,
            "path": self.path,
        }
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return entry


@dataclass(frozen=True, slots=True)
class Commit:
    """A state of the repository, named by a hash over its files."""

    name: str
    files: Mapping[str, RepositoryFile]

    @classmethod
    def of_folder(cls, folder: Path, sha256: Mapping[str, str]) -> "Commit":
        """All files of `folder`, at any depth, as they are now; those in `sha256` go unread."""
        files = {}
        for source in sorted(path for path in folder.rglob("*") if path.is_file()):
            path = source.relative_to(folder).as_posix()
            digest = sha256.get(path) or _sha256(source)
            files[path] = RepositoryFile(
                path, source, source.stat().st_size, digest, _git_oid(source, digest)
            )
        lines = "".join(f"{file.path} {file.sha256}\n" for file in files.values())
        return cls(hashlib.sha1(lines.encode()).hexdigest(), files)

    def listing(self, below: str, *, recursive: bool) -> list[dict[str, Any]]:
        """The answer to `/tree`: files below a folder ("" for all), and the folders among them."""
        prefix = below.strip("/") + "/" if below.strip("/") else ""
        entries: list[dict[str, Any]] = []
        folders: set[str] = set()
        for path, file in self.files.items():
            if not path.startswith(prefix):
                continue
            inner = path[len(prefix) :]
            if "/" in inner and not recursive:
                folders.add(prefix + inner.partition("/")[0])
            else:
                entries.append(file.listing())
        oid = hashlib.sha1(self.name.encode()).hexdigest()
        below_it = [
            {"type": "directory", "oid": oid, "size": 0, "path": f} for f in sorted(folders)
        ]
        return entries + below_it


class Repository:
    """Branches that point to commits; a commit stays when its branch moves on."""

    def __init__(self) -> None:
        self.branches: dict[str, Commit] = {}
        self.commits: dict[str, Commit] = {}

    def publish(self, branch: str, folder: Path, sha256: Mapping[str, str]) -> str:
        """Let `branch` point to the files of `folder` as they are now; returns the commit."""
        commit = Commit.of_folder(folder, sha256)
        self.branches[branch] = self.commits[commit.name] = commit
        return commit.name

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch or of a commit's own name."""
        return self.branches.get(revision) or self.commits.get(revision)


def _sha256(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_oid(source: Path, sha256: str) -> str:
    """Git's name for the file, or for the pointer to it that git has of a large one."""
    size = source.stat().st_size
    if source.name.endswith(LARGE_SUFFIXES):
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        ).encode()
        return hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    digest = hashlib.sha1(b"blob %d\0" % size)
    with source.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
