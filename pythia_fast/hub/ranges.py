"""Parts of files on the Hub, each exactly as long as asked for, or an error.

The Hub answers a request for a large file with an address elsewhere that is good for an hour or so.
It is kept and used until it is refused, so that most ranges take one request and not two.
"""

import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from huggingface_hub import hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not by its stubs
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from pythia_fast.errors import HubError, PythiaFastError
from pythia_fast.hub.asking import LIBRARY, SHA256, ask
from pythia_fast.hub.files import HubFile

STALL_S = 20.0
"""A server that sends nothing for so long is given up, and asked again."""
SLOWEST_BYTES_PER_S = 2**12
"""So is one that sends a range more slowly than this, once STALL_S have passed."""
MOST_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EXPIRED = frozenset({401, 403, 404, 410})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)


class _Answer(Protocol):
    """Of the client's response, what is used here; its class is httpx's or httpx2's."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def iter_raw(self) -> Iterator[bytes]: ...


class RangeReader:
    """Reads ranges of the files of a repository at one commit. Threads may share it.

    `repo_type` is "model" or "dataset"; `missing` is raised where a file is gone.
    """

    def __init__(
        self,
        repo: str,
        commit: str,
        *,
        endpoint: str,
        repo_type: str,
        missing: type[PythiaFastError],
    ) -> None:
        self.repo = repo
        self.commit = commit
        self.endpoint = endpoint
        self._repo_type, self._missing = repo_type, missing
        headers = build_hf_headers(library_name=LIBRARY) | {"Accept-Encoding": "identity"}
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._locations: dict[str, str] = {}

    def read(self, file: HubFile, begin: int, end: int) -> bytearray:
        """The bytes [begin, end) of a file, which must lie in it.

        HubError if they cannot be had, or if the answer is not what was asked for; a server that
        sends the whole file instead is stopped. `missing` if the file is gone.
        """
        return ask(
            self.repo,
            f"bytes {begin} to {end - 1} of {file.path}",
            partial(self._read, file, begin, end),
            endpoint=self.endpoint,
            missing=self._missing,
        )

    def _read(self, file: HubFile, begin: int, end: int) -> bytearray:
        location = self._locations.get(file.path)
        if location is not None:
            try:
                return self._follow(location, file, begin, end)
            except HfHubHTTPError as error:
                if error.response.status_code not in _EXPIRED:
                    raise
                self._locations.pop(file.path, None)
        url = hf_hub_url(
            self.repo,
            file.path,
            repo_type=self._repo_type,
            revision=self.commit,
            endpoint=self.endpoint,
        )
        return self._follow(url, file, begin, end)

    def _follow(self, url: str, file: HubFile, begin: int, end: int) -> bytearray:
        first = url
        for _ in range(MOST_REDIRECTS + 1):
            with get_session().stream(
                "GET",
                url,
                headers=self._headers_for(url) | {"range": f"bytes={begin}-{end - 1}"},
                follow_redirects=False,
                timeout=STALL_S,
            ) as answer:
                self._check_file(answer, file)
                if answer.status_code not in _REDIRECTS:
                    hf_raise_for_status(answer)
                    self._check_range(answer, file, begin, end)
                    body = self._body(answer, file, begin, end)
                    if url != first:
                        self._locations[file.path] = url
                    return body
                url = urljoin(url, answer.headers.get("location", ""))
        raise HubError(f"{self._name(file)}: more than {MOST_REDIRECTS} redirects, now to {url}")

    def _headers_for(self, url: str) -> dict[str, str]:
        """The user's token is for the Hub alone, not for where it keeps its files."""
        if _origin(url) == _origin(self.endpoint):
            return dict(self._headers)
        return {name: value for name, value in self._headers.items() if name != "authorization"}

    def _check_file(self, answer: _Answer, file: HubFile) -> None:
        """What the Hub says of the file must be what it has listed."""
        size = answer.headers.get("x-linked-size")
        if size is not None and size != str(file.size):
            raise HubError(
                f"{self._name(file)}: the Hub lists {file.size} bytes and now speaks of {size}"
            )
        commit = answer.headers.get("x-repo-commit", self.commit)
        if commit != self.commit:
            raise HubError(f"{self._name(file)}: the Hub answers with commit {commit}")
        etag = answer.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
        if file.sha256 is not None and SHA256.fullmatch(etag) and etag != file.sha256:
            raise HubError(
                f"{self._name(file)}: the Hub lists the sha256 {file.sha256} and now speaks of "
                f"{etag}"
            )

    def _check_range(self, answer: _Answer, file: HubFile, begin: int, end: int) -> None:
        """Look at the head of the answer before any of its body is read."""
        asked = f"asked for bytes {begin} to {end - 1}"
        length = answer.headers.get("content-length")
        shown = answer.headers.get("content-range", "")
        if answer.status_code == 200:
            if (begin, end) != (0, file.size) or length not in (None, str(file.size)):
                raise HubError(
                    f"{self._name(file)}: {asked}, the server sends the whole file "
                    f"({length or 'an unknown number of'} bytes); it does not know ranges, or "
                    "something on the way does not"
                )
        elif answer.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(shown)
            if match is None or (int(match[1]), int(match[2])) != (begin, end - 1):
                raise HubError(f"{self._name(file)}: {asked}, got {shown!r}")
            if match[3] not in ("*", str(file.size)):
                raise HubError(
                    f"{self._name(file)}: the Hub lists {file.size} bytes, but the file that is "
                    f"served has {match[3]}"
                )
            if length not in (None, str(end - begin)):
                raise HubError(f"{self._name(file)}: {asked}, got {length} bytes")
        else:
            raise HubError(f"{self._name(file)}: {asked}, got status {answer.status_code}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise HubError(
                f"{self._name(file)}: {asked}, got them as {answer.headers['content-encoding']}"
            )

    def _body(self, answer: _Answer, file: HubFile, begin: int, end: int) -> bytearray:
        body = bytearray(end - begin)
        filled = 0
        stop_s = time.monotonic() + STALL_S + len(body) / SLOWEST_BYTES_PER_S
        for chunk in answer.iter_raw():
            if filled + len(chunk) > len(body):
                raise HubError(f"{self._name(file)}: got more than the {len(body)} bytes asked for")
            body[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
            if filled < len(body) and time.monotonic() > stop_s:
                raise TimeoutError(f"{filled} of {len(body)} bytes came")
        if filled < len(body):
            raise OSError(f"the answer ends after {filled} of {len(body)} bytes")
        return body

    def _name(self, file: HubFile) -> str:
        return f"{self.repo}: {file.path} of commit {self.commit[:12]}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
