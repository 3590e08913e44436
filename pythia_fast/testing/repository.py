"""Folders seen as a repository of the Hub: branches, commits, and files with their hashes."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_fast.errors import ArgumentError

LARGE_SUFFIXES = (".bin", ".safetensors", ".pt", ".idx", ".parquet")
"""What the Hub keeps in LFS, and has a sha256 of."""
_STEP = re.compile(r"(global_)?step(0|[1-9]\d*)", re.ASCII)


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
    def of_files(cls, branch: str, files: Mapping[str, RepositoryFile]) -> "Commit":
        """As on the Hub, two branches with the same files are two commits."""
        lines = "".join(f"{file.path} {file.sha256}\n" for file in files.values())
        return cls(hashlib.sha1(f"{branch}\n{lines}".encode()).hexdigest(), files)

    def listing(self, below: str, *, recursive: bool) -> list[dict[str, Any]] | None:
        """The answer to `/tree`: files below a folder ("" for all), and the folders among them.

        None if there is no such folder.
        """
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
        if prefix and not entries and not folders:
            return None
        oid = hashlib.sha1(self.name.encode()).hexdigest()
        below_it = [
            {"type": "directory", "oid": oid, "size": 0, "path": f} for f in sorted(folders)
        ]
        return entries + below_it


class Repository:
    """Branches that point to commits; a commit stays when its branch moves on."""

    def __init__(self) -> None:
        self.branches: Mapping[str, Commit] = {}
        self.commits: Mapping[str, Commit] = {}

    @staticmethod
    def commit_of(branch: str, folder: Path, sha256: Mapping[str, str]) -> Commit:
        """All files of `folder`, at any depth, as they are now; those in `sha256` go unread."""
        files = {}
        for source in sorted(path for path in folder.rglob("*") if path.is_file()):
            path = source.relative_to(folder).as_posix()
            digest = sha256.get(path) or _sha256(source)
            files[path] = RepositoryFile(
                path, source, source.stat().st_size, digest, _git_oid(source, digest)
            )
        return Commit.of_files(branch, files)

    def move(self, branch: str, commit: Commit) -> None:
        """Let `branch` point to a commit."""
        self.branches = {**self.branches, branch: commit}
        self.commits = {**self.commits, commit.name: commit}

    def remove(self, branch: str, path: str | None) -> str | None:
        """Take the branch away, or move it to a commit without the file; returns that commit.

        KeyError if there is no such branch or file. Commits stay.
        """
        commit = self.branches[branch]
        if path is None:
            self.branches = {name: c for name, c in self.branches.items() if name != branch}
            return None
        if path not in commit.files:
            raise KeyError(path)
        without = {name: file for name, file in commit.files.items() if name != path}
        self.move(branch, moved := Commit.of_files(branch, without))
        return moved.name

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch or of a commit's own name."""
        return self.branches.get(revision) or self.commits.get(revision)


def branches(series: str | Path) -> dict[str, Path]:
    """{branch: folder} for HubServer: `stepN` for each `stepN/` or `global_stepN/` of the folder.

    `main` is the last step, as on the Hub; a folder without steps is all of `main`. ArgumentError
    if there is no such folder, or two of the same step.
    """
    series = Path(series)
    if not series.is_dir():
        raise ArgumentError(f"there is no folder {series}")
    found: dict[int, Path] = {}
    for folder in sorted(series.iterdir()):
        if (match := _STEP.fullmatch(folder.name)) and folder.is_dir():
            step = int(match[2])
            if step in found:
                raise ArgumentError(f"{folder} and {found[step]} are the same step")
            found[step] = folder
    if not found:
        return {"main": series}
    return {"main": found[max(found)], **{f"step{step}": found[step] for step in sorted(found)}}


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
