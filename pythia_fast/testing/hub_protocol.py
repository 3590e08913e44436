"""The Hub's HTTP protocol, as huggingface_hub 1.33 and 2.4 speak it: what downloads need of it."""

import contextlib
import json
import re
import socket
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from pythia_fast.testing.body import Body, Pace
from pythia_fast.testing.fault import Fault
from pythia_fast.testing.hub_state import HubState, Request, Sort
from pythia_fast.testing.repository import Commit, Repository, RepositoryFile

_WHAT = "refs|tree|paths-info|revision"
_API = re.compile(  # old repositories have no owner
    r"/api/(models|(?P<datasets>datasets))/"
    rf"(?P<repo>[^/]+(/(?!({_WHAT})(/|$))[^/]+)?)"
    rf"(/(?P<what>{_WHAT})(/(?P<revision>[^/]+)(/(?P<below>.*))?)?)?"
)
_RESOLVE = re.compile(
    r"/(?P<repo>(datasets/)?[^/]+(/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)
_CDN = re.compile(r"/cdn/(?P<sha256>[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(?!-$)(\d*)-(\d*)")


class HubHttpServer(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1; every connection has a thread."""

    daemon_threads = True
    request_queue_size = 512  # clients open several connections at once

    def __init__(self, state: HubState, port: int = 0) -> None:
        self.state = state
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection when its thread is done with it."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Wake the threads that wait on idle connections, so that they end."""
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client may have hung up already
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong, unless it is only a client that hung up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the head and the body go out one by one
    server: HubHttpServer

    def setup(self) -> None:
        """Begin with a connection."""
        super().setup()
        self._pace = Pace(self.server.state.bytes_per_s)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error: the hub keeps its own log."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        raw = urlsplit(self.path).path
        path = unquote(raw)
        sort = _sort_of(path)
        disturbance = state.disturbance
        self._chance = (
            disturbance.draw(
                self.command,
                file=sort in ("resolvers", "stored"),
                redirect=sort == "resolvers" and self._is_redirected(raw),
            )
            if disturbance is not None
            else None
        )
        self._limit_headers: Mapping[str, str] = {}
        state.closing.wait(state.latency_s)
        if fault := self._take(path, "hang"):
            self.close_connection = True
            state.closing.wait(fault.hang_s)
        elif fault := self._take(path, "fail"):
            self._error(fault.status, "", "a fault made for a test", fault.headers)
        elif self._is_too_much(sort):
            self._error(429, "", "too many requests", {"Content-Type": "application/json"})
        elif match := _CDN.fullmatch(path):
            self._send_stored(match["sha256"])
        elif match := _API.fullmatch(raw):
            self._answer_api(_unquoted(match), body)
        elif match := _RESOLVE.fullmatch(raw):
            found = _unquoted(match)
            self._resolve(str(found["repo"]), str(found["revision"]), str(found["path"]))
        else:
            self._error(404, "", f"no such address: {path}")

    def _take(self, path: str, *kinds: str) -> Fault | None:
        return self.server.state.take_fault(path, *kinds, chance=self._chance)

    def _is_redirected(self, raw: str) -> bool:
        """Whether the answer only says where the file is, or that it is not there."""
        match = _RESOLVE.fullmatch(raw)
        if match is None:
            return True
        found = _unquoted(match)
        repository = self.server.state.repositories.get(str(found["repo"]))
        commit = repository and repository.find(str(found["revision"]))
        file = commit.files.get(str(found["path"])) if commit else None
        return file is None or (self.server.state.redirect and file.large)

    def _is_too_much(self, sort: Sort) -> bool:
        limit = self.server.state.limits.get(sort)
        if limit is None:
            return False
        allowed, self._limit_headers = limit.take()
        return not allowed

    def _answer_api(self, match: Mapping[str, str | None], body: bytes) -> None:
        prefix = "datasets/" if match["datasets"] else ""
        repository = self._repository(f"{prefix}{match['repo']}")
        if repository is None:
            return
        what = match["what"]
        if what == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit.name}
                for name, commit in repository.branches.items()
            ]
            self._send_json({"branches": branches, "converts": [], "tags": []})
            return
        commit = self._commit(repository, match["revision"] or "main")
        if commit is None:
            return
        if what == "tree":
            query = parse_qs(urlsplit(self.path).query)
            recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            entries = commit.listing(match["below"] or "", recursive=recursive)
            if entries is None:
                self._error(404, "EntryNotFound", f"no folder {match['below']}")
                return
            self._send_page(entries, int(query.get("cursor", ["0"])[0]))
        elif what == "paths-info":
            wanted = parse_qs(body.decode()).get("paths", [])
            self._send_json([commit.files[p].listing() for p in wanted if p in commit.files])
        else:
            blobs = parse_qs(urlsplit(self.path).query).get("blobs", ["false"])[0].lower()
            siblings = [
                file.sibling() if blobs in ("true", "1") else {"rfilename": path}
                for path, file in commit.files.items()
            ]
            about = {"id": match["repo"], "modelId": match["repo"], "sha": commit.name}
            self._send_json({**about, "siblings": siblings, "private": False, "tags": []})

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        repository = self._repository(repo)
        commit = repository and self._commit(repository, revision)
        if not commit:
            return
        file = commit.files.get(path)
        if file is None:
            headers = {"X-Repo-Commit": commit.name}
            self._error(404, "EntryNotFound", f"no file {path} in {revision}", headers)
            return
        headers = {"X-Repo-Commit": commit.name, "ETag": f'"{file.etag}"'}
        if self.server.state.redirect and file.large:
            self._send_redirect(file, headers)
        else:
            self._send_file(file, headers)

    def _send_redirect(self, file: RepositoryFile, headers: dict[str, str]) -> None:
        location = f"http://localhost:{self.server.server_port}/cdn/{file.sha256}"
        linked = {"X-Linked-Etag": headers.pop("ETag"), "X-Linked-Size": str(file.size)}
        headers = {**headers, **linked, "Location": location, "Content-Length": "0"}
        if fault := self._take(unquote(self.path), "redirect headers"):
            headers |= fault.headers
        self._send_head(302, headers)

    def _send_stored(self, sha256: str) -> None:
        file = self.server.state.stored.get(sha256)
        if file is None:
            self._error(404, "", f"nothing stored as {sha256}")
        else:
            self._send_file(file, {"ETag": f'"{sha256}"'})

    def _send_file(self, file: RepositoryFile, headers: dict[str, str]) -> None:
        headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        begin, end, status = 0, file.size, 200
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match and not self._take(file.path, "ignore_range"):
            begin, end, status = *_bounds(match[1], match[2], file.size), 206
            if begin >= end:
                self._error(416, "", "no such range", {"Content-Range": f"bytes */{file.size}"})
                return
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
        headers["Content-Length"] = str(end - begin)
        if fault := self._take(file.path, "headers"):
            headers |= fault.headers
        self._send_head(status, headers)
        if self.command != "HEAD":
            self._send_body(file, begin, end)

    def _send_body(self, file: RepositoryFile, begin: int, end: int) -> None:
        state = self.server.state
        fault = self._take(file.path, "corrupt", "cut", "stall", "slow", "drip")
        body = Body(self.connection, state.closing, self._pace, state.wire)
        with file.source.open("rb") as source:
            if fault is None:
                body.send(source, begin, end)
            elif not body.send_spoiled(source, begin, end, fault):
                self.close_connection = True

    def _repository(self, repo: str) -> Repository | None:
        repository = self.server.state.repositories.get(repo)
        if repository is None:
            self._error(404, "RepoNotFound", f"no repository {repo}")
        return repository

    def _commit(self, repository: Repository, revision: str) -> Commit | None:
        commit = repository.find(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"no revision {revision}")
        return commit

    def _send_page(self, entries: list[dict[str, Any]], begin: int) -> None:
        end = begin + self.server.state.page_entries
        headers = {}
        if end < len(entries):
            address = urlsplit(self.path)
            query = {**parse_qs(address.query), "cursor": [str(end)]}
            host = self.headers.get("Host", "")
            url = f"http://{host}{address.path}?{urlencode(query, doseq=True)}"
            headers = {"Link": f'<{url}>; rel="next"'}
        self._send_json(entries[begin:end], headers)

    def _send_json(self, content: Any, headers: Mapping[str, str] | None = None) -> None:
        text = json.dumps(content).encode()
        if self._take(unquote(urlsplit(self.path).path), "truncate"):
            text = text[: len(text) // 2]
        self._send_text(200, text, {"Content-Type": "application/json", **(headers or {})})

    def _error(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self._send_text(
            status, json.dumps({"error": message}).encode(), {**named, **(headers or {})}
        )

    def _send_text(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._send_head(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        request = Request(
            self.command,
            unquote(urlsplit(self.path).path),
            self.headers.get("Range"),
            status,
            host=self.headers.get("Host", "").partition(":")[0],
            authorized="Authorization" in self.headers,
        )
        self.server.state.log(request)
        self.send_response(status, _phrase(status))
        for name, value in {**self._limit_headers, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _unquoted(match: re.Match[str]) -> Mapping[str, str | None]:
    """The parts of an address. Quoted, a "/" within a revision is none between the parts."""
    return {name: part and unquote(part) for name, part in match.groupdict().items()}


def _phrase(status: int) -> str:
    """Its words, also where the status is one of Cloudflare's and in no standard."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _sort_of(path: str) -> Sort:
    """How the Hub counts a request."""
    if _CDN.fullmatch(path):
        return "stored"
    if "/resolve/" in path:
        return "resolvers"
    return "api" if path.startswith("/api/") else "pages"


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """Where a range begins and ends: "first-last", "first-", or "-count", the last bytes."""
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size
