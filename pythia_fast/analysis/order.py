"""Whether the order of training decides what is memorized (arXiv:2304.01373, section 4).

If it does not, the memorized sequences lie in the training data as if thrown there: how many of
each block of consecutive sequences are memorized then follows a Poisson distribution, as long as
they are rare.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pythia_fast.analysis.multiple import holm
from pythia_fast.analysis.scatter import is_sparse, scattered
from pythia_fast.analysis.sources import Source, given_twice, incomplete, positive, several, source
from pythia_fast.analysis.study import Study
from pythia_fast.analysis.telling import keyed
from pythia_fast.extras import require
from pythia_fast.metrics.intervals import check_level
from pythia_fast.runs import SweepResult, SweepResults
from pythia_fast.suite import Steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCK = 512
"""Sequences in a block of the paper's figure."""

_ROUNDING = 1e-9

Ints = npt.NDArray[np.int64]

_TABLE = pa.schema(
    {
        "model": pa.string(),
        "step": pa.int64(),
        "sequences": pa.int64(),
        "blocks": pa.int64(),
        "memorized": pa.int64(),
        "mean": pa.float64(),
        "variance": pa.float64(),
        "dispersion": pa.float64(),
        "poisson_low": pa.float64(),
        "poisson_high": pa.float64(),
        "p_poisson": pa.float64(),
        "p_binomial": pa.float64(),
        "p_holm": pa.float64(),
        "trend": pa.float64(),
        "p_trend": pa.float64(),
        "p_trend_holm": pa.float64(),
    }
)
_BLOCKS = pa.schema(
    {
        "model": pa.dictionary(pa.int32(), pa.string()),
        "step": pa.int64(),
        "first": pa.int64(),
        "sequences": pa.int64(),
        "memorized": pa.int64(),
    }
)
_QUANTILES = pa.schema(
    {
        "model": pa.string(),
        "step": pa.int64(),
        "poisson": pa.float64(),
        "memorized": pa.int64(),
        "blocks": pa.int64(),
        "low": pa.float64(),
        "high": pa.float64(),
    }
)


def training_order(
    results: SweepResult | SweepResults | Sequence[SweepResult],
    *,
    block: int = BLOCK,
    steps: Steps = "all",
    batch: int | None = None,
    level: float = 0.95,
) -> Study:
    """Whether memorized sequences lie evenly in the training data, for each model and step.

    The runs are to have "memorization" over consecutive sequences of data in training order (or
    every n-th of them). Rows are cut into blocks, [0, block), [block, 2·block), …; the blocks at
    the ends of which sequences are missing are left out. Of each step only what it has seen counts,
    the rows [0, batch·step); for the suite's models on the Hub `batch` is known, for a folder of
    checkpoints it is to be given, else all rows count.

    `table`, a row for each model and step: `sequences`, `blocks`, `memorized`, `mean` and
    `variance` of the memorized in a block; `dispersion`, their ratio (1 for a Poisson
    distribution, more if memorized sequences cluster) and between which values, `poisson_low` to
    `poisson_high`, it would lie at `level`; `p_poisson`, how likely a Poisson distribution is to
    scatter as much or more (chi-squared, blocks - 1 degrees of freedom); `p_binomial`, the same
    without the assumption that memorized sequences are rare; `trend`, Spearman's correlation of a
    block's share with its place, and `p_trend`; `p_holm` and `p_trend_holm`, `p_binomial` and
    `p_trend` corrected for the number of both in the table. Where less than one in a block is
    memorized and hardly any two together, chi-squared is wrong, and the two p and the interval are
    those of draws by chance, always the same ones. What cannot be told, from less than two blocks
    or with nothing memorized, is null.

    `details`: "blocks" (`first`, the row that it begins with, `sequences`, `memorized`), and
    "quantiles", the points of the Q-Q plot: `memorized` in a block against the Poisson quantile of
    the same rank, the number of `blocks` there, and from `low` to `high` where at `level` a block
    of that rank would lie. `figure()`: Q-Q plots of the last steps, dispersion over the steps.

    ArgumentError for runs without memorization, or of which two have the same model and step;
    UnknownStepError for steps that they do not have.
    """
    check_level(level)
    block = positive(block, "block")
    require("scipy.stats")
    sources = [source(each, ("memorized",), steps=steps, batch=batch) for each in several(results)]
    rows: list[dict[str, Any]] = []
    blocks, quantiles = [_BLOCKS.empty_table()], [_QUANTILES.empty_table()]
    for each in sources:
        for step in each.steps:
            key = {"model": each.model, "step": step}
            if any(key.items() <= row.items() for row in rows):
                raise given_twice(each, sources, step)
            first, sequences, memorized = _counts(each, step, block)
            rows.append(key | _tests(sequences, memorized, level))
            of_blocks = {"first": first, "sequences": sequences, "memorized": memorized}
            blocks.append(keyed(_BLOCKS, key, of_blocks))
            quantiles.append(keyed(_QUANTILES, key, _quantiles(memorized, level)))
    _correct(rows)
    details = {"blocks": pa.concat_tables(blocks), "quantiles": pa.concat_tables(quantiles)}

    gaps = {each.model: each.gaps for each in sources}

    def draw(table: pa.Table) -> "Figure":
        from pythia_fast.analysis.order_figure import draw_order

        return draw_order(table, details["quantiles"], block, gaps, level)

    unknown = any(each.batch is None for each in sources)
    return Study(
        name="training order",
        table=pa.Table.from_pylist(rows, _TABLE),
        summary=_summary(rows, block, level, unknown=unknown) | incomplete(sources),
        draw=draw,
        details=details,
    )


