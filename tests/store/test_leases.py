"""Who uses what: what processes tell each other, and when one has ended."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pythia_fast.errors import ReadError
from pythia_fast.identity import Identity
from pythia_fast.store import leases
from pythia_fast.store.leases import Lease

Until = Callable[[Callable[[], bool]], None]
BLOB = "a" * 64
OTHER = "b" * 64

HOLDER = """
import sys, pathlib
from pythia_fast.store.leases import Lease
lease = Lease(pathlib.Path(sys.argv[1]))
lease.use("a" * 64)
lease.fetch({"b" * 64: 1000})
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with a lease in `tmp_path`; it ends when its standard input does."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def told(record: Path, **identity: object) -> None:
    """Let a lease be that of another process."""
    content = json.loads(record.read_bytes())
    content["identity"] |= identity
    record.write_text(json.dumps(content))


def test_others_see_what_is_used_and_fetched(tmp_path: Path) -> None:
    ours, theirs = Lease(tmp_path), Lease(tmp_path)
    assert ours.others() == []
    theirs.use(BLOB)
    theirs.use(BLOB)
    theirs.fetch({OTHER: 7})
    theirs.wait_for(9, "one")
    theirs.wait_for(4, "another")
    assert ours.others()[0].waiting_bytes == 13
    theirs.wait_for(0, "another")
    (claims,) = ours.others()
    assert (claims.using, claims.fetching, claims.waiting_bytes) == ({BLOB}, {OTHER: 7}, 9)
    assert claims.identity == Identity.of_this_process()
    theirs.drop(BLOB)
    assert ours.others()[0].using == {BLOB}  # it was in use twice
    theirs.drop(BLOB)
    theirs.fetched(OTHER)
    theirs.wait_for(0, "one")
    assert ours.others() == []
    assert list(tmp_path.iterdir()) == []  # who uses nothing leaves nothing


def test_one_that_ends_leaves_nothing(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    assert Lease(tmp_path).others()[0].using == {BLOB}
    holder.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_killed_counts_no_more_at_once(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    lease = Lease(tmp_path)
    assert lease.others()[0].identity.pid == holder.pid
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # ended, and its parent has not asked
    assert Path(f"/proc/{holder.pid}").exists()
    assert lease.others() == []
    assert list(tmp_path.iterdir()) == []


def test_another_process_of_the_same_number(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    (record,) = tmp_path.iterdir()
    told(record, started=1)
    assert Lease(tmp_path).others() == []


@pytest.mark.parametrize("where", ["boot", "namespace"])
def test_one_of_another_machine_has_ended_after_long_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    ours, theirs = Lease(tmp_path), Lease(tmp_path)
    theirs.use(BLOB)
    (record,) = tmp_path.iterdir()
    told(record, **{where: "elsewhere"}, pid=1 << 30)
    now = 1000.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: now)
    assert len(ours.others()) == 1
    now += leases.SILENT_S - 1
    assert len(ours.others()) == 1
    told(record, host="moved")  # it has shown itself
    now += leases.SILENT_S - 1
    assert len(ours.others()) == 1
    now += leases.SILENT_S + 1
    assert ours.others() == []
    assert not record.exists()


def test_it_shows_itself_as_long_as_it_holds_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    lease = Lease(tmp_path)
    lease.use(BLOB)
    record = tmp_path / f"{lease.holder}.json"
    first = json.loads(record.read_bytes())["beats"]
    record.unlink()  # somebody took it for ended: it is not
    until(record.exists)
    assert json.loads(record.read_bytes())["beats"] > first
    lease.drop_later((BLOB,), lease.holder)  # as a garbage collector may, anywhere
    until(lambda: not record.exists())


def test_what_is_no_lease_counts_for_nothing(tmp_path: Path) -> None:
    ours, theirs = Lease(tmp_path), Lease(tmp_path)
    theirs.use(BLOB)
    (record,) = tmp_path.iterdir()
    good = json.loads(record.read_bytes())
    for bad in (
        *(b"", b"[]", b"{", b"\xff", b"[" * 100_000),
        *(json.dumps(good | each).encode() for each in ({"using": ["../x"]}, {"identity": 5})),
        *(json.dumps(good | each).encode() for each in ({"fetching": []}, {"using": 5})),
    ):
        record.write_bytes(bad)
        assert ours.others() == []


def test_one_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = Lease(tmp_path), Lease(tmp_path)
    theirs.use(BLOB)
    (record,) = tmp_path.iterdir()
    content = record.read_bytes()
    record.unlink()
    record.mkdir()  # even root cannot read this
    with pytest.raises(ReadError, match=r"cannot read .*json: Is a directory; .* nothing may be"):
        ours.others()
    record.rmdir()
    record.write_bytes(content)
    assert ours.others()[0].using == {BLOB}
    answers = iter([OSError(errno.ESTALE, "Stale file handle"), content])

    def stale(_: Path) -> bytes:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        assert ours.others()[0].using == {BLOB}
    (tmp_path / "file").touch()
    with pytest.raises(ReadError, match="Not a directory"):
        Lease(tmp_path / "file").others()


FORK = """
import os, sys, pathlib, threading
from pythia_fast.store import leases
lease = leases.Lease(pathlib.Path(sys.argv[1]))
leases.threading.Thread.start = lambda self: None  # Python warns of forks beside threads
lease.use("a" * 64)
before = lease.holder
child = os.fork()
if child == 0:
    print(not lease.claims.using and lease.holder != before, flush=True)
    sys.exit()  # with all that a process does at its end
print(os.waitpid(child, 0)[1], len(list(pathlib.Path(sys.argv[1]).iterdir())))
"""


def test_a_forked_child_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", FORK, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (found.stdout, found.stderr) == ("True\n0 1\n", "")
    assert list(tmp_path.iterdir()) == []
