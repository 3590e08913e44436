"""The branches of a repository of models, and the files of a commit. Every answer is checked.

Each is one request, but for a folder of more files than the Hub puts on a page. What is listed of a
commit is true for ever; a branch may move.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urljoin

from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not by its stubs
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from pythia_fast.errors import ArgumentError, HubError, MissingCheckpointError
from pythia_fast.hub.asking import COMMIT, LIBRARY, SHA256, ask, origin, require_online
from pythia_fast.hub.files import HubFile

ANSWER_S = 20.0
"""A server that sends nothing for so long is given up, and asked again."""
MOST_PAGES = 100
ANSWER_LIMIT_BYTES = 2**24
"""A page of the Hub's has a thousand files, and takes a few hundred kB."""

_GIT_OID = COMMIT
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def list_branches(repo: str, *, endpoint: str) -> dict[str, str]:
    """The branches of a repository of models and the commits that they are at, in one request.

    MissingCheckpointError if there is no such repository, HubError if the Hub does not answer, or
    answers nonsense; OfflineError with HF_HUB_OFFLINE.
    """
    url = f"{endpoint}/api/models/{_quoted(repo)}/refs"
    answer = _ask(repo, "its branches", url, endpoint)[0]
    refs = answer.get("branches") if isinstance(answer, dict) else None
    if not isinstance(refs, list):
        raise HubError(f"{repo}: the Hub answers with no list of branches")
    branches: dict[str, str] = {}
    for ref in refs:
        name, commit = _fields(ref, "name", "targetCommit")
        if not isinstance(name, str) or not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise HubError(f"{repo}: the Hub says that the branch {name!r} is at {commit!r}")
        if branches.setdefault(name, commit) != commit:
            raise HubError(f"{repo}: the Hub says of the branch {name!r} that it is at two commits")
    return branches


def list_files(repo: str, commit: str, *, endpoint: str) -> tuple[HubFile, ...]:
    """The files at the top of a repository of models at a commit, sorted by name.

    Names are plain, sizes and hashes well-formed, and no name is there twice. The errors of
    `list_branches`, and MissingCheckpointError if there is no such commit.
    """
    if not COMMIT.fullmatch(commit):
        raise ArgumentError(f"{commit!r} is no commit: 40 digits 0-9a-f are")
    url = f"{endpoint}/api/models/{_quoted(repo)}/tree/{commit}"
    files: dict[str, HubFile] = {}
    for page in _ask(repo, f"the files of commit {commit}", url, endpoint):
        if not isinstance(page, list):
            raise HubError(f"{repo}: the Hub answers with no list of the files of commit {commit}")
        for entry in page:
            (kind,) = _fields(entry, "type")
            if kind != "file":
                continue
            file = _file(repo, commit, entry)
            if file.path in files:
                raise HubError(f"{repo}: the Hub lists {file.path} of commit {commit} twice")
            files[file.path] = file
    return tuple(files[path] for path in sorted(files))


def _file(repo: str, commit: str, entry: Any) -> HubFile:
    path, size, oid, lfs = _fields(entry, "path", "size", "oid", "lfs")
    sha256 = None
    if lfs is not None:
        sha256, lfs_size = _fields(lfs, "oid", "size")
        if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            raise HubError(
                f"{repo}: the Hub lists {path!r} of commit {commit} with sha256 {sha256!r}"
            )
        if lfs_size != size:
            raise HubError(
                f"{repo}: the Hub lists {path!r} of commit {commit} with two sizes, {size!r} and "
                f"{lfs_size!r}"
            )
    if not isinstance(path, str) or not _is_plain(path):
        raise HubError(f"{repo}: the Hub lists a file of commit {commit} as {path!r}")
    if type(size) is not int or not 0 <= size < 2**63:
        raise HubError(f"{repo}: the Hub lists {path!r} of commit {commit} with the size {size!r}")
    if not isinstance(oid, str) or not _GIT_OID.fullmatch(oid):
        raise HubError(f"{repo}: the Hub lists {path!r} of commit {commit} with git's id {oid!r}")
    return HubFile(path, size, sha256, oid)


def _is_plain(name: str) -> bool:
    """Whether it is a file's own name, which cannot lead elsewhere."""
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()


def _fields(entry: Any, *names: str) -> tuple[Any, ...]:
    """The values of an object of JSON, None for those it lacks, and for all if it is no object."""
    return tuple(entry.get(name) if isinstance(entry, dict) else None for name in names)


def _quoted(repo: str) -> str:
    if not _REPO.fullmatch(repo):
        raise ArgumentError(f"{repo!r} is no repository: write it as owner/name")
    return quote(repo)


def _ask(repo: str, what: str, url: str, endpoint: str) -> list[Any]:
    """The pages of an answer, as JSON."""
    require_online(f"{repo}: {what}")
    return ask(
        repo,
        what,
        lambda: list(_pages(url, endpoint)),
        endpoint=endpoint,
        missing=MissingCheckpointError,
    )


def _pages(url: str, endpoint: str) -> Iterator[Any]:
    headers = build_hf_headers(library_name=LIBRARY)
    for _ in range(MOST_PAGES):
        # a redirect elsewhere loses the token: the client sees to that
        with get_session().stream(
            "GET", url, headers=headers, timeout=ANSWER_S, follow_redirects=True
        ) as answer:
            hf_raise_for_status(answer)
            content = _content(answer.iter_bytes(), url)
        yield _json(content)
        following = _next(answer.links)
        if following is None:
            return
        url = urljoin(url, following)
        if origin(url) != origin(endpoint):
            raise HubError(f"{endpoint} answers that its next page is at {url}")
    raise HubError(f"{url}: more than {MOST_PAGES} pages")


def _content(chunks: Iterator[bytes], url: str) -> bytes:
    """All of an answer, if it is of a size that can be."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > ANSWER_LIMIT_BYTES:
            raise HubError(f"{url} answers with more than {ANSWER_LIMIT_BYTES} bytes")
    return bytes(content)


def _json(body: bytes) -> Any:
    """What an answer says. OSError, at which it is asked for again, if it ends too early."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise OSError(f"{len(body)} bytes that are no JSON: {error}") from error


def _next(links: Mapping[str | None, Mapping[str, str]]) -> str | None:
    return links.get("next", {}).get("url")