def _counts(of: Source, step: int, block: int) -> tuple[Ints, Ints, Ints]:
    """The first rows of the blocks, how many of their sequences there are, and are memorized.

    Blocks with fewer than the fullest, but for one that a stride may miss, are left out.
    """
    table = of.columns.of_step(step)
    rows = table["sequence"].to_numpy()
    flags = table["memorized"].to_numpy().astype(bool)
    if of.batch is not None:
        seen = rows < of.batch * step
        rows, flags = rows[seen], flags[seen]
    if not len(rows):
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    number = rows // block
    start = int(number.min())
    number = number - start
    sequences = np.bincount(number)
    memorized = np.bincount(number[flags], minlength=len(sequences))
    full = sequences >= max(int(sequences.max()) - 1, 1)
    first = (np.flatnonzero(full) + start) * block
    return first, sequences[full], memorized[full]


def _tests(sequences: Ints, memorized: Ints, level: float) -> dict[str, Any]:
    stats = require("scipy.stats")
    total, count = int(memorized.sum()), len(memorized)
    found: dict[str, Any] = {
        "sequences": int(sequences.sum()),
        "blocks": count,
        "memorized": total,
        "mean": float(memorized.mean()) if count else None,
    }
    if count < 2:
        return found
    low, high = stats.chi2.interval(level, count - 1)
    found |= {"variance": float(memorized.var(ddof=1))}
    found |= {"poisson_low": low / (count - 1), "poisson_high": high / (count - 1)}
    if not total:
        return found
    even = stats.chisquare(memorized, sequences * (total / sequences.sum()))
    found |= {"dispersion": even.statistic / (count - 1), "p_poisson": even.pvalue}
    if is_sparse(total, count):
        drawn = scattered(sequences, memorized, replace=True)
        ends = np.quantile(drawn.null_distribution, [(1 - level) / 2, (1 + level) / 2])
        low, high = (ends * [1 - _ROUNDING, 1 + _ROUNDING]).tolist()  # only a few values occur
        found |= {"poisson_low": low / (count - 1), "poisson_high": high / (count - 1)}
        found["p_poisson"] = drawn.pvalue
    if total < sequences.sum():
        if is_sparse(min(total, int(sequences.sum()) - total), count):
            found["p_binomial"] = scattered(sequences, memorized, replace=False).pvalue
        else:
            kinds = np.stack([memorized, sequences - memorized])
            found["p_binomial"] = stats.chi2_contingency(kinds, correction=False).pvalue
        share = memorized / sequences
        if count > 2 and np.ptp(share) > 0:
            trend = stats.spearmanr(np.arange(count), share)
            found |= {"trend": trend.statistic, "p_trend": trend.pvalue}
    return {name: float(x) if isinstance(x, np.floating) else x for name, x in found.items()}


def _quantiles(memorized: Ints, level: float) -> dict[str, Any]:
    """The points of the Q-Q plot, blocks at the same place taken together."""
    stats = require("scipy.stats")
    count = len(memorized)
    rank = np.arange(1, count + 1)
    mean = float(memorized.mean()) if count else 0.0
    poisson = stats.poisson.ppf((rank - 0.5) / max(count, 1), mean)
    points, first, blocks = np.unique(
        np.stack([poisson, np.sort(memorized)]), axis=1, return_index=True, return_counts=True
    )
    middle = rank[first] + blocks // 2
    ends = (1 - level) / 2, (1 + level) / 2
    low, high = (
        stats.poisson.ppf(stats.beta.ppf(end, middle, count + 1 - middle), mean) for end in ends
    )
    return {
        "poisson": points[0],
        "memorized": points[1].astype(np.int64),
        "blocks": blocks,
        "low": low,
        "high": high,
    }


def _correct(rows: list[dict[str, Any]]) -> None:
    """Both tests of all rows hold at once."""
    tests = [row.get(name) for name in ("p_binomial", "p_trend") for row in rows]
    corrected = holm(tests)
    for row, p, p_trend in zip(rows, corrected[: len(rows)], corrected[len(rows) :], strict=True):
        row |= {"p_holm": p, "p_trend_holm": p_trend}


def _summary(
    rows: list[dict[str, Any]], block: int, level: float, *, unknown: bool
) -> dict[str, Any]:
    tested = [row for row in rows if row.get("p_holm") is not None]
    said: dict[str, Any] = {"block": block, "models": len({row["model"] for row in rows})}
    said |= {"steps": len({row["step"] for row in rows}), "tested": len(tested)}
    if not rows:
        said["finding"] = "no step is complete"
    elif not tested:
        few = max(row["blocks"] for row in rows) < 2
        said["finding"] = (
            f"too few sequences for two whole blocks of {block}" if few else "nothing is memorized"
        )
    else:
        clustered = [row for row in tested if row["p_holm"] < 1 - level]
        last = max(tested, key=lambda row: row["step"])
        said |= {"dispersion": last["dispersion"], "p_binomial": last["p_binomial"]}
        said["of"] = f"{last['model']} at step {last['step']}"
        trends = [row["trend"] for row in tested if _or_one(row["p_trend_holm"]) < 1 - level]
        rising = sum(trend > 0 for trend in trends)
        said |= {"clustered": len(clustered), "rising": rising, "falling": len(trends) - rising}
        found = [
            f"{words} in {count} of {len(tested)} checkpoints"
            for words, count in (
                ("memorized sequences cluster", len(clustered)),
                ("memorization rises with training", rising),
                ("memorization falls with training", len(trends) - rising),
            )
            if count
        ]
        said["finding"] = "; ".join(found) or "no sign of clusters or of a trend"
    if unknown and rows:
        said["seen"] = (
            "all rows are taken as seen: give `batch` (--batch), the rows of a training step"
        )
    return said


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p
