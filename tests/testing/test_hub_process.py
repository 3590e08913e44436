"""The same Hub in a process of its own, and from the shell."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from pythia_fast.errors import ArgumentError
from pythia_fast.testing import HubServer

CONTENT = b"weights" * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "series/step0").mkdir(parents=True)
    (tmp_path / "series/step0/model.safetensors").write_bytes(CONTENT)
    return tmp_path / "series/step0"


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()


def test_it_does_what_the_other_does(folder: Path, tmp_path: Path) -> None:
    with HubServer({"me/tiny": {"main": folder}}, redirect=True).in_process() as hub:
        assert hub.pid != os.getpid()
        url = f"{hub.url}/me/tiny/resolve/main/model.safetensors"
        assert read(url) == CONTENT
        assert [request.status for request in hub.requests] == [302, 200]
        assert hub.count("/cdn/", method="GET") == 1
        hub.corrupt("model")
        assert sum(a != b for a, b in zip(read(url), CONTENT, strict=True)) == 1
        assert hub.spoiled == {"corrupt": 1}
        hub.limit("api", 0)
        with pytest.raises(urllib.error.HTTPError) as caught:
            read(f"{hub.url}/api/models/me/tiny/refs")
        caught.value.close()
        hub.limit("api", None)
        (tmp_path / "new").mkdir()
        commit = hub.publish("me/tiny", "step1", tmp_path / "new")
        branches = HfApi(endpoint=hub.url).list_repo_refs("me/tiny").branches
        assert {b.name: b.target_commit for b in branches}["step1"] == commit
        hub.disturb(1.0, kinds=("corrupt",))
        assert read(url) != CONTENT
        assert hub.remove("me/tiny", "step1") is None
        with pytest.raises(ArgumentError, match="has no 'step1'"):
            hub.remove("me/tiny", "step1")
        pid = hub.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="in_process"):
        _ = hub.url


def test_what_is_wrong_with_the_repositories_is_said_here(tmp_path: Path) -> None:
    taken = HubServer({"me/tiny": {"main": tmp_path}})
    with taken:
        port = int(taken.url.rpartition(":")[2])
        hub = HubServer({}, port=port).in_process()
        with pytest.raises(OSError, match="in use"), hub:
            pass


def test_a_child_that_has_ended_is_told(folder: Path) -> None:
    with HubServer({"me/tiny": {"main": folder}}).in_process() as hub:
        os.kill(hub.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="has ended"):
            _ = hub.requests


def test_the_child_ends_with_its_parent(folder: Path) -> None:
    program = f"""
import os
from pythia_fast.testing import HubServer
hub = HubServer({{"me/tiny": {{"main": {str(folder)!r}}}}}).in_process().__enter__()
print(hub.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False
    )  # which returns when the child, too, has closed standard output
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0


def test_from_the_shell(folder: Path) -> None:
    command = [sys.executable, "-m", "pythia_fast.testing.hub", f"me/tiny={folder.parent}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        url = server.stdout.readline().strip()
        for branch in ("main", "step0"):
            assert read(f"{url}/me/tiny/resolve/{branch}/model.safetensors") == CONTENT
        server.send_signal(signal.SIGINT)
        assert (server.wait(20), server.stderr.read()) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny"], "OWNER/NAME=FOLDER"),
        (["me/tiny=/nowhere"], "no folder"),
        (["me/tiny={here}", "--bytes-per-s", "0"], "more than 0"),
    ],
)
def test_wrong_arguments_from_the_shell(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pythia_fast.testing.serve import main

    with pytest.raises(SystemExit) as caught:
        main([argument.format(here=folder) for argument in arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
