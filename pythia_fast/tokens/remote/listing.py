"""What a data set on the Hub is called, and which of its files make one `.idx`/`.bin` pair."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from pythia_fast.errors import ArgumentError, HubError, MissingTokensError, TokenFileError
from pythia_fast.hub.files import HubFile
from pythia_fast.tokens.remote.pile import REPOSITORIES
from pythia_fast.words import listed

HUB = "hub:"
"""What a data set's address on the Hub begins with."""

_ADDRESS = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+|[\w.-]+)"
    r"(@(?P<revision>refs/[\w.-]+/[\w.-]+|[\w.-]+))?"
    r"(/(?P<inside>.+))?",
    re.ASCII,
)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.bin", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """A data set of the Hub: repository, revision (None is its main branch), and what is meant.

    `inside` is the prefix of a file pair in it, or a folder; None is its one pair at the top.
    """

    repo: str
    revision: str | None = None
    inside: str | None = None

    @classmethod
    def parse(cls, source: str) -> "Address":
        """Read "hub:pile-deduped" or "hub:owner/name@revision/folder/document".

        The revision and what is inside may be left out. ArgumentError if it is nothing of the kind.
        """
        match = _ADDRESS.fullmatch(source.removeprefix(HUB))
        if match is None:
            raise _no_address(source)
        name, inside = match["name"], match["inside"]
        if "/" not in name or name.split("/")[0] in REPOSITORIES:
            corpus, _, below = name.partition("/")
            if corpus not in REPOSITORIES and match["inside"] is not None:
                raise _no_address(source)  # an owner, but what follows is no name
            if corpus not in REPOSITORIES:
                raise ArgumentError(
                    f"no corpus {name!r}; there are {', '.join(REPOSITORIES)}, and every data set "
                    "of the Hub as hub:owner/name"
                )
            name = REPOSITORIES[corpus]
            inside = "/".join(part for part in (below, inside) if part) or None
        return cls(name, match["revision"], inside and inside.strip("/"))

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        inside = "" if self.inside is None else f"/{self.inside}"
        return f"{HUB}{self.repo}{revision}{inside}"


@dataclass(frozen=True, slots=True)
class Listing:
    """The `.idx` and `.bin` files of a data set at one commit."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]

    def to_json(self) -> str:
        """To be kept beside the files."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Listing":
        """What `to_json` wrote. ValueError if it did not."""
        content: Any = json.loads(text)
        try:
            repo, commit, files = content["repo"], content["commit"], content["files"]
            return cls(
                repo, commit, token_files((f["path"], f["size"], f["sha256"]) for f in files)
            )
        except (KeyError, TypeError, HubError) as error:
            raise ValueError(f"no listing of a data set: {error!r}") from error

    def pair(self, inside: str | None) -> tuple[HubFile, tuple[HubFile, ...]]:
        """The .idx and the .bin, or its shards in order, that `inside` means.

        MissingTokensError if there are none, or not all; TokenFileError if the shards' sizes
        cannot be right.
        """
        files = {file.path: file for file in self.files}
        prefix = self._prefix(files, inside)
        index = files[prefix + ".idx"]
        if prefix + ".bin" in files:
            return index, (files[prefix + ".bin"],)
        shards = {}
        for path, file in files.items():
            match = _SHARD.fullmatch(path.removeprefix(prefix)) if path.startswith(prefix) else None
            if match is not None:
                shards[int(match[1]), int(match[2])] = file
        return index, self._checked(prefix, shards)

    def _prefix(self, files: Mapping[str, HubFile], inside: str | None) -> str:
        if inside is not None:
            prefix = inside.removesuffix(".idx").removesuffix(".bin")
            if prefix + ".idx" in files:
                return prefix
        folder = PurePosixPath(inside or "")
        here = [path for path in files if path.endswith(".idx")]
        below = [path for path in here if PurePosixPath(path).parent == folder]
        if len(below) == 1:
            return below[0].removesuffix(".idx")
        where = f"{HUB}{self.repo} at {self.commit[:12]}"
        if not below:
            raise MissingTokensError(
                f"no token data at {inside or 'the top'!r} of {where}; its .idx files are: "
                f"{listed(here) or 'none'}"
            )
        raise MissingTokensError(
            f"{where} has several .idx files at {inside or 'the top'!r}: {listed(below)}. Say "
            f"which, as {HUB}{self.repo}/{below[0].removesuffix('.idx')}"
        )

    def _checked(
        self, prefix: str, shards: Mapping[tuple[int, int], HubFile]
    ) -> tuple[HubFile, ...]:
        where = f"{HUB}{self.repo} at {self.commit[:12]}"
        if not shards:
            raise MissingTokensError(
                f"{where} has {prefix}.idx, but neither {prefix}.bin nor shards "
                f"{prefix}-000NN-of-000MM.bin"
            )
        lasts = {last for _, last in shards}
        last = max(lasts)
        expected = [f"{prefix}-{number:05}-of-{last:05}.bin" for number in range(last + 1)]
        missing = [name for n, name in enumerate(expected) if (n, last) not in shards]
        if missing:
            raise MissingTokensError(
                f"{where} has {len(shards)} shards of {prefix}, but of {last + 1} some are "
                f"missing: {listed(missing)}"
            )
        if len(shards) != last + 1:
            others = [file.path for (_, of), file in sorted(shards.items()) if of != last]
            raise TokenFileError(
                f"{where}/{prefix}.idx", f"there are shards of two sets; also {listed(others)}"
            )
        files = tuple(shards[number, last] for number in range(last + 1))
        full = files[0].size
        for number, file in enumerate(files):
            if file.size != full and (number < last or file.size > full):
                raise TokenFileError(
                    f"{where}/{file.path}",
                    f"the shard has {file.size} bytes, the first one {full}: all but the last "
                    "have the same size, and the last no more",
                    offset=file.size,
                )
        return files


def token_files(entries: Iterable[tuple[object, object, object]]) -> tuple[HubFile, ...]:
    """The .idx and .bin files among (path, size, sha256) of a listing, by path.

    HubError for a path that would lead out of a folder, or for what is no size or sha256.
    """
    files = {}
    for path, size, sha256 in entries:
        if not isinstance(path, str) or not path.endswith((".idx", ".bin")):
            continue
        parts = path.split("/")
        if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
            raise HubError(f"the Hub lists a file with the path {path!r}")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            raise HubError(f"the Hub lists {path} with {size!r} bytes")
        if sha256 is not None and not isinstance(sha256, str):
            raise HubError(f"the Hub lists {path} with the sha256 {sha256!r}")
        files[path] = HubFile(path, size, sha256)
    return tuple(files[path] for path in sorted(files))


def _no_address(source: str) -> ArgumentError:
    _, at, after = source.partition("@")
    wrong = ""
    if at and (not after or after.startswith("/")):
        wrong = "after its @ there is no revision (leave out the @ for the main branch); "
    elif at:
        wrong = f"{after!r} after its @ begins with no revision, or what is before it is no name; "
    return ArgumentError(
        f"{source!r} is no data set of the Hub: {wrong}it is named as hub:owner/name, "
        "hub:owner/name@revision, or with the prefix of a file pair in it, as "
        "hub:owner/name/folder/document"
    )
