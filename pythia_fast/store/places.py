"""Where everything lies in a store, and its small records.

blobs/<digest>                       complete files by their sha256, or "git-" and git's blob id
origins/<digest>.json                where one came from: written by our own downloads only
partial/<digest>[.done|.wrong]       files in the making, their records, and what was not right
listings/<owner>--<name>/            what the Hub said of commits and branches
leases/                              what the processes at work use and fetch
"""

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_fast.errors import ArgumentError
from pythia_fast.hub.files import HubFile
from pythia_fast.publish import partial_of, writing

DIGEST = re.compile(r"[0-9a-f]{64}|git-[0-9a-f]{40}", re.ASCII)
QUARANTINE_SUFFIX = ".wrong"

_EVICTED = re.compile(r"\.(?P<digest>[0-9a-f]{64}|git-[0-9a-f]{40})\.(?P<holder>[\w-]+)\.evicted")
_RECORD_LIMIT_BYTES = 16 * 2**20


def digest_of(file: HubFile) -> str:
    """The name that a file has in a store. ArgumentError if the Hub lists no hash of it."""
    if file.sha256 is not None:
        return file.sha256
    if file.git_oid is not None:
        return f"git-{file.git_oid}"
    raise ArgumentError(f"{file.path}: without a hash there is no name for it in the store")


def is_small(digest: str) -> bool:
    """Whether it is a config or the like, which the Hub does not keep in LFS.

    It is not worth evicting, and a checkpoint is not opened offline without it.
    """
    return digest.startswith("git-")


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of a store."""

    root: Path

    @property
    def blobs(self) -> Path:
        """Complete files."""
        return self.root / "blobs"

    @property
    def origins(self) -> Path:
        """Where they came from."""
        return self.root / "origins"

    @property
    def partials(self) -> Path:
        """Files in the making."""
        return self.root / "partial"

    @property
    def listings(self) -> Path:
        """What the Hub has listed."""
        return self.root / "listings"

    @property
    def leases(self) -> Path:
        """What processes use."""
        return self.root / "leases"

    def blob(self, digest: str) -> Path:
        """A complete file."""
        return self.blobs / digest

    def origin(self, digest: str) -> Path:
        """The record of where it came from."""
        return self.origins / f"{digest}.json"

    def partial(self, digest: str) -> Path:
        """The same file in the making."""
        return self.partials / digest

    def quarantine(self, digest: str) -> Path:
        """Bytes that were to be that file, and are not."""
        return self.partials / f"{digest}{QUARANTINE_SUFFIX}"

    def listing(self, repo: str, name: str) -> Path:
        """What was listed of a repository: a commit, or its branches."""
        return self.listings / repo.replace("/", "--") / f"{name}.json"


def evicted_name(path: Path, holder: str) -> Path:
    """The name that a file has while it is decided whether it may go."""
    return path.with_name(f".{path.name}.{holder}.evicted")


def evicted_parts(name: str) -> tuple[str, str] | None:
    """(digest, holder) of a file that is being evicted, None of any other name."""
    match = _EVICTED.fullmatch(name)
    return (match["digest"], match["holder"]) if match else None


def write_record(path: Path, content: Any) -> None:
    """Put JSON at `path`, at once or not at all. WriteError.

    It is not flushed to the disk: a record that a crash has torn is no JSON, and does not count.
    """
    write_bytes(path, json.dumps(content, indent=1, sort_keys=True).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Put bytes at `path`, at once or not at all. WriteError."""
    partial = partial_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def read_record(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is none, or it is torn, or is none of ours."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > _RECORD_LIMIT_BYTES:
                return None
            content = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
