"""How far a run is, from its folder alone: what is done, what failed, who works on the rest."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pythia_fast.cache import expanded
from pythia_fast.errors import MissingCheckpointError
from pythia_fast.markup import html_table
from pythia_fast.quantities import counted, duration
from pythia_fast.runs.folder.parts import (
    EVALUATION,
    Failure,
    evaluated_steps,
    no_run_words,
    read_failures,
    read_run,
)
from pythia_fast.runs.folder.present import Present, read_presences
from pythia_fast.runs.results.gaps import Gap, find_gaps, known_steps
from pythia_fast.runs.results.result import SweepResult
from pythia_fast.runs.steps.share import read_shares

_TOLD_AT_MOST = 8  # failures, and what is damaged, in words
_STATES = ("unfinished", "failed", "not begun", "damaged")  # of gaps, as `Counts` has them


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of a metric's steps are what."""

    done: int
    unfinished: int
    failed: int
    not_begun: int
    damaged: int = 0

    @property
    def of(self) -> int:
        """All that are known."""
        return self.done + self.unfinished + self.failed + self.not_begun + self.damaged


@dataclass(frozen=True)
class RunStatus:
    """How far a run was when it was asked.

    Attributes:
        path: the run folder.
        kind: "sweep" or "evaluation".
        model: its name.
        counts: for each metric how many steps are done and how many are not; an evaluation has one,
            "evaluation", since all its tasks come together.
        gaps: what is not done, each with the reason.
        failures: the steps that failed and have not been finished since.
        present: the processes that say that they work there; some may have been killed.
        damaged: what is wrong with results that cannot be read, and what mends it; then with files
            in which processes should say that they work there.
        idle_shares: shares such as "3/16" of steps that are left and on which nobody works, while
            others do on other shares of them; each with its number of steps.
        results_per_s: how many results (a step of a metric) come in a second, since the first of
            those at work began; None where that is not known.
        left_s: how long the rest takes at that rate, in seconds, or None.
    """

    path: Path
    kind: str
    model: str
    counts: dict[str, Counts]
    gaps: tuple[Gap, ...]
    failures: tuple[Failure, ...]
    present: tuple[Present, ...]
    damaged: tuple[str, ...]
    idle_shares: dict[str, int]
    results_per_s: float | None
    left_s: float | None

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is done; not if nobody has asked for a step yet."""
        return not self.gaps and any(counts.of for counts in self.counts.values())

    @property
    def running(self) -> tuple[Present, ...]:
        """Those of whom something was heard lately."""
        return tuple(each for each in self.present if not each.silent)

    def lines(self) -> list[str]:
        """The same in words, a line for each thing."""
        lines = [f"{self.path}: {self.kind} of {self.model}"]
        wide = max(map(len, self.counts), default=0)
        lines += [f"  {name:<{wide}}  {_counted(of)}" for name, of in self.counts.items()]
        lines += _first(
            [f"failed: step {each.step}: {each.error}: {each.message}" for each in self.failures],
            "failed",
        )
        if self.complete:
            return lines
        lines += [f"  {line}" for each in self.present for line in each.lines()]
        lines += _first(self.damaged, "damaged")
        if not self.running:
            lines.append("  nobody works on it")
        lines += [
            f"  share {share}: nobody works on {counted(steps, 'step')} that are left"
            for share, steps in self.idle_shares.items()
        ]
        if self.left_s is not None and self.results_per_s is not None:
            an_hour = self.results_per_s * 3600
            rate = f"{an_hour:,.0f}" if an_hour >= 10 else f"{an_hour:.2g}"
            lines.append(f"  about {duration(self.left_s)} left, at {rate} results an hour")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "model": self.model,
            "complete": self.complete,
            "counts": {name: asdict(counts) for name, counts in self.counts.items()},
            "gaps": [asdict(gap) for gap in self.gaps],
            "failures": [asdict(failure) for failure in self.failures],
            "present": [asdict(each) | {"silent": each.silent} for each in self.present],
            "damaged": list(self.damaged),
            "idle_shares": dict(self.idle_shares),
            "results_per_s": self.results_per_s,
            "left_s": self.left_s,
        }

    def __repr__(self) -> str:
        done = sum(counts.done for counts in self.counts.values())
        of = sum(counts.of for counts in self.counts.values())
        return (
            f"<RunStatus {self.model}: {done} of {of} results, {len(self.failures)} failed, "
            f"{len(self.running)} at work, in {self.path}>"
        )

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        counts = [
            [name, of.done, of.unfinished, of.failed, of.damaged, of.not_begun]
            for name, of in self.counts.items()
        ]
        names = ["metric", "done", "unfinished", "failed", "damaged", "not begun"]
        page = html_table(names, counts, title=repr(self))
        if self.present and not self.complete:
            lines = [[line] for each in self.present for line in each.lines()]
            page += html_table(["at work"], lines)
        if self.damaged and not self.complete:
            page += html_table(["what is damaged"], [[line] for line in self.damaged])
        if self.failures:
            rows = [[each.step, f"{each.error}: {each.message}"] for each in self.failures]
            page += html_table(["step", "why it failed"], rows)
        return page


def status(path: str | Path) -> RunStatus:
    """How far the run in a folder is, of a sweep or of an evaluation, also while others work on it.

        print(pythia_fast.status("runs/70m"))

    Nothing is written. Results that cannot be read are told, and count as not done: all are read.
    MissingCheckpointError if `path` is no run folder; FormatError if its records are damaged, but
    for who works there.
    """
    path = expanded(path)
    run = read_run(path)
    if run is None:
        raise MissingCheckpointError(no_run_words(path))
    if run["specification"].get("kind") == EVALUATION:
        return _of_evaluation(path, run)
    result = SweepResult(path)
    known = known_steps(path, result.failures)
    return _status(result.path, run, "sweep", result.metrics, known, result.gaps, result.failures)


def _of_evaluation(path: Path, run: dict[str, Any]) -> RunStatus:
    """The same of an evaluation; its results are not opened."""
    evaluated = set(evaluated_steps(path))
    failures = tuple(each for each in read_failures(path) if each.step not in evaluated)
    complete = {(step, EVALUATION): (1, 1) for step in evaluated}
    known = known_steps(path, failures) | evaluated
    gaps = find_gaps(known, [EVALUATION], complete, failures, {})
    return _status(path, run, EVALUATION, [EVALUATION], known, gaps, failures)


def _status(
    path: Path,
    run: dict[str, Any],
    kind: str,
    metrics: Sequence[str],
    steps: set[int],
    gaps: tuple[Gap, ...],
    failures: tuple[Failure, ...],
) -> RunStatus:
    states = Counter((gap.metric, gap.state) for gap in gaps)
    counts = {}
    for name in metrics:
        missing_of_it = [states[name, state] for state in _STATES]
        counts[name] = Counts(len(steps) - sum(missing_of_it), *missing_of_it)
    present, damaged = read_presences(path)
    running = [each for each in present if not each.silent]
    left = [gap for gap in gaps if gap.state != "failed"]
    unreadable = [gap.reason.removeprefix("damaged: ") for gap in gaps if gap.state == "damaged"]
    missing = {(gap.step, gap.metric) for gap in gaps}
    done = [(step, name) for step in steps for name in metrics if (step, name) not in missing]
    rate = _rate(running, _finished(path, kind, done))
    return RunStatus(
        path=path,
        kind=kind,
        model=str(run["specification"].get("model", "")),
        counts=counts,
        gaps=gaps,
        failures=failures,
        present=present,
        damaged=(*unreadable, *map(str, damaged)),
        idle_shares=_idle_shares(path, running, {gap.step for gap in left}),
        results_per_s=rate,
        left_s=len(left) / rate if rate and left else None,
    )


def _rate(running: Sequence[Present], finished: Iterable[float]) -> float | None:
    """Results in a second since the first of those at work began.

    All by the clock of the file system, which is one, whatever clocks the machines have.
    """
    if not running:
        return None
    began = min(each.heard - each.elapsed_s for each in running)
    times = [time_s for time_s in finished if time_s > began]
    elapsed_s = max([*times, *(each.heard for each in running)]) - began
    return len(times) / elapsed_s if times and elapsed_s > 0 else None


def _finished(path: Path, kind: str, results: Iterable[tuple[int, str]]) -> Iterator[float]:
    """When each of these results was complete, in seconds since 1970."""
    for step, name in results:
        if kind == "evaluation":
            files = [path / f"results/step={step}.json"]
        else:
            files = list((path / f"parts/step={step}").glob(f"{name}-?????.parquet"))
        yield max((file.stat().st_mtime for file in files), default=0.0)


def _idle_shares(path: Path, running: Sequence[Present], left: set[int]) -> dict[str, int]:
    """Shares with steps that are `left` and nobody at work, of those cuts that somebody has."""
    shares = {each.share for each in running}
    found = {}
    for cut in read_shares(path):
        names = [f"{index}/{len(cut)}" for index in range(1, len(cut) + 1)]
        if not shares & set(names):
            continue
        for name, steps in zip(names, cut, strict=True):
            own = left & set(steps)
            if own and name not in shares:
                found[name] = len(own)
    return found


def _first(words: Sequence[str], what: str) -> list[str]:
    """A line for each of the first, and one for how many more there are."""
    more = len(words) - _TOLD_AT_MOST
    last = [f"  and {more} more {what}"] if more > 0 else []
    return [*(f"  {each}" for each in words[:_TOLD_AT_MOST]), *last]


def _counted(counts: Counts) -> str:
    words = [f"{counts.done} of {counted(counts.of, 'step')} done"]
    for many, what in (
        (counts.unfinished, "unfinished"),
        (counts.failed, "failed"),
        (counts.damaged, "damaged"),
        (counts.not_begun, "not begun"),
    ):
        if many:
            words.append(f"{many} {what}")
    return ", ".join(words)
