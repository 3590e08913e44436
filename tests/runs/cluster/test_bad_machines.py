"""What is one machine's fault, or one step's, ends no sweep: the driver over a played cluster."""

import errno
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from played_workers import IDS, STEPS, Played, quiet, run

from pythia_fast.errors import FormatError, SweepError, WorkerError, WriteError
from pythia_fast.runs.cluster import driver
from pythia_fast.runs.cluster.events import Event, GaveBack, Lost, Silent, Told
from pythia_fast.runs.cluster.messages import Began, Finished, Unable
from pythia_fast.runs.cluster.sent_error import sent
from pythia_fast.runs.dispatching.dispatch import RETRIES, SHUN_AFTER
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.results.result import SweepResult


class Once(Played):
    """What is bad is so the first time only."""

    def _messages(self, order: Any) -> list[Any]:
        known = self.computed[order.step] > 1
        return self._results(order) if known else super()._messages(order)


def shown() -> Progress:
    return Progress(checkpoints=len(STEPS), tokens=len(STEPS) * IDS.size, shown=True)


def without(result: SweepResult, step: int) -> list[dict[str, Any]]:
    return [row for row in result.table.to_pylist() if row["step"] != step]


def test_what_a_worker_cannot_do_any_more_others_do(
    small: Path, known: SweepResult, new: Callable[[], Path], caplog: pytest.LogCaptureFixture
) -> None:
    unable: dict[int, Exception] = {8: WorkerError("SystemExit: 1"), 32: ValueError("arenas")}
    at_once = 0
    for seed in range(24):
        cluster = Once(known.path, random.Random(seed), count=1 + seed % 4, unable=unable)
        asked = cluster.joined
        out = new()
        result = run(small, out, cluster)
        assert result.table.equals(known.table)
        assert not result.failures
        assert quiet(out)
        assert len(cluster.dismissed) == 2
        assert len(set(cluster.dismissed)) == 2
        assert cluster.joined == asked + 2
        assert cluster.computed == Counter(STEPS) + Counter([8, 32])
        said = caplog.text
        caplog.clear()
        assert "is lost, and what it had in hand is done again: WorkerError: SystemExit: 1" in said
        assert "ValueError: arenas" in said
        at_once += cluster.given_back_last
    assert at_once, "no worker gave a step back when it could do no more: the test does not see it"


