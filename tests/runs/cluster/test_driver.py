"""The driver over a cluster that is played: whatever happens in whatever order, all is computed."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from played_workers import HELLO, IDS, STEPS, Played, quiet, run

from pythia_fast.errors import (
    FormatError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
    WorkerError,
)
from pythia_fast.runs.cluster.events import Event
from pythia_fast.runs.cluster.messages import Fatal, Hello
from pythia_fast.runs.cluster.sent_error import sent
from pythia_fast.runs.dispatching.dispatch import RETRIES
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.results.result import SweepResult


@pytest.mark.timeout(300)
def test_whatever_happens_all_is_computed(
    small: Path, known: SweepResult, tmp_path_factory: pytest.TempPathFactory
) -> None:
    backs = Counter[str]()

    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        count=st.integers(1, 9),
        deaths=st.integers(0, 6),
        there=st.sets(st.sampled_from(STEPS)),
    )
    def check(seed: int, count: int, deaths: int, there: set[int]) -> None:
        out = tmp_path_factory.mktemp("out") / "run"
        shutil.copytree(known.path, out)
        for step in set(STEPS) - there:
            shutil.rmtree(out / f"parts/step={step}")
        cluster = Played(known.path, random.Random(seed), count=count, deaths=deaths)
        tokens = len(STEPS) * IDS.size
        progress = Progress(checkpoints=len(STEPS), tokens=tokens, shown=False)
        result = run(small, out, cluster, progress=progress)
        assert progress.line().startswith(f"7/7 checkpoints: {tokens}/{tokens} tokens, ")
        assert result.table.equals(known.table)
        assert result.sequences.equals(known.sequences)
        assert not result.failures
        assert cluster.computed.keys() == set(STEPS) - there
        for step, times in cluster.computed.items():
            assert times <= 1 + cluster.lost[step], "computed again, and nobody had lost it"
        assert quiet(out)
        backs["given"] += cluster.given_back

    check()
    for seed in range(20):  # what is drawn above may have worked without it
        cluster = Played(known.path, random.Random(seed), count=5, together=True)
        run(small, tmp_path_factory.mktemp("out") / "run", cluster)
        backs["given"] += cluster.given_back
    assert backs["given"], "no step was ever given back: the test does not see that"


def test_a_step_that_kills_fails_alone(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    for seed in range(8):
        cluster = Played(known.path, random.Random(seed), count=1 + seed % 3, deadly=(4,))
        result = run(small, new(), cluster, "skip")
        (failure,) = result.failures
        assert (failure.step, failure.error) == (4, "WorkerError")
        assert "it was killed" in failure.message
        assert cluster.alone == {4: RETRIES + 1}
        assert set(cluster.computed) == set(STEPS)
        rows = [row for row in known.table.to_pylist() if row["step"] != 4]
        assert [row for row in result.table.to_pylist() if row["step"] != 4] == rows


def test_failures_are_raised_or_skipped(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    failing: dict[int, Exception] = {8: FormatError(Path("weights"), "it is damaged")}
    out = new()
    with pytest.raises(SweepError, match=r"step 8 failed: .*it is damaged"):
        run(small, out, Played(known.path, random.Random(0), failing=failing))
    assert quiet(out)
    result = run(small, out, Played(known.path, random.Random(1), failing=failing), "skip")
    assert [(each.step, each.error) for each in result.failures] == [(8, "FormatError")]
    again = run(small, out, Played(known.path, random.Random(2)))
    assert again.table.equals(known.table)
    assert not again.failures


def test_what_no_worker_can_do_ends_the_sweep(
    small: Path, known: SweepResult, new: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Played(known.path, random.Random(0))
    error = RunMismatchError("the tokens are others")
    monkeypatch.setattr(cluster, "_messages", lambda order: [Fatal(sent(error))])
    out = new()
    with pytest.raises(RunMismatchError, match="the tokens are others"):
        run(small, out, cluster, "skip")
    assert quiet(out)


def test_an_interrupt_says_what_is_kept(
    small: Path, known: SweepResult, new: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Played(known.path, random.Random(0))
    events = cluster.events

    def pressed(patience_s: float) -> list[Event]:
        if len(cluster.computed) == 4:
            raise KeyboardInterrupt
        return events(patience_s)

    monkeypatch.setattr(cluster, "events", pressed)
    out = new()
    with pytest.raises(SweepInterruptedError, match=r"[1-3] of 7 steps are finished and kept"):
        run(small, out, cluster)
    assert quiet(out)
    rest = Played(known.path, random.Random(0))
    assert run(small, out, rest).table.equals(known.table)
    assert 0 < len(rest.computed) < len(STEPS)


def test_a_worker_with_another_precision_is_left_out(
    small: Path,
    known: SweepResult,
    new: Callable[[], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mixed(Played):
        def _join(self) -> list[Event]:
            events = super()._join()
            self.hello = HELLO
            return events

    cluster = Mixed(known.path, random.Random(0))
    cluster.hello = Hello("node", "amx", ("split-bf16",))
    assert run(small, new(), cluster).table.equals(known.table)
    assert "on amx is left out" in caplog.text
    assert len(cluster.dismissed) == 1


def test_no_worker_of_the_right_precision_is_left(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    cluster = Played(known.path, random.Random(0), count=2)
    cluster.hello = Hello("node", "amx", ("split-bf16",))
    with pytest.raises(WorkerError, match="no worker is left that computes in float32"):
        run(small, new(), cluster)
    assert len(cluster.dismissed) == 2


def test_a_step_that_another_finishes_meanwhile_is_not_ordered(
    small: Path, known: SweepResult, new: Callable[[], Path]
) -> None:
    out = new()

    class Elsewhere(Played):
        def _join(self) -> list[Event]:
            if not self.orders:  # before the first order
                shutil.copytree(known.path / "parts/step=16", out / "parts/step=16")
            return super()._join()

    cluster = Elsewhere(known.path, random.Random(0))
    assert run(small, out, cluster).table.equals(known.table)
    assert set(cluster.computed) == set(STEPS) - {16}
