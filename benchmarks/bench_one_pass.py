"""Perplexity with memorization flags in one sweep, beside perplexity alone, on the same sequences.

Where both look at the same tokens, one pass serves both; of long sequences the flags look at the
first 64 tokens only, in a pass of their own.
"""

import functools
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from bigram_series import make_bigram_series, sequences
from comparison import Comparison, Effort, Ours
from forms import sweep_work, timed_dtypes
from generate_peer import NEW, PROMPT
from sweeping import Sweeper

from pythia_fast.suite import Architecture

# Checkpoints, and (sequences, tokens) of each case, by effort.
FORMS = {
    "quick": (2, ((16, 64), (1, 256))),
    "standard": (2, ((128, 64), (2, 2048))),
    "full": (8, ((512, 64), (16, 2048))),
}
MEMORIZED = 4
TARGET = 1 / 1.1
"""Perplexity alone over both: both may take 1.1 times as long."""


@pytest.fixture(scope="module")
def series(
    tmp_path_factory: pytest.TempPathFactory, shape_of_70m: Architecture, effort: Effort
) -> Path:
    """Checkpoints that memorize."""
    folder = tmp_path_factory.mktemp("bigrams") / "pythia-70m-bigrams"
    return make_bigram_series(folder, shape_of_70m, FORMS[effort.name][0])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each length of the effort's form."""
    _, cases = FORMS[metafunc.config.getoption("--effort")]
    metafunc.parametrize(("count", "tokens"), cases)


def test_both_metrics_in_one_sweep(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    series: Path,
    shape_of_70m: Architecture,
    tmp_path: Path,
    count: int,
    tokens: int,
) -> None:
    """The same losses; the full form is in the fastest data type alone."""
    checkpoints, _ = FORMS[effort.name]
    ids = sequences(
        shape_of_70m,
        checkpoints,
        count,
        memorized=MEMORIZED if tokens == PROMPT + NEW else 0,
        tokens=tokens,
        prompt=PROMPT,
    )
    sweep, steps = Sweeper(tmp_path), range(checkpoints)
    case = f"{checkpoints} checkpoints of 70m, {count} x {tokens} tokens"
    dtypes = timed_dtypes()[:1] if effort.name == "full" else timed_dtypes()
    ours, peers, round_s = [], {}, 0.0
    for dtype in dtypes:
        both = functools.partial(sweep, series, steps, ids, dtype, "perplexity", "memorization")
        alone = functools.partial(sweep, series, steps, ids, dtype, "perplexity")
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
                target={peer: TARGET},
                against=(peer,),
            )
        )
    comparison.run_all(benchmark, ours, peers, cache="page cache warm", round_s=round_s)
