"""Who uses what: what processes tell each other, and when one has ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast.store import leases
from pythia_fast.store.identity import Identity
from pythia_fast.store.leases import Lease

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
    theirs.wait_for(9)
    (claims,) = ours.others()
    assert (claims.using, claims.fetching, claims.waiting_bytes) == ({BLOB}, {OTHER: 7}, 9)
    assert claims.identity == Identity.of_this_process()
    theirs.drop(BLOB)
    assert ours.others()[0].using == {BLOB}  # it was in use twice
    theirs.drop(BLOB)
    theirs.fetched(OTHER)
    theirs.wait_for(0)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    lease = Lease(tmp_path)
    lease.use(BLOB)
    (record,) = tmp_path.iterdir()
    first = json.loads(record.read_bytes())["beats"]
    record.unlink()  # somebody took it for ended: it is not
    while not record.exists():
        pass
    assert json.loads(record.read_bytes())["beats"] > first
    lease.drop_later((BLOB,), lease.holder)  # as a garbage collector may, anywhere
    while record.exists():
        pass


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


def test_a_forked_child_holds_nothing(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.use(BLOB)
    before = lease.holder
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        empty = not lease.claims.using and lease.holder != before
        os.write(writer, b"1" if empty else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        assert answer.read() == b"1"
    assert Lease(tmp_path).others()[0].using == {BLOB}