def test_a_step_that_no_worker_survives_fails_alone_and_says_why(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    for seed in range(4):
        unable: dict[int, Exception] = {4: WorkerError("SystemExit: the metric has enough")}
        cluster = Played(known.path, random.Random(seed), count=1 + seed % 3, unable=unable)
        result = run(small, new(), cluster, "skip")
        (failure,) = result.failures
        assert (failure.step, failure.error) == (4, "WorkerError")
        assert "SystemExit: the metric has enough" in failure.message
        assert cluster.alone == {4: RETRIES + 1}
        assert without(result, 4) == without(known, 4)
        assert set(cluster.computed) == set(STEPS)


FULL = OSError(errno.ENOSPC, "No space left on this node")


def test_what_one_machine_cannot_read_another_does(
    small: Path, known: SweepResult, new: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    for seed in range(8):
        cluster = Played(
            *(known.path, random.Random(seed)),
            count=3,
            failing=dict.fromkeys(STEPS, FULL),
            nodes=("good", "bad", "good"),
            bad="bad",
            together=True,
        )
        progress = shown()
        result = run(small, new(), cluster, progress=progress)
        assert result.table.equals(known.table)
        assert not result.failures
        tokens = len(STEPS) * IDS.size
        assert progress.line().startswith(f"7/7 checkpoints: {tokens}/{tokens} tokens, ")
        there = Counter(step for host, step in cluster.computed_on if host == "bad")
        assert all(times == 1 for times in there.values())
        assert cluster.computed == Counter(STEPS) + there
        said = capsys.readouterr().err
        for step in there:
            assert f"step {step} failed on bad, and is tried elsewhere: [Errno 28] No space" in said
        tried += there.total()
    assert tried


def test_what_no_machine_can_read_fails_with_the_last_ones_name(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    for seed in range(6):
        cluster = Played(
            *(known.path, random.Random(seed)),
            failing={16: FULL},
            nodes=("north", "south"),
            together=True,
        )
        result = run(small, new(), cluster, "skip")
        (failure,) = result.failures
        hosts = [host for host, step in cluster.computed_on if step == 16]
        assert sorted(hosts) == ["north", "south"]
        assert failure.message == f"[Errno 28] No space left on this node; on {hosts[-1]}"
        assert without(result, 16) == without(known, 16)


@pytest.mark.parametrize(
    ("error", "nodes", "note"),
    [
        (FULL, (), ""),
        (ValueError("not a number"), ("north", "south"), "; on (north|south)"),
        (FormatError(Path("weights"), "damaged"), ("north", "south"), "; on (north|south)"),
    ],
)
def test_what_would_be_the_same_elsewhere_is_not_tried_there(
    small: Path,
    known: SweepResult,
    new: Callable[[], Path],
    error: Exception,
    nodes: tuple[str, ...],
    note: str,
) -> None:
    """Of several nodes it is said which it was."""
    cluster = Played(known.path, random.Random(5), failing={0: error}, nodes=nodes, together=True)
    result = run(small, new(), cluster, "skip")
    (failure,) = result.failures
    assert failure.step == 0
    assert cluster.computed == Counter(STEPS)
    head, _, tail = failure.message.partition(str(error))
    assert not head
    assert re.fullmatch(note, tail)


def test_a_machine_where_workers_die_one_after_the_other_is_shunned(
    small: Path, known: SweepResult, new: Callable[[], Path], caplog: pytest.LogCaptureFixture
) -> None:
    shunned = 0
    for seed in range(12):
        cluster = Played(
            *(known.path, random.Random(seed)),
            deadly=STEPS,
            nodes=("good", "bad", "bad", "bad", "bad", "bad"),
            bad="bad",
        )
        result = run(small, new(), cluster)
        assert result.table.equals(known.table)
        deaths = sum(host == "bad" for host, _ in cluster.computed_on)
        assert deaths <= SHUN_AFTER
        said = caplog.text
        caplog.clear()
        assert said.count("on bad is lost") == deaths
        assert said.count(f"on bad is left out: {SHUN_AFTER} workers") == len(cluster.dismissed)
        shunned += len(cluster.dismissed)
    assert shunned


def test_a_silent_worker_is_spoken_of(
    small: Path, known: SweepResult, new: Callable[[], Path], caplog: pytest.LogCaptureFixture
) -> None:
    class Quiet(Played):
        def events(self, patience_s: float) -> list[Event]:
            worker = next(iter(self.orders), None)
            silent: list[Event] = [Silent(worker, 75.2)] if worker else []
            return [*silent, *super().events(patience_s)]

    cluster = Quiet(known.path, random.Random(0), nodes=("north",))
    assert run(small, new(), cluster).table.equals(known.table)
    assert "on north has been silent for 75 s" in caplog.text


def keeping(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int = 100) -> list[str]:
    """So many times no part of step 8 can be kept in a run folder; the names that were tried."""
    keep, tried = RunFolder.keep, []

    def failing(self: RunFolder, name: str, data: bytes) -> Path:
        if "step=8" in name:
            tried.append(name)
            if len(tried) <= times:
                raise error
        return keep(self, name, data)

    monkeypatch.setattr(RunFolder, "keep", failing)
    return tried


@pytest.mark.parametrize("nodes", [(), ("north", "south")])
def test_a_part_that_cannot_be_kept_fails_its_step_only(
    small: Path,
    known: SweepResult,
    new: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    nodes: tuple[str, ...],
) -> None:
    """It is the driver's disk: no machine is blamed, and none tries again."""
    tried = keeping(monkeypatch, WriteError(errno.ENOSPC, "cannot write the part"))
    for seed in range(4):
        tried.clear()
        out = new()
        cluster = Played(known.path, random.Random(seed), nodes=nodes, together=True)
        result = run(small, out, cluster, "skip")
        (failure,) = result.failures
        assert (failure.step, failure.error) == (8, "WriteError")
        assert failure.message == "[Errno 28] cannot write the part"
        assert without(result, 8) == without(known, 8)
        assert cluster.computed == Counter(STEPS)
        assert len(tried) == 1
        assert quiet(out)
    with pytest.raises(SweepError, match=r"step 8 failed: .* cannot write the part"):
        run(small, new(), Played(known.path, random.Random(0)))


def test_what_could_not_be_kept_is_forgotten_with_the_worker_that_sent_it(
    small: Path, known: SweepResult, new: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one sends it again."""

    class Broken(Played):
        def _messages(self, order: Any) -> list[Any]:
            results = self._results(order)
            if order.step == 8 and self.computed[8] == 1:
                return [*results[:-1], Unable(sent(WorkerError("it has enough")))]
            return results

    tried = keeping(monkeypatch, WriteError(errno.ENOSPC, "cannot write the part"), times=1)
    result = run(small, new(), Broken(known.path, random.Random(0)))
    assert result.table.equals(known.table)
    assert len(tried) == 2


def test_it_is_said_that_nobody_is_there(
    small: Path,
    known: SweepResult,
    new: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before the first worker, and after the last: every PATIENCE_S, and not while one is there."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: clock.now_s))

    class Slow(Played):
        waited = 0

        def events(self, patience_s: float) -> list[Event]:
            clock.now_s += 10 if self.orders else 1
            if not self.orders and self.waited < (60 if self.joined == 1 else 95):
                self.waited += 1
                return []
            return super().events(patience_s)

    cluster = Slow(
        *(known.path, random.Random(0)),
        count=1,
        deadly=(4,),
        nodes=("first", "later"),
        bad="first",
    )
    assert run(small, new(), cluster).table.equals(known.table)
    lines = [record.getMessage() for record in caplog.records]
    lost = next(place for place, line in enumerate(lines) if "worker 1 on first is lost" in line)
    waits = [place for place, line in enumerate(lines) if line == "nobody is there"]
    assert [place > lost for place in waits] == [False, False, True]


def test_where_nobody_is_left_and_nobody_comes_the_sweep_ends(
    small: Path, known: SweepResult, new: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = new()
    for lose in ("deadly", "unable", "early"):
        cluster = Played(
            *(known.path, random.Random(0)),
            deadly=STEPS if lose == "deadly" else (),
            unable=dict.fromkeys(STEPS, WorkerError("it was killed")) if lose == "unable" else None,
        )
        monkeypatch.setattr(cluster, "replace", lambda: None)
        if lose == "early":
            names = itertools.repeat("its machine is gone: it was killed")
            monkeypatch.setattr(
                cluster,
                "_join",
                lambda c=cluster, n=names: [Lost(c._starting.pop(), next(n), False)],
            )
        with pytest.raises(
            WorkerError, match=r"no worker is left, and no more are asked for: .*it was killed"
        ):
            run(small, out, cluster, "skip")
        assert quiet(out)
    rest = Played(known.path, random.Random(1))
    assert run(small, out, rest).table.equals(known.table)


def test_what_is_said_twice_of_a_lost_worker_happens_once(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    """It says that it can do no more, and is gone; what it would say after that is not heard."""
    for seed in range(8):

        class Dying(Played):
            dead = ""

            def events(self, patience_s: float) -> list[Event]:
                events = super().events(patience_s)
                told = next((each for each in events if isinstance(each, Told)), None)
                if told is None or self.dead:
                    return events
                self.dead = told.worker
                step = self.orders[self.dead][0].step if self.orders[self.dead] else STEPS[0]
                last = [Unable(sent(MemoryError("x"))), Began(0, step), Finished(0, step, "abc")]
                gave = GaveBack(self.dead, 0, step, True)
                lost = Lost(self.dead, "it was killed", True)
                return [*events, Told(self.dead, last), gave, lost]

        cluster = Dying(known.path, random.Random(seed), count=1 + seed % 3)
        asked = cluster.joined
        assert run(small, new(), cluster).table.equals(known.table)
        assert cluster.dismissed == [cluster.dead]
        assert cluster.joined == asked + 1


FULL_MEMORY = MemoryError("12b takes 24 GiB")


def test_a_model_that_no_machine_can_hold_fails_at_once_and_says_why(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    for seed in range(6):
        names = ("north", "south")[: 1 + seed % 2]
        cluster = Played(
            *(known.path, random.Random(seed)), count=2 * len(names), unfit=FULL_MEMORY, nodes=names
        )
        asked = cluster.joined
        result = run(small, new(), cluster, "skip")
        assert [each.step for each in result.failures] == list(STEPS)
        for failure in result.failures:
            assert failure.error == "MemoryError"
            assert re.fullmatch("12b takes 24 GiB; on (north|south)", failure.message)
        assert cluster.joined == asked, "another worker was started for it"
        assert cluster.computed.total() <= asked, "a worker was asked again"
        with pytest.raises(SweepError, match=r"failed: MemoryError: 12b takes 24 GiB; on "):
            run(
                *(small, new()),
                Played(known.path, random.Random(seed), unfit=FULL_MEMORY, nodes=names),
            )


def test_a_model_that_one_machine_cannot_hold_is_computed_on_others(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    """Also if that one is the first to come."""
    for seed in range(12):
        cluster = Played(
            *(known.path, random.Random(seed)),
            count=4,
            unfit=FULL_MEMORY,
            nodes=("low", "high"),
            bad="low",
            deaths=seed % 3,
        )
        result = run(small, new(), cluster)
        assert result.table.equals(known.table)
        there = [step for host, step in cluster.computed_on if host == "low"]
        assert len(there) <= 2 + seed % 3, "a worker of the machine was asked again"
        assert cluster.joined <= 4 + seed % 3


def test_who_cannot_hold_a_model_that_another_of_its_machine_holds_gets_no_more_of_it(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    class Narrow(Played):
        def _go_on(self, worker: str) -> list[Event]:
            self._unfit = FULL_MEMORY if worker == "worker 2" else None
            return super()._go_on(worker)

    for seed in range(8):
        cluster = Narrow(known.path, random.Random(seed), count=2, together=True)
        assert run(small, new(), cluster).table.equals(known.table)
        assert cluster.joined == 2
        assert cluster.computed.total() <= len(STEPS) + 1
