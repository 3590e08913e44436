"""Memorized sequences and scores against transformers' `generate`, and both metrics in one pass."""

import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pytest
import torch
from bigram_series import make_bigram_series, sequences
from comparison import Comparison, Effort, Ours
from forms import forward_flops, offered_dtypes, sweep_work
from generate_peer import NEW, PROMPT, TeacherForced, best_decoding
from roofline import Work

import pythia_fast
from pythia_fast.suite import Architecture

# (checkpoints, sequences of 64 tokens) and (sequences of 2048) by effort.
FORMS = {"quick": (2, 16, 1), "standard": (2, 128, 2), "full": (8, 512, 16)}
MEMORIZED = 4
"""Sequences that each checkpoint memorizes: 6.3% of all in the full form."""
FLAGS_TARGET, SCORES_TARGET, BOTH_TARGET = 6.0, 2.5, 1 / 1.1


@pytest.fixture
def sharp_series(tmp_path: Path, shape_of_70m: Architecture, effort: Effort) -> Path:
    return make_bigram_series(tmp_path / "pythia-70m-bigrams", shape_of_70m, FORMS[effort.name][0])


Sweep = Callable[..., pythia_fast.SweepResult]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep into a new run folder each time."""
    runs = itertools.count()

    def fresh(
        series: Path,
        ids: npt.NDArray[np.int64],
        dtype: str,
        *metrics: str,
        steps: str | range = "all",
    ) -> Any:
        return pythia_fast.sweep(
            series,
            steps,
            tokens=ids,
            metrics=metrics,
            dtype=dtype,
            out=tmp_path / f"run{next(runs)}",
            progress=False,
        )

    return fresh


def test_flags_and_scores(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    sharp_series: Path,
    shape_of_70m: Architecture,
    sweep: Sweep,
) -> None:
    """The same flags and scores as decoding gives, from all data types."""
    checkpoints, count, _ = FORMS[effort.name]
    ids = sequences(
        shape_of_70m,
        checkpoints,
        count,
        memorized=MEMORIZED,
        tokens=PROMPT + NEW,
        prompt=PROMPT,
    )
    paths, ids_BT = [sharp_series / f"step{s}" for s in range(checkpoints)], torch.from_numpy(ids)
    decoder = best_decoding(comparison, "transformers' generate, 70m", paths[0], ids_BT)
    forced = TeacherForced(decoder.decoding)
    decoding = f"transformers: {decoder.decoding}"
    forcing = "transformers: one teacher-forced pass, flags only"
    started = time.perf_counter()
    expected = np.stack([matches.mean(1) for matches in decoder.sweep(paths, ids_BT)])
    by_pass = np.stack([matches.all(1) for matches in forced.sweep(paths, ids_BT)])
    planted = np.zeros_like(by_pass)
    for step in range(checkpoints):
        planted[step, step * MEMORIZED : (step + 1) * MEMORIZED] = True
    np.testing.assert_array_equal(by_pass, planted)
    np.testing.assert_array_equal(expected == 1, planted)
    ours = []
    for dtype in offered_dtypes():
        for metric, column, right, target in (
            ("memorization", "memorized", planted, FLAGS_TARGET),
            ("memorization-score", "score", expected, SCORES_TARGET),
        ):
            table = sweep(sharp_series, ids, dtype, metric).sequences
            np.testing.assert_array_equal(table[column].to_numpy().reshape(right.shape), right)
            tokens = checkpoints * forward_flops(shape_of_70m, count, PROMPT + NEW - 1)
            ours.append(
                Ours(
                    f"{metric}, {checkpoints} checkpoints of 70m, {count} sequences, {dtype}",
                    lambda d=dtype, m=metric: sweep(sharp_series, ids, d, m),
                    Work(tokens, dtype=dtype) if column == "score" else None,
                    target={} if dtype == "float32" else {decoding: target},
                    numbers={"redecided_share": float(np.mean(table["redecided"].to_numpy()))},
                    against=(decoding, forcing) if column == "memorized" else (decoding,),
                )
            )
    comparison.run_all(
        benchmark,
        ours,
        round_s=time.perf_counter() - started,
        peers={
            decoding: lambda: decoder.sweep(paths, ids_BT),
            forcing: lambda: forced.sweep(paths, ids_BT),
        },
        cache="page cache warm",
    )


def test_near_ties(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    series_70m: Path,
    sweep: Sweep,
) -> None:
    """What the float32 referee costs where it has most to do: random weights, ties everywhere."""
    count = FORMS[effort.name][1] // 8
    ids = np.random.default_rng(3).integers(0, 50_254, (count, PROMPT + NEW))
    of_random = functools.partial(sweep, series_70m, ids, steps=range(2))
    metrics = {"memorization": "memorized"}
    if effort.name == "full":  # each decoded token of each sequence goes to the referee
        metrics["memorization-score"] = "score"
    ours, peers = [], {}
    for metric, column in metrics.items():
        table = of_random("bfloat16", metric).sequences
        assert table[column].equals(of_random("float32", metric).sequences[column])
        peer = f"ours, {metric}, float32"
        peers[peer] = functools.partial(of_random, "float32", metric)
        ours.append(
            Ours(
                f"{metric}, 2 checkpoints of 70m with random weights, {count} sequences, bfloat16",
                functools.partial(of_random, "bfloat16", metric),
                numbers={"redecided_share": float(np.mean(table["redecided"].to_numpy()))},
                against=(peer,),
            )
        )
    comparison.run_all(benchmark, ours, peers, cache="page cache warm")


def test_both_metrics_in_one_sweep(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    sharp_series: Path,
    shape_of_70m: Architecture,
    sweep: Sweep,
) -> None:
    """Perplexity with flags beside perplexity alone, over the same sequences: a ratio below 1."""
    checkpoints, _, count = FORMS[effort.name]
    tokens = 2048
    ids = sequences(
        shape_of_70m,
        checkpoints,
        count,
        memorized=0,
        tokens=tokens,
        prompt=PROMPT,
    )
    case = f"{checkpoints} checkpoints of 70m, {count} x {tokens} tokens"
    ours, peers, round_s = [], {}, 0.0
    for dtype in offered_dtypes():
        if dtype == "float32":
            continue  # the flags' share is smallest where arithmetic is slowest
        both = functools.partial(sweep, sharp_series, ids, dtype, "perplexity", "memorization")
        alone = functools.partial(sweep, sharp_series, ids, dtype, "perplexity")
        started = time.perf_counter()
        table = both().table
        of_perplexity = table.filter(pc.field("metric") == "perplexity")
        assert of_perplexity["value"].equals(alone().table["value"])
        round_s += time.perf_counter() - started
        peer = f"ours, perplexity alone, {dtype}"
        peers[peer] = alone
        ours.append(
            Ours(
                f"perplexity and memorization, {case}, {dtype}",
                both,
                sweep_work(shape_of_70m, checkpoints, count, tokens, dtype),
                target={peer: BOTH_TARGET},
                against=(peer,),
            )
        )
    comparison.run_all(benchmark, ours, peers, cache="page cache warm", round_s=round_s)
