"""Who works in a run folder: told while it does, gone afterwards, never in the way of the work."""

import errno
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pythia_fast.runs.folder.presence import AT_ONCE_S, Presence
from pythia_fast.runs.folder.present import Present, WorkerState, read_presences
from pythia_fast.runs.folder.run_folder import RunFolder

Until = Callable[[Callable[[], bool]], None]
QUICK_S = 0.01


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", {"model": "x"})


def records(folder: RunFolder) -> list[Path]:
    return sorted((folder.path / "working").iterdir())


def present(folder: RunFolder) -> tuple[Present, ...]:
    found, damaged = read_presences(folder.path)
    assert damaged == ()
    return found


def only(folder: RunFolder) -> Present:
    (found,) = present(folder)
    return found


def test_it_tells_who_does_what_and_nothing_is_left(folder: RunFolder, until: Until) -> None:
    with Presence(folder, "ray", share="3/16", every_s=QUICK_S) as presence:
        presence.at("a", [8, 16])
        presence.at("b", [])
        presence.at("c", [1])
        presence.gone("c")
        presence.gone("never there")
        presence.count(done=2, of=5)
        until(lambda: any(each.of for each in present(folder)))
        seen = only(folder)
        assert (seen.engine, seen.share, seen.done, seen.of) == ("ray", "3/16", 2, 5)
        assert (seen.host, seen.pid, seen.runs) == (platform.node(), os.getpid(), True)
        assert [(each.name, each.steps) for each in seen.workers] == [("a", (8, 16)), ("b", ())]
        (path,) = (file for file in records(folder) if file.suffix == ".json")
        beat = json.loads(path.read_bytes())["beat"]
        until(lambda: json.loads(path.read_bytes())["beat"] > beat + 2)
    assert records(folder) == []
    assert present(folder) == ()


def test_time_is_counted_from_when_a_worker_began_its_step(folder: RunFolder, until: Until) -> None:
    def state() -> WorkerState:
        return only(folder).workers[0]

    with Presence(folder, "local", every_s=QUICK_S) as presence:
        presence.at("a", [1])
        until(lambda: bool(present(folder)) and bool(only(folder).workers))
        until(lambda: state().since_s > 0.2)
        presence.at("a", [1, 2])
        until(lambda: state().steps == (1, 2))
        assert state().since_s > 0.2
        before_s = time.monotonic()
        presence.at("a", [2])
        until(lambda: state().steps == (2,))
        assert state().since_s <= time.monotonic() - before_s


def test_what_cannot_be_told_is_said_once_and_the_work_goes_on(
    folder: RunFolder, tmp_path: Path, until: Until
) -> None:
    (folder.path / "working").symlink_to(tmp_path)
    said: list[str] = []
    with Presence(folder, "local", say=said.append, every_s=QUICK_S) as presence:
        until(lambda: bool(said))
        beat = presence._beat
        until(lambda: presence._beat > beat + 2)
    (words,) = said
    assert "symbolic link" in words
    assert [path.name for path in tmp_path.iterdir()].count("working") == 0
    assert present(folder) == ()


def test_errors_of_the_work_are_not_swallowed(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="work"), Presence(folder, "local"):
        raise ValueError("work")
    assert records(folder) == []
    assert not [each for each in threading.enumerate() if each.name == "pythia_fast-presence"]


KILLED = """
import sys, time
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.folder.presence import AT_ONCE_S, Presence
with Presence(RunFolder(__import__("pathlib").Path(sys.argv[1]), {"model": "x"}), "local"):
    time.sleep(600)
"""


def test_a_killed_process_is_seen_to_be_dead_and_the_next_one_clears_it_away(
    folder: RunFolder, until: Until
) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder.path)])
    try:
        until(lambda: any(not each.begins for each in present(folder)))
        assert only(folder).runs is True
    finally:
        process.kill()
        process.wait()
    assert only(folder).runs is False
    assert only(folder).silent
    with Presence(folder, "local"):
        until(lambda: [each.pid for each in present(folder)] == [os.getpid()])
    assert records(folder) == []


