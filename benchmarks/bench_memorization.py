"""Memorized sequences and scores against transformers' `generate`."""

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bigram_series import make_bigram_series, sequences
from comparison import Comparison, Effort, Ours
from forms import forward_flops, timed_dtypes
from generate_peer import NEW, PROMPT, TeacherForced, best_decoding
from roofline import Work
from sweeping import Sweeper

import pythia_fast
from pythia_fast.suite import Architecture

# (checkpoints, sequences of 64 tokens) by effort.
FORMS = {"quick": (2, 16), "standard": (2, 128), "full": (8, 512)}
MEMORIZED = 4
"""Sequences that each checkpoint memorizes: 6.3% of all in the full form."""
CHECKED = 2
"""Checkpoints whose flags and scores are compared before anything is timed; then those of all."""
METRICS = {"memorization": ("memorized", 6.0), "memorization-score": ("score", 2.5)}
"""The column that is compared, and the ratio asked for."""


def test_flags_and_scores(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    shape_of_70m: Architecture,
    tmp_path: Path,
) -> None:
    """The same flags and scores as decoding gives."""
    checkpoints, count = FORMS[effort.name]
    series = make_bigram_series(tmp_path / "pythia-70m-bigrams", shape_of_70m, checkpoints)
    paths, sweep = [series / f"step{step}" for step in range(checkpoints)], Sweeper(tmp_path)
    ids = sequences(
        shape_of_70m,
        checkpoints,
        count,
        memorized=MEMORIZED,
        tokens=PROMPT + NEW,
        prompt=PROMPT,
    )
    ids_BT = torch.from_numpy(ids)
    planted = np.zeros((checkpoints, count), dtype=np.bool_)
    for step in range(checkpoints):
        planted[step, step * MEMORIZED : (step + 1) * MEMORIZED] = True
    last: dict[tuple[str, str], pythia_fast.SweepResult] = {}
    decoded: list[npt.NDArray[np.float64]] = []

    def decode(some: list[Path]) -> None:
        decoded[:] = [matches.mean(1) for matches in decoder.sweep(some, ids_BT)]

    def measure(dtype: str, metric: str, some: int) -> None:
        last[dtype, metric] = sweep(series, range(some), ids, dtype, metric)

    def compare(some: int) -> None:
        """What was measured last, of so many checkpoints, is what was planted and decoded."""
        scores = np.stack(decoded)
        np.testing.assert_array_equal(scores == 1, planted[:some])
        for (_, metric), result in last.items():
            found = result.sequences[METRICS[metric][0]].to_numpy().reshape(some, count)
            right = planted[:some] if metric == "memorization" else scores
            np.testing.assert_array_equal(found, right)

    decoder = best_decoding(comparison, "transformers' generate, 70m", paths[0], ids_BT)
    forced = TeacherForced(decoder.decoding)
    decoding = f"transformers: {decoder.decoding}"
    forcing = "transformers: one teacher-forced pass, flags only"
    checked = min(CHECKED, checkpoints)
    started = time.perf_counter()
    decode(paths[:checked])
    by_pass = [matches.all(1) for matches in forced.sweep(paths[:checked], ids_BT)]
    np.testing.assert_array_equal(by_pass, planted[:checked])
    ours = []
    for dtype in timed_dtypes():
        for metric, (column, target) in METRICS.items():
            measure(dtype, metric, checked)
            redecided = last[dtype, metric].sequences["redecided"].to_numpy()
            flops = checkpoints * forward_flops(shape_of_70m, count, PROMPT + NEW - 1)
            ours.append(
                Ours(
                    f"{metric}, {checkpoints} checkpoints of 70m, {count} sequences, {dtype}",
                    functools.partial(measure, dtype, metric, checkpoints),
                    Work(flops, dtype=dtype) if column == "score" else None,
                    target={decoding: target},
                    numbers={"redecided_share": float(np.mean(redecided))},
                    against=(decoding, forcing) if column == "memorized" else (decoding,),
                )
            )
    checked_s = time.perf_counter() - started
    compare(checked)
    comparison.run_all(
        benchmark,
        ours,
        peers={
            decoding: lambda: decode(paths),
            forcing: lambda: forced.sweep(paths, ids_BT),
        },
        cache="page cache warm",
        round_s=checked_s * checkpoints / checked,
    )
    compare(checkpoints)
