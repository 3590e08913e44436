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
    def of_folder(cls, folder: Path) -> "Commit":
        """All files of `folder`, at any depth, as they are now."""
        files = {}
        for source in sorted(path for path in folder.rglob("*") if path.is_file()):
            path = source.relative_to(folder).as_posix()
            content = source.read_bytes()
            git_oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sha256 = hashlib.sha256(content).hexdigest()
            files[path] = RepositoryFile(path, source, len(content), sha256, git_oid)
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

    def publish(self, branch: str, folder: Path) -> str:
        """Let `branch` point to the files of `folder` as they are now; returns the commit."""
        commit = Commit.of_folder(folder)
        self.branches[branch] = self.commits[commit.name] = commit
        return commit.name

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch or of a commit's own name."""
        return self.branches.get(revision) or self.commits.get(revision)
