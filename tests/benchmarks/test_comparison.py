"""Alternation, rounds and what a row says."""

import gc
import time

import pytest
from comparison import EFFORTS, Comparison, Effort, Ours
from roofline import Roofline, Work

PEAKS = Roofline({"fma_float32_flop_per_s": 1e9, "memory_read_byte_per_s": 1e9}, threads=1)


def test_peers_and_ours_alternate_and_the_first_round_is_not_counted(benchmark):
    calls: list[str] = []
    comparison = Comparison("theme")
    ours = [Ours("a", lambda: calls.append("a")), Ours("b", lambda: calls.append("b"))]
    peers = {"p": lambda: calls.append("p"), "q": lambda: calls.append("q")}
    comparison.run_all(benchmark, ours, peers, cache="none", rounds=3)
    assert calls == ["p", "q", "b", "a"] * 4
    assert [(row["case"], row["peer"]) for row in comparison.rows] == [
        *(("a", "p"), ("a", "q"), ("b", "p"), ("b", "q")),
    ]
    assert {row["rounds"] for row in comparison.rows} == {3}


def test_a_ratio_is_the_peers_time_over_ours_with_its_spread(benchmark):
    comparison = Comparison("theme", roofline=PEAKS)
    ratios = comparison.run(
        benchmark,
        "sleep",
        lambda: time.sleep(0.01),
        {"twice": lambda: time.sleep(0.02)},
        cache="none",
        rounds=1,
        work=Work(flops=1e6, dtype="float32"),
        target={"twice": 1.5},
        numbers={"error": 0.5},
    )
    (row,) = comparison.rows
    assert ratios == {"twice": row["ratio_median"]}
    assert row["ours_median_s"] >= 0.01
    assert row["peer_median_s"] >= 0.02
    assert row["ratio_median"] == row["peer_median_s"] / row["ours_median_s"]
    for number in ("ratio", "ours", "peer"):
        unit = "" if number == "ratio" else "_s"
        spread = [row[f"{number}_{which}{unit}"] for which in ("min", "median", "max")]
        assert spread == sorted(spread)
    assert row["target_ratio"] == 1.5
    assert row["error"] == 0.5
    assert row["ours_roof"] == "fma float32"
    assert row["ours_share_of_roof"] == pytest.approx(1e-3 / row["ours_median_s"])
    assert row["peer_share_of_roof"] == pytest.approx(1e-3 / row["peer_median_s"])


def test_a_case_may_be_for_some_peers_only(benchmark):
    comparison = Comparison("theme")
    ours = [Ours("a", lambda: None, against=("q",)), Ours("b", lambda: None)]
    peers = {"p": lambda: None, "q": lambda: None}
    comparison.run_all(benchmark, ours, peers, cache="none", rounds=1)
    assert [(row["case"], row["peer"]) for row in comparison.rows] == [
        *(("a", "q"), ("b", "p"), ("b", "q")),
    ]


def test_rounds_follow_the_budget():
    effort = Effort("some", budget_s=10, min_rounds=3)
    assert effort.rounds(2.0) == 5
    assert effort.rounds(60.0) == 3
    assert effort.rounds(1e-9) == 100
    assert Effort("few", budget_s=10, min_rounds=1, most_rounds=3).rounds(1e-9) == 3


def test_garbage_that_a_round_makes_is_collected_and_what_was_there_is_not_looked_at(benchmark):
    frozen: list[int] = []
    Comparison("theme").run(
        benchmark, "a", lambda: frozen.append(gc.get_freeze_count()), {}, cache="none", rounds=1
    )
    assert min(frozen) > 0
    assert gc.get_freeze_count() == 0


def test_the_efforts_are_named_by_their_keys():
    assert {name: effort.name for name, effort in EFFORTS.items()} == {
        name: name for name in ("quick", "standard", "full")
    }


def test_a_caller_that_has_run_everything_has_every_round_counted(benchmark):
    calls: list[str] = []
    comparison = Comparison("theme", Effort("some", budget_s=10, min_rounds=1))
    ours = [Ours("a", lambda: calls.append("a"))]
    peers = {"p": lambda: calls.append("p")}
    comparison.run_all(benchmark, ours, peers, cache="none", round_s=4.0)
    assert calls == ["p", "a"] * 2
    assert comparison.rows[0]["rounds"] == 2
