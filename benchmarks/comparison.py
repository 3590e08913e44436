"""Comparisons: ours and its peers in turn, in one process, on one machine.

Each round runs every peer once and then each of ours, so that a change of the machine's speed
meets all of them alike. What is reported is the median of the rounds' ratios, peer's time over
ours; above 1, ours is faster.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from roofline import Roofline, Work

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: rounds within `budget_s` for each comparison, `min_rounds` at least."""

    name: str
    budget_s: float
    min_rounds: int
    most_rounds: int = 100

    def rounds(self, round_s: float) -> int:
        """How many rounds of `round_s` each fit."""
        fitting = int(self.budget_s / max(round_s, 1e-6))
        return max(self.min_rounds, min(self.most_rounds, fitting))


EFFORTS = {
    effort.name: effort
    for effort in (
        Effort("quick", budget_s=1.0, min_rounds=1),
        Effort("standard", budget_s=6.0, min_rounds=3),
        Effort("full", budget_s=280.0, min_rounds=1, most_rounds=3),
    )
}
"""quick only shows that everything runs; full is the form in which targets are stated."""


@dataclass(frozen=True, slots=True)
class Ours:
    """One of our ways to do a case, with what a row should say besides."""

    case: str
    call: Call
    work: Work | None = None
    target: Mapping[str, float] = field(default_factory=dict)
    """{peer: the ratio asked for}."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    against: tuple[str, ...] | None = None
    """The peers that answer the same question; None is all."""


class Comparison:
    """Collects the rows of one theme."""

    def __init__(
        self, theme: str, effort: Effort = EFFORTS["standard"], roofline: Roofline | None = None
    ) -> None:
        self.theme = theme
        self.effort = effort
        self.roofline = roofline
        self.rows: list[dict[str, Any]] = []
        self.calibration: list[dict[str, Any]] = []

    def run(
        self,
        benchmark: Any,
        case: str,
        ours: Call,
        peers: Mapping[str, Call],
        *,
        cache: str,
        rounds: int | None = None,
        work: Work | None = None,
        peer_work: Mapping[str, Work] | None = None,
        target: Mapping[str, float] | None = None,
        numbers: Mapping[str, float] | None = None,
        before: Call | None = None,
    ) -> dict[str, float]:
        """Time `ours` beside its `peers`; returns each peer's ratio (above 1: ours is faster)."""
        one = Ours(case, ours, work, target or {}, numbers or {})
        return self.run_all(
            benchmark, [one], peers, cache=cache, rounds=rounds, peer_work=peer_work, before=before
        )[case]

    def run_all(
        self,
        benchmark: Any,
        ours: list[Ours],
        peers: Mapping[str, Call],
        *,
        cache: str,
        rounds: int | None = None,
        round_s: float | None = None,
        peer_work: Mapping[str, Work] | None = None,
        before: Call | None = None,
    ) -> dict[str, dict[str, float]]:
        """Time several of ours beside the same peers, in the same rounds: {case: {peer: ratio}}.

        `rounds` None is as many as the effort's budget allows, going by a first round that is not
        counted; or by `round_s`, from a caller that has run everything before, and then all rounds
        count. `peer_work` is for peers whose products are in another data type than ours. `before`
        goes before every call and is not timed: it makes the disk's cache cold, say.
        """
        calls = {("peer", name): call for name, call in peers.items()}
        calls |= {("ours", one.case): one.call for one in ours[1:]}
        prepare = before or _nothing
        elapsed_s: dict[tuple[str, str], list[float]] = {key: [] for key in calls}

        def run_others() -> None:
            for key, call in calls.items():
                prepare()
                elapsed_s[key].append(timed(call))
            gc.collect()
            prepare()

        with only_new_garbage():
            if round_s is None:
                round_s = timed(run_others) + timed(ours[0].call)
                elapsed_s = {key: [] for key in calls}
            if rounds is None:
                rounds = self.effort.rounds(round_s)
            benchmark.pedantic(
                ours[0].call, setup=run_others, rounds=rounds, warmup_rounds=0, iterations=1
            )
        elapsed_s["ours", ours[0].case] = list(benchmark.stats.stats.data)
        ratios: dict[str, dict[str, float]] = {}
        for one in ours:
            ours_s = elapsed_s["ours", one.case]
            ratios[one.case] = {}
            for name in one.against or peers:
                row = self._row(one, name, ours_s, elapsed_s["peer", name], peer_work or {})
                self.rows.append(row | {"rounds": rounds, "cache": cache})
                ratios[one.case][name] = row["ratio_median"]
        benchmark.extra_info |= {
            f"{case} / {peer}": round(ratio, 3)
            for case, of_case in ratios.items()
            for peer, ratio in of_case.items()
        }
        return ratios

    def note(self, case: str, numbers: Mapping[str, float | str]) -> None:
        """A row that is no comparison of times, such as memory."""
        self.rows.append({"case": case, **numbers})

    def calibrated(self, case: str, setting: str, numbers: Mapping[str, float | str]) -> None:
        """How a peer did in one of its settings: what the choice of its best one rests on."""
        self.calibration.append({"case": case, "setting": setting, **numbers})

    def _row(
        self,
        one: Ours,
        peer: str,
        ours_s: list[float],
        peer_s: list[float],
        peer_work: Mapping[str, Work],
    ) -> dict[str, Any]:
        ratios = sorted(theirs / own for theirs, own in zip(peer_s, ours_s, strict=True))
        row = {
            "case": one.case,
            "peer": peer,
            "ours_median_s": statistics.median(ours_s),
            "ours_min_s": min(ours_s),
            "ours_max_s": max(ours_s),
            "peer_median_s": statistics.median(peer_s),
            "peer_min_s": min(peer_s),
            "peer_max_s": max(peer_s),
            "ratio_median": statistics.median(ratios),
            "ratio_min": ratios[0],
            "ratio_max": ratios[-1],
        }
        if peer in one.target:
            row["target_ratio"] = one.target[peer]
        if self.roofline and one.work:
            works = {"ours": one.work, "peer": peer_work.get(peer, one.work)}
            for who, work in works.items():
                reached = self.roofline.describe(work, row[f"{who}_median_s"])
                row |= {f"{who}_{key}": value for key, value in reached.items()}
        return row | dict(one.numbers)


def _nothing() -> None:
    """To be done before a call, where nothing is."""


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Collecting garbage looks at new objects only.

    The libraries' own take a third of a second, long enough for threads to fall asleep.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def timed(call: Call) -> float:
    """The seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