def written(folder: RunFolder, **changes: Any) -> Path:
    """The record of a process of another machine."""
    record = {
        "format": 1,
        "engine": "local",
        "host": "node7",
        "boot": "b",
        "namespace": "n",
        "pid": 12,
        "started": 3,
        "mark": "0" * 24,
        "share": None,
        "elapsed_s": 5.0,
        "every_s": 10.0,
        "done": 0,
        "of": 3,
        "workers": [],
    }
    (folder.path / "working").mkdir(exist_ok=True)
    path = folder.path / "working" / f"{changes.pop('name', 'node7-12-ab')}.json"
    path.write_text(json.dumps(record | changes))
    return path


def test_of_another_machine_only_the_silence_is_known(folder: RunFolder) -> None:
    path = written(folder)
    assert only(folder).runs is None
    assert not only(folder).silent
    then = time.time() - 720
    os.utime(path, (then, then))
    assert only(folder).silent
    assert only(folder).age_s == pytest.approx(720, abs=60)
    with Presence(folder, "local"):
        pass
    assert records(folder) == [path]  # it may be alive, where the network is slow
    os.utime(path, (then + 10_000, then + 10_000))  # that machine's clock is ahead
    assert only(folder).age_s == 0.0
    os.utime(path, (then - 3600, then - 3600))
    with Presence(folder, "local"):
        pass
    assert records(folder) == []


def test_shares_are_in_the_order_of_their_numbers(folder: RunFolder) -> None:
    for share in ("10/16", "2/16", "1/16"):
        written(folder, name=share.replace("/", "-"), share=share)
    assert [each.share for each in present(folder)] == ["1/16", "2/16", "10/16"]


def test_workers_are_in_the_order_of_their_numbers(folder: RunFolder) -> None:
    names = ["worker 10 on b", "worker 2 on b", "cpu", "worker 1 on c", "2", "worker 1 on b"]
    written(folder, workers=[{"name": name, "steps": [1], "since_s": 1} for name in names])
    assert [each.name for each in only(folder).workers] == [
        "2",
        "cpu",
        "worker 1 on b",
        "worker 1 on c",
        "worker 2 on b",
        "worker 10 on b",
    ]


def steps_told(folder: RunFolder) -> list[tuple[int, ...]]:
    return [worker.steps for each in present(folder) for worker in each.workers]


