"""What the float32 referee costs where it has most to do: random weights, near ties everywhere."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from comparison import Comparison, Effort, Ours
from generate_peer import NEW, PROMPT
from random_series import RandomSeries
from sweeping import Sweeper

FORMS = {"quick": 2, "standard": 16, "full": 64}
METRICS = {"memorization": "memorized"}
IN_FULL = {"memorization-score": "score"}
"""Each decoded token of each sequence goes to the referee."""


def test_near_ties(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    random_series: RandomSeries,
    tmp_path: Path,
) -> None:
    """The same flags in bfloat16 as in float32."""
    count, series = FORMS[effort.name], random_series("70m", 2)
    ids = np.random.default_rng(3).integers(0, 50_254, (count, PROMPT + NEW))
    of_random = functools.partial(Sweeper(tmp_path), series, range(2), ids)
    ours, peers = [], {}
    for metric, column in (METRICS | (IN_FULL if effort.name == "full" else {})).items():
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
