"""What seeing a sequence does to it: loss and score by when training met the sequence.

Between two checkpoints everything changes, also for sequences that neither has seen. The effect of
having seen a sequence is how much more it has changed than those: a difference of differences, as
in arXiv:2406.04327. Before it was seen there should be none, which is looked at too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.analysis.emerging_effects import effects
from pythia_fast.analysis.moments import Moments
from pythia_fast.analysis.multiple import holm
from pythia_fast.analysis.pooling import pooled
from pythia_fast.analysis.sources import (
    Source,
    chosen_of,
    given_twice,
    incomplete,
    positive,
    several,
    source,
)
from pythia_fast.analysis.study import Study
from pythia_fast.errors import ArgumentError
from pythia_fast.extras import require
from pythia_fast.metrics.intervals import check_level
from pythia_fast.runs import SweepResult, SweepResults
from pythia_fast.suite import Steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

MEASURES: Mapping[str, tuple[str, ...]] = {
    "loss": ("nll", "tokens"),
    "score": ("score",),
    "memorized": ("memorized",),
}
"""What is measured of a sequence, and which columns of a run it is made of."""

_FLAGS = ("memorized",)

_TABLE = pa.schema(
    [("model", pa.string()), ("measure", pa.string())]
    + [(name, pa.int64()) for name in ("seen_after", "seen_by", "step", "since")]
    + [(name, pa.int64()) for name in ("sequences", "unseen")]
    + [(name, pa.float64()) for name in ("before", "after", "unseen_before", "unseen_after")]
    + [(name, pa.float64()) for name in ("effect", "stderr", "low", "high", "p", "p_holm")]
)
_POSITIONS = pa.schema(
    [("model", pa.string()), ("measure", pa.string())]
    + [(name, pa.int64()) for name in ("step", "from_step", "to_step", "sequences")]
    + [(name, pa.float64()) for name in ("change", "stderr")]
)


def emergence(
    results: SweepResult | SweepResults | Sequence[SweepResult],
    *,
    measures: str | Sequence[str] | None = None,
    steps: Steps = "all",
    batch: int | None = None,
    bins: int = 60,
    level: float = 0.95,
) -> Study:
    """Loss and score of sequences before and after they were seen, against unseen ones.

    The runs are over a fixed set of rows of data in training order, at several checkpoints, of
    which the last has not seen all: row i is met by training step i // batch + 1. Sequences met
    between the checkpoints `seen_after` and `seen_by` are one cohort. At every other checkpoint
    `step`, their change since `seen_after` is compared with that of the sequences which neither
    `step` nor `seen_by` has seen.

    Args:
        results: runs with "perplexity" (gives the loss), "memorization" or "memorization-score".
        measures: "loss" (nats per token, the mean over sequences), "score", "memorized"; None for
            those that a run has.
        steps: which checkpoints.
        batch: the rows of a training step; known for the suite's models on the Hub.
        bins: so many bins of training positions in `details`.
        level: of the intervals.

    `table`, a row for each cohort and step: `since`, the steps from `seen_by` to `step`, or,
    where `step` is earlier, from `seen_after` back to it (negative); `sequences` in the cohort
    and `unseen` to compare with; their means `before` (at `seen_after`) and `after` (at
    `step`), and those of the unseen; `effect` = (after - before) - (unseen_after -
    unseen_before), with its standard error, interval from `low` to `high` and `p` (Welch's
    t-test of the sequences' changes; `p_holm` is corrected for the number of rows). Where less
    than five of the cohort or of the unseen have changed in "memorized", the interval is
    Newcombe's, `p` that of Fisher's exact test and `stderr` as wide as the interval; if some
    have changed one way and some the other, these are null. They are null, too, where there are
    too few sequences, or none has changed otherwise than the rest.

    `details`: "positions", how much the sequences met in a range of training steps have changed
    from the first checkpoint to each other one. `figure()`: that, and the effects by `since`.

    ArgumentError for runs without these numbers, over other sequences at other steps ("seen"), or
    without `batch` where it is not known; UnknownStepError for steps that they do not have.
    """
    check_level(level)
    bins = positive(bins, "bins")
    require("scipy.stats")
    rows: list[dict[str, Any]] = []
    positions = [_POSITIONS.empty_table()]
    left_out = 0
    sources: list[Source] = []
    for result in several(results):
        wanted = _measures(result, measures)
        of = source(
            result,
            [name for measure in wanted for name in MEASURES[measure]],
            steps=steps,
            batch=batch,
        )
        if of.model in {other.model for other in sources}:
            raise given_twice(of, sources)
        sources.append(of)
        for measure, moments in _moments(of, wanted, bins).items():
            key = {"model": of.model, "measure": measure}
            rows += [key | each for each in effects(moments, level, flags=measure in _FLAGS)]
            positions.append(_by_position(moments, key))
            left_out = max(left_out, moments.left_out)
    for row, corrected in zip(rows, holm([row.get("p") for row in rows]), strict=True):
        row["p_holm"] = corrected
    details = {"positions": pa.concat_tables(positions)}

    def draw(table: pa.Table) -> "Figure":
        from pythia_fast.analysis.emerging_figure import draw_emergence

        return draw_emergence(table, details["positions"], level)

    return Study(
        name="emergence",
        table=pa.Table.from_pylist(rows, _TABLE),
        summary=_summary(rows, left_out) | incomplete(sources),
        draw=draw,
        details=details,
    )


def _measures(result: SweepResult, wanted: str | Sequence[str] | None) -> tuple[str, ...]:
    """The wanted measures, or all that the run has. ArgumentError for none or unknown ones."""
    if wanted is not None:
        return chosen_of(wanted, tuple(MEASURES), "measure")
    names = {name for columns in MEASURES.values() for name in columns}
    there = result.columns(sorted(names)).names
    found = tuple(m for m, columns in MEASURES.items() if set(columns) <= set(there))
    if not found and result.columns(("sequence",)).steps:
        raise ArgumentError(
            f"{result.path} has no {', '.join(MEASURES)}: sweep it with perplexity or memorization"
        )
    return found


def _moments(of: Source, measures: Sequence[str], bins: int) -> dict[str, Moments]:
    """One pass over all shards of the run; nothing where no step is complete."""
    if not of.steps or not measures:
        return {}
    if isinstance(of.result.specification.get("sequences"), str):
        raise ArgumentError(
            f"{of.result.path} has other sequences at every step: emergence needs the same ones "
            "before and after they were seen; sweep with a number or a slice of sequences"
        )
    if of.batch is None:
        raise ArgumentError(
            f"it is not known in which order {of.model} saw its data: give `batch` (--batch), the "
            f"rows of a training step, if the data of {of.result.path} are in training order"
        )
    steps = np.array(of.steps)
    span = [pc.min_max(part["sequence"]).as_py() for part in of.columns.sequences() if len(part)]
    if not span:
        return {}
    first = min(part["min"] for part in span) // of.batch + 1
    last = max(part["max"] for part in span) // of.batch + 1
    edges = np.unique(np.linspace(first, last + 1, min(bins, last + 1 - first) + 1).astype(int))
    found = {m: Moments(steps, edges, 0.0 if m in _FLAGS else None) for m in measures}
    for shard in of.columns.shards(of.steps):
        tables = list(shard.values())
        seen = tables[0]["sequence"].to_numpy() // of.batch + 1
        for measure, moments in found.items():
            moments.add(seen, np.stack([_VALUES[measure](table) for table in tables]))
    return found


def _loss(table: pa.Table) -> Floats:
    nll, tokens = table["nll"].to_numpy(), table["tokens"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        loss: Floats = nll / tokens
    return loss


def _score(table: pa.Table) -> Floats:
    score: Floats = table["score"].to_numpy().astype(np.float64)
    return score


def _memorized(table: pa.Table) -> Floats:
    memorized: Floats = table["memorized"].to_numpy().astype(np.float64)
    return memorized


_VALUES: Mapping[str, Callable[[pa.Table], Floats]] = {
    "loss": _loss,
    "score": _score,
    "memorized": _memorized,
}


def _by_position(moments: Moments, key: Mapping[str, Any]) -> pa.Table:
    """Each bin's mean change since the first checkpoint, at all the others."""
    there = np.flatnonzero(moments.count_P)
    count_P = moments.count_P[there]
    steps = moments.steps[1:]
    mean_PS = moments.sum_PS[there, 1:] / count_P[:, None]
    squares_PS = moments.square_PS[there, 1:] - count_P[:, None] * mean_PS**2
    # The standard errors are scipy.stats.sem's, from sums: the values are too many to keep.
    with np.errstate(divide="ignore", invalid="ignore"):
        error_PS = np.sqrt(np.maximum(squares_PS, 0) / (count_P * (count_P - 1))[:, None])
    S, P = len(steps), len(there)
    error = error_PS.T.ravel()
    columns: dict[str, Any] = {name: [value] * (S * P) for name, value in key.items()}
    columns |= {
        "step": np.repeat(steps, P),
        "from_step": np.tile(moments.edges[:-1][there], S),
        "to_step": np.tile(moments.edges[1:][there] - 1, S),
        "sequences": np.tile(count_P, S),
        "change": mean_PS.T.ravel(),
        "stderr": pa.array(error, mask=~np.isfinite(error)),
    }
    return pa.table(columns, schema=_POSITIONS)


def _summary(rows: Sequence[Mapping[str, Any]], left_out: int) -> dict[str, Any]:
    said: dict[str, Any] = {"cohorts": len({(r["model"], r["seen_by"]) for r in rows})}
    if left_out:
        said["left out"] = f"{left_out} sequences with a value that is not finite"
    if not rows:
        said["finding"] = "no two complete steps with sequences that were seen between them"
        return said
    if not any(row.get("stderr") is not None for row in rows):
        said["finding"] = "no sequences that were never seen to compare with"
        return said
    for key in dict.fromkeys((row["model"], row["measure"]) for row in rows):
        own = [row for row in rows if (row["model"], row["measure"]) == key]
        several_models = len({row["model"] for row in rows}) > 1
        name = f"{key[1]} of {key[0]}" if several_models else key[1]
        for when, chosen in (
            ("once seen", [row for row in own if row["step"] == row["seen_by"]]),
            ("before", [row for row in own if row["step"] < row["seen_after"]]),
        ):
            mean, error = pooled(chosen)
            if mean is not None:
                said[f"{name} {when}"] = f"{mean:+.4g} (s.e. {error:.2g})"
    return said
