"""What the Hub has listed, kept: the files of a commit are true for ever, branches as last seen."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pythia_fast.errors import WriteError
from pythia_fast.hub.files import HubFile
from pythia_fast.store.places import DIGEST, Places, read_record, write_record

_BRANCHES = "branches"

_log = logging.getLogger("pythia_fast")


class Listings:
    """The lists of a store. One that cannot be written is only asked for again."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def files(self, repo: str, commit: str) -> tuple[HubFile, ...] | None:
        """The files of a commit, or None if they have not been listed."""
        return _files(read_record(self._places.listing(repo, commit)))

    def keep_files(self, repo: str, commit: str, files: tuple[HubFile, ...]) -> None:
        """Keep what the Hub has answered."""
        rows = [
            {"path": file.path, "size": file.size, "sha256": file.sha256, "git_oid": file.git_oid}
            for file in files
        ]
        self._keep(repo, commit, {"files": rows})

    def branches(self, repo: str) -> dict[str, str] | None:
        """The commits that branches were at when last asked for, or None if they never were."""
        record = read_record(self._places.listing(repo, _BRANCHES))
        branches = (record or {}).get("branches")
        if not isinstance(branches, dict):
            return None
        return {str(name): str(commit) for name, commit in branches.items()}

    def keep_branches(self, repo: str, branches: Mapping[str, str], *, endpoint: str) -> None:
        """Keep what the Hub has answered."""
        self._keep(repo, _BRANCHES, {"endpoint": endpoint, "branches": dict(branches)})

    def every(self) -> Iterator[tuple[str, str, HubFile]]:
        """(repository, commit, file) of all that was listed."""
        for path in sorted(self._places.listings.glob("*/*.json")):
            if path.stem != _BRANCHES:
                for file in _files(read_record(path)) or ():
                    yield path.parent.name.replace("--", "/", 1), path.stem, file

    def _keep(self, repo: str, name: str, content: Mapping[str, Any]) -> None:
        try:
            write_record(self._places.listing(repo, name), content)
        except WriteError as error:
            _log.debug("a listing of %s is not kept: %s", repo, error)


def _files(record: dict[str, Any] | None) -> tuple[HubFile, ...] | None:
    """The files in a record; None if it is none of ours."""
    rows = (record or {}).get("files")
    if not isinstance(rows, list):
        return None
    files = []
    for row in rows:
        if not isinstance(row, dict):
            return None
        path, size, sha256, git_oid = (
            row.get(key) for key in ("path", "size", "sha256", "git_oid")
        )
        if not isinstance(path, str) or "/" in path or type(size) is not int or size < 0:
            return None
        if not _is_digest(sha256) or not _is_digest(git_oid and f"git-{git_oid}"):
            return None
        files.append(HubFile(path, size, sha256, git_oid))
    return tuple(files)


def _is_digest(text: Any) -> bool:
    return text is None or (isinstance(text, str) and DIGEST.fullmatch(text) is not None)
