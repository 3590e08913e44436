"""What the Hub says of branches and files is checked before anybody believes it."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

from pythia_fast.errors import ArgumentError, HubError, MissingCheckpointError
from pythia_fast.hub import revisions as module
from pythia_fast.hub.revisions import list_branches, list_files
from pythia_fast.testing import HubServer

REPO = "me/x"
COMMIT, OTHER = "a" * 40, "b" * 40
FILE: dict[str, Any] = {
    "type": "file",
    "path": "x.bin",
    "size": 5,
    "oid": OTHER,
    "lfs": {"oid": "c" * 64, "size": 5},
}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=4)
    yield
    stamina.set_testing(False)


class Answers:
    """A server that gives these answers in turn, each JSON and a Link header or None."""

    def __init__(self) -> None:
        self.queue: list[tuple[Any, str | None]] = []
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""

    def give(self, answer: Any, link: str | None = None) -> None:
        self.queue.append((answer, link))


@pytest.fixture
def answers() -> Iterator[Answers]:
    answers = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            answers.requests.append((self.path, self.headers.get("Authorization")))
            answer, link = answers.queue.pop(0)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(200)
            if link is not None:
                self.send_header("Link", f'<{link}>; rel="next"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        answers.url = f"http://127.0.0.1:{server.server_port}"
        yield answers
        server.shutdown()
        thread.join()


def test_branches_and_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "x.bin").write_bytes(name.encode())
        (tmp_path / name / "below/y.bin").write_bytes(b"not at the top")
        (tmp_path / name / "config.json").write_bytes(b"{}")
    with HubServer({REPO: {"step0": tmp_path / "one", "step1": tmp_path / "two"}}) as hub:
        branches = list_branches(REPO, endpoint=hub.url)
        assert sorted(branches) == ["step0", "step1"]
        files = list_files(REPO, branches["step1"], endpoint=hub.url)
        assert len(hub.requests) == 2
        stored = hub._state.repositories[REPO].branches["step1"].files
    assert [file.path for file in files] == ["config.json", "x.bin"]
    for file in files:
        assert file.size == stored[file.path].size
        assert file.git_oid == stored[file.path].git_oid
        assert file.sha256 == (stored[file.path].sha256 if file.path == "x.bin" else None)


def test_what_is_not_there(tmp_path: Path) -> None:
    with HubServer({REPO: {"step0": tmp_path}}) as hub:
        with pytest.raises(MissingCheckpointError, match="me/other is not on the Hub"):
            list_branches("me/other", endpoint=hub.url)
        with pytest.raises(MissingCheckpointError, match=f"the files of commit {COMMIT} is not on"):
            list_files(REPO, COMMIT, endpoint=hub.url)
        hub.fail("refs", status=503, times=2)
        assert list(list_branches(REPO, endpoint=hub.url)) == ["step0"]
        hub.fail("refs", status=503, times=4)
        with pytest.raises(HubError, match="me/x: its branches could not be had"):
            list_branches(REPO, endpoint=hub.url)


@pytest.mark.parametrize("repo", ["x", "me/x/y", "../x", "me/x?y", "me/x\n"])
def test_no_name_of_a_repository(repo: str) -> None:
    with pytest.raises(ArgumentError, match="is no repository"):
        list_branches(repo, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize("commit", ["main", "", "A" * 40, "a" * 41, "a" * 40 + "\n"])
def test_no_commit(commit: str) -> None:
    with pytest.raises(ArgumentError, match="is no commit"):
        list_files(REPO, commit, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"branches": {}},
        {"branches": [7]},
        {"branches": [{"name": "main"}]},
        {"branches": [{"name": 7, "targetCommit": COMMIT}]},
        {"branches": [{"name": "main", "targetCommit": "main"}]},
        {
            "branches": [
                {"name": "main", "targetCommit": COMMIT},
                {"name": "main", "targetCommit": OTHER},
            ]
        },
        b"<html>log in to the hotel's network</html>",
    ],
)
def test_branches_that_make_no_sense(answers: Answers, answer: Any) -> None:
    attempts = 4 if isinstance(answer, bytes) else 1  # no JSON may be half of one
    for _ in range(attempts):
        answers.give(answer)
    with pytest.raises(HubError, match=REPO) as caught:
        list_branches(REPO, endpoint=answers.url)
    assert len(answers.requests) == attempts
    assert ("JSONDecodeError" in str(caught.value)) == isinstance(answer, bytes)


@pytest.mark.parametrize(
    "entry",
    [
        *({**FILE, "path": path} for path in ("", ".", "..", "a/b", "/x", "a\0", "a\n", None, 7)),
        *({**FILE, "size": size} for size in (-1, 5.0, "5", True, None, 2**63, 6)),
        *({**FILE, "oid": oid} for oid in (None, 7, "B" * 40, "b" * 39)),
        *({**FILE, "lfs": lfs} for lfs in (7, {}, {"oid": "c" * 63, "size": 5})),
        {**FILE, "lfs": {"oid": "c" * 64, "size": 6}},
    ],
)
def test_files_that_make_no_sense(answers: Answers, entry: Any) -> None:
    answers.give([entry])
    with pytest.raises(HubError, match="me/x: the Hub lists"):
        list_files(REPO, COMMIT, endpoint=answers.url)


@pytest.mark.parametrize("answer", [{}, 7, None, {"error": "x"}])
def test_no_list_of_files(answers: Answers, answer: Any) -> None:
    answers.give(answer)
    with pytest.raises(HubError, match="no list of the files"):
        list_files(REPO, COMMIT, endpoint=answers.url)


def test_a_name_twice(answers: Answers) -> None:
    answers.give([FILE, {**FILE, "oid": COMMIT}])
    with pytest.raises(HubError, match=r"lists x\.bin of commit a+ twice"):
        list_files(REPO, COMMIT, endpoint=answers.url)


def test_pages(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    answers.give([FILE, {"type": "directory", "path": "d"}], f"{answers.url}/more?cursor=1")
    answers.give([{**FILE, "path": "a.bin"}])
    files = list_files(REPO, COMMIT, endpoint=answers.url)
    assert [file.path for file in files] == ["a.bin", "x.bin"]
    assert answers.requests == [
        (f"/api/models/{REPO}/tree/{COMMIT}", "Bearer hf_secret"),
        ("/more?cursor=1", "Bearer hf_secret"),
    ]


def test_a_page_elsewhere_is_not_asked_for(answers: Answers) -> None:
    answers.give([FILE], "http://localhost:9/more")
    with pytest.raises(HubError, match="its next page is at http://localhost:9/more"):
        list_files(REPO, COMMIT, endpoint=answers.url)


def test_pages_without_end(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAGES", 3)
    for _ in range(3):
        answers.give([], "/more")
    with pytest.raises(HubError, match="more than 3 pages"):
        list_files(REPO, COMMIT, endpoint=answers.url)


def test_a_listing_that_ends_too_early_is_asked_for_again(answers: Answers) -> None:
    whole = json.dumps([FILE]).encode()
    for length in (1, len(whole) // 2, len(whole) - 1):
        answers.give(whole[:length])
    answers.give(whole)
    assert [file.path for file in list_files(REPO, COMMIT, endpoint=answers.url)] == ["x.bin"]


def test_a_listing_that_always_ends_too_early_is_an_error(answers: Answers) -> None:
    for _ in range(4):
        answers.give(b'[{"path": "x.bin"')
    with pytest.raises(HubError, match="JSONDecodeError"):
        list_files(REPO, COMMIT, endpoint=answers.url)


def test_an_answer_of_any_size_is_not_taken(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = json.dumps([FILE]).encode()
    monkeypatch.setattr(module, "ANSWER_LIMIT_BYTES", len(whole))
    answers.give(whole)
    assert len(list_files(REPO, COMMIT, endpoint=answers.url)) == 1
    answers.give(b" " + whole)
    with pytest.raises(HubError, match=f"{COMMIT} answers with more than {len(whole)} bytes"):
        list_files(REPO, COMMIT, endpoint=answers.url)
    assert len(answers.requests) == 2, "it is not tried again"
