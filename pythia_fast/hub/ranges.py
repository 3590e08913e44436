"""Parts of files on the Hub, each exactly as long as asked for, or an error.

The Hub answers a request for a large file with an address elsewhere that is good for an hour or so.
It is kept and used until it is refused, so that most ranges take one request and not two.
"""

import re
from collections.abc import Callable
from urllib.parse import urljoin

from huggingface_hub import hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not by its stubs
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from pythia_fast.errors import HubError, PythiaFastError
from pythia_fast.hub import body
from pythia_fast.hub.asking import LIBRARY, SHA256, ask, origin, require_online
from pythia_fast.hub.files import HubFile

MOST_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EXPIRED = frozenset({401, 403, 404, 410})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)


def _never() -> bool:
    return False


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
        self.missing = missing
        self._repo_type = repo_type
        headers = build_hf_headers(library_name=LIBRARY) | {"Accept-Encoding": "identity"}
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._locations: dict[str, str] = {}

    def read(self, file: HubFile, begin: int, end: int) -> bytearray:
        """The bytes [begin, end) of a file, which must lie in it.

        HubError if they cannot be had, or if the answer is not what was asked for; a server that
        sends the whole file instead is stopped. `missing` if the file is gone.
        """
        data = bytearray(end - begin)
        filled = 0

        def take(view: memoryview) -> None:
            nonlocal filled
            data[filled : filled + len(view)] = view
            filled += len(view)

        what = f"bytes {begin} to {end - 1} of {file.path}"
        ask(
            self.repo,
            what,
            lambda: self.stream(file, begin + filled, end, take),
            endpoint=self.endpoint,
            missing=self.missing,
        )
        return data

    def stream(
        self,
        file: HubFile,
        begin: int,
        end: int,
        take: body.Take,
        *,
        stopped: Callable[[], bool] = _never,
    ) -> None:
        """Give the bytes [begin, end) of a file to `take`, in order, as they come; tried once.

        What has come is handed on before an error, so that the caller can go on behind it. Errors
        are the client's or the connection's own, HubError for an answer that is not what was asked
        for, and `body.StoppedError` after `stopped()`, but not before the server says something, or
        has been silent for `body.STALL_S`. A view is good only until `take` returns.
        """
        require_online(f"{self.repo}: bytes {begin} to {end - 1} of {file.path}")
        location = self._locations.get(file.path)
        if location is not None:
            try:
                return self._follow(location, file, begin, end, take, stopped)
            except HubError:
                self._locations.pop(file.path, None)
                raise
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
        return self._follow(url, file, begin, end, take, stopped)

    def _follow(
        self,
        url: str,
        file: HubFile,
        begin: int,
        end: int,
        take: body.Take,
        stopped: Callable[[], bool],
    ) -> None:
        first = url
        for _ in range(MOST_REDIRECTS + 1):
            with get_session().stream(
                "GET",
                url,
                headers=self._headers_for(url) | {"range": f"bytes={begin}-{end - 1}"},
                follow_redirects=False,
                timeout=body.STALL_S,
            ) as answer:
                self._check_file(answer, file)
                if answer.status_code not in _REDIRECTS:
                    hf_raise_for_status(answer)
                    self._check_range(answer, file, begin, end)
                    if url != first:
                        self._locations[file.path] = url
                    self._body(answer, file, end - begin, take, stopped)
                    return
                url = urljoin(url, answer.headers.get("location", ""))
        raise HubError(f"{self._name(file)}: more than {MOST_REDIRECTS} redirects, now to {url}")

    def _headers_for(self, url: str) -> dict[str, str]:
        """The user's token is for the Hub alone, not for where it keeps its files."""
        if origin(url) == origin(self.endpoint):
            return dict(self._headers)
        return {name: value for name, value in self._headers.items() if name != "authorization"}

    def _check_file(self, answer: body.Answer, file: HubFile) -> None:
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

    def _check_range(self, answer: body.Answer, file: HubFile, begin: int, end: int) -> None:
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

    def _body(
        self,
        answer: body.Answer,
        file: HubFile,
        nbytes: int,
        take: body.Take,
        stopped: Callable[[], bool],
    ) -> None:
        try:
            body.receive(answer, nbytes, take, stopped=stopped)
        except body.TooLongError as error:
            raise HubError(f"{self._name(file)}: {error}") from error

    def _name(self, file: HubFile) -> str:
        return f"{self.repo}: {file.path} of commit {self.commit[:12]}"