def test_a_step_that_begins_is_told_at_once(
    folder: RunFolder, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the next time that the process would say that it still works."""
    monkeypatch.setattr("pythia_fast.runs.folder.presence._LEAST_S", QUICK_S)
    with Presence(folder, "local", every_s=3600) as presence:
        until(lambda: bool(present(folder)))
        for step in (1, 2):
            presence.at("a", [step])
            until(lambda told=[(step,)]: steps_told(folder) == told)
        presence.gone("a")
        until(lambda: steps_told(folder) == [])


def test_what_changes_often_is_not_told_each_time(folder: RunFolder, until: Until) -> None:
    with Presence(folder, "local", every_s=3600) as presence:
        for step in range(1000):
            presence.at("a", [step])
        until(lambda: steps_told(folder) == [(999,)])
        assert not only(folder).silent
        assert presence._beat < 100


def test_when_it_was_last_heard_of_is_told_once_a_beat_is_missed(
    folder: RunFolder, now_s: float
) -> None:
    path = written(folder, workers=[{"name": "cpu", "steps": [4], "since_s": 1.0}])
    os.utime(path, (now_s, now_s))
    assert "last heard of" not in only(folder).lines()[0]
    os.utime(path, (now_s - 13, now_s - 13))
    (line,) = only(folder).lines()
    assert "0 of 3 steps finished, last heard of 13 s ago; cpu: step 4 for 14 s" in line


def test_without_workers_it_waits_its_turn(folder: RunFolder) -> None:
    written(folder, of=1)
    assert only(folder).lines() == ["node7, process 12: 0 of 1 step finished; waits its turn"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 1}', '{"format": 2}', '{"format": 1, "workers": 3}', "[" * 10_000],
)
def test_a_record_that_is_none_is_told_and_does_not_stop_a_sweep(
    folder: RunFolder, text: str
) -> None:
    path = written(folder)
    path.write_text(text)
    found, (damaged,) = read_presences(folder.path)
    assert found == ()
    assert "remove it" in str(damaged)
    assert str(path) in str(damaged)
    said: list[str] = []
    with Presence(folder, "local", say=said.append):
        pass
    assert said == []
    assert records(folder) == [path]


@pytest.mark.parametrize(
    "changes",
    [{"workers": [{"name": "a", "steps": ["x"], "since_s": 1}]}, {"pid": "?"}, {"every_s": None}],
)
def test_a_record_with_senseless_values_is_told(folder: RunFolder, changes: dict[str, Any]) -> None:
    written(folder, **changes)
    written(folder, name="another")
    (other,), (damaged,) = read_presences(folder.path)
    assert other.id == "another"
    assert "remove it" in str(damaged)


def test_nobody_is_there_without_records(tmp_path: Path) -> None:
    assert read_presences(tmp_path) == ((), ())


def test_whoever_comes_later_begins_elsewhere(folder: RunFolder, until: Until) -> None:
    with ExitStack() as stack:
        beginnings = []
        for number in range(5):
            presence = stack.enter_context(Presence(folder, "local"))
            until(lambda number=number: len(present(folder)) == number + 1)
            beginnings.append(presence.beginning())
            time.sleep(2 * AT_ONCE_S)
        assert beginnings == [0.0, 0.5, 0.25, 0.75, 0.125]
        other = stack.enter_context(Presence(folder, "local", share="1/2"))
        assert other.beginning() == 0.0
    assert Presence(folder, "local").beginning() == 0.0


def test_two_that_begin_at_once_begin_apart(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes until they can be seen."""
    post = folder.post

    def slow(name: str, content: bytes) -> None:
        time.sleep(0.2)
        post(name, content)

    monkeypatch.setattr(folder, "post", slow)
    for _ in range(3):
        with (
            Presence(folder, "local") as one,
            Presence(folder, "local") as other,
            ThreadPoolExecutor(2) as pool,
        ):
            assert sorted(pool.map(Presence.beginning, (one, other))) == [0.0, 0.5]


@pytest.mark.parametrize("later_s", [0.0, 0.01, AT_ONCE_S, 0.15, 0.16, 0.17, 0.19, 0.21, 0.3])
@pytest.mark.parametrize("first_is_slow", [False, True])
def test_they_do_where_one_is_seen_long_after_it_has_written(
    folder: RunFolder, first_is_slow: bool, later_s: float
) -> None:
    """A file's time is that of its writing; others see it when it has its name."""
    slow = RunFolder(folder.path, {"model": "x"})

    def post(name: str, content: bytes) -> None:
        file = folder.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        hidden = file.with_suffix(".hidden")
        hidden.write_bytes(content)
        time.sleep(0.2)
        hidden.replace(file)

    slow.post = post  # type: ignore[method-assign]
    one, other = (
        Presence(each, "local") for each in ((slow, folder)[:: 1 if first_is_slow else -1])
    )
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        stack.enter_context(one)
        first = pool.submit(one.beginning)
        time.sleep(later_s)
        stack.enter_context(other)
        second = other.beginning()
        assert sorted((first.result(), second)) == [0.0, 0.5]


def test_who_cannot_be_seen_does_not_wait_for_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str, content: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folder, "post", refused)
    monkeypatch.setattr("pythia_fast.runs.folder.presence.SEEN_WITHIN_S", 3600.0)
    with Presence(folder, "local") as presence:
        assert presence.beginning() == 0.0


def test_who_has_ended_without_a_word_is_not_there(folder: RunFolder, until: Until) -> None:
    with Presence(folder, "local"):
        until(lambda: len(present(folder)) == 1)
        (file,) = (each for each in records(folder) if each.suffix == ".json")
        record = json.loads(file.read_bytes())
        os.utime(file, (1, 1))
        assert record["workers"] == []
        assert Presence(folder, "local").beginning() == 0.0
