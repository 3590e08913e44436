"""What a small model, or an early checkpoint, foretells of what another will have memorized.

arXiv:2304.11158 asks whether one may know which sequences a large model will memorize before it is
trained to its end: precision is the share of the predicted that come true, recall the share of the
memorized that were predicted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.analysis.agreement import UNTOLD, correlation, proportion
from pythia_fast.analysis.sources import (
    Source,
    given_twice,
    incomplete,
    known,
    positive,
    several,
    source,
)
from pythia_fast.analysis.study import Study
from pythia_fast.errors import ArgumentError
from pythia_fast.extras import require
from pythia_fast.metrics.intervals import check_level
from pythia_fast.runs import SweepResult, SweepResults
from pythia_fast.suite import Steps, parse_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TABLE = pa.schema(
    [("model", pa.string()), ("step", pa.int64()), ("target", pa.string())]
    + [(name, pa.int64()) for name in ("target_step", "sequences")]
    + [(name, pa.int64()) for name in ("memorized", "memorized_by_target", "both")]
    + [
        (f"{name}{end}", pa.float64())
        for name in ("precision", "recall", "correlation", "score_correlation")
        for end in ("", "_low", "_high")
    ]
    + [("base_rate", pa.float64())]
)
_METRICS = ("memorization", "memorization-score")


def predictability(
    predictors: SweepResult | SweepResults | Sequence[SweepResult],
    target: SweepResult,
    *,
    steps: Steps = "last",
    earlier: Steps | None = "all",
    step: int | None = None,
    first: int | None = None,
    batch: int | None = None,
    level: float = 0.95,
) -> Study:
    """How well models, and earlier checkpoints of the target itself, foretell what it memorizes.

    Both tables of arXiv:2304.11158 in one call, if the runs cover its first 23,552,000 sequences:
    `predictability([of_70m, …, of_6_9b], of_12b, first=23_552_000)`.

    Args:
        predictors: runs of other models with "memorization" or "memorization-score"; may be empty.
        target: the run that is foretold.
        steps: which of the predictors' steps.
        earlier: which of the target's own steps, of which those before `step` count; None for none.
        step: which of the target's steps is foretold; None for its last.
        first: count only the rows [0, first) of the data, and leave out checkpoints that have not
            seen them all: then all that is compared is about the same sequences.
        batch: the rows of a training step, known for the suite's models on the Hub.
        level: of the intervals.

    Compared are the sequences that both runs have and, where `batch` is known, both checkpoints
    have seen. `table`, a row for each predicting checkpoint: `model`, `step`, `target`,
    `target_step`, `sequences`; how many of them are `memorized`, `memorized_by_target`, `both`;
    `precision` and `recall` (Wilson's intervals), the `correlation` of the flags (phi) and that of
    the scores, each from `_low` to `_high`; `base_rate`, the precision of pointing anywhere. Null
    is what cannot be told, as precision where nothing is predicted.

    ArgumentError for runs without memorization, or whose data or metric's settings differ, or of
    which two have the same model and step, and where a run, or the step that is foretold, has not
    `first` rows; UnknownStepError for steps that they do not have. Runs over the same sequences are
    compared by their tokens, others by where the tokens are from; where neither is known, `summary`
    says so.
    """
    check_level(level)
    first = None if first is None else positive(first, "first")
    require("scipy.stats")
    require("statsmodels.stats.proportion")
    columns = ("memorized",), ("score",)
    [own] = several([target])
    others = [
        each for each in several(predictors, least=0) if each.path.resolve() != own.path.resolve()
    ]
    unsure = [other for other in others if not _check_same(other, own)]
    aim = source(own, *columns, batch=batch)
    sources = [source(each, *columns, steps=steps, batch=batch) for each in others]
    rows: list[dict[str, Any]] = []
    skipped = 0
    if aim.steps:
        (end,) = parse_steps("last" if step is None else step, aim.steps, series=aim.words)
        if first is not None:
            _check_first(aim, end, first)
        true = _flags(aim, end, first)
        for of, each in _predicting(sources, aim, end, earlier):
            if first is not None and of.batch is not None and of.batch * each < first:
                skipped += 1
                continue
            if first is not None and of is not aim:
                _check_first(of, each, first)
            key = {"model": of.model, "step": each, "target": aim.model, "target_step": end}
            if any(key.items() <= row.items() for row in rows):
                raise given_twice(of, (*sources, aim), each)
            rows.append(key | _compare(_flags(of, each, first), true, level))
    unknown = any(each.batch is None for each in (aim, *sources))
    gaps = {each.model: each.gaps for each in (*sources, aim)}

    def draw(table: pa.Table) -> "Figure":
        from pythia_fast.analysis.prediction_figure import draw_prediction

        return draw_prediction(table, gaps)

    return Study(
        name="predictability",
        table=pa.Table.from_pylist(rows, _TABLE),
        summary=_summary(rows, skipped, unsure, unknown=unknown) | incomplete((*sources, aim)),
        draw=draw,
    )


@dataclass(frozen=True, slots=True)
class _Flags:
    """What a checkpoint says of some rows, which rise."""

    rows: npt.NDArray[np.int64]
    memorized: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float64] | None

    def only(self, index: npt.NDArray[Any]) -> "_Flags":
        """Those at `index`."""
        score = None if self.score is None else self.score[index]
        return _Flags(self.rows[index], self.memorized[index], score)


def _flags(of: Source, step: int, first: int | None) -> _Flags:
    """Of the rows that the step has seen, as far as that is known, and those before `first`."""
    table = of.columns.of_step(step)
    rows = table["sequence"].to_numpy()
    score = table["score"].to_numpy() if "score" in table.column_names else None
    every = _Flags(rows, table["memorized"].to_numpy().astype(bool), score)
    stops = [] if of.batch is None else [of.batch * step]
    stops += [] if first is None else [first]
    if stops:
        every = every.only(rows < min(stops))
    if np.any(np.diff(every.rows) < 0):
        every = every.only(np.argsort(every.rows))
    return every


def _predicting(
    sources: Sequence[Source], aim: Source, end: int, earlier: Steps | None
) -> Iterator[tuple[Source, int]]:
    """Each predicting checkpoint, the other models' first."""
    for of in sources:
        yield from ((of, step) for step in of.steps)
    if earlier is not None:
        yield from (
            (aim, step) for step in parse_steps(earlier, aim.steps, series=aim.words) if step < end
        )


def _compare(predicted: _Flags, true: _Flags, level: float) -> dict[str, Any]:
    """All numbers of a row of the table, over the rows that both are about."""
    if not np.array_equal(predicted.rows, true.rows):
        place = np.searchsorted(true.rows, predicted.rows)
        there = place < len(true.rows)
        there[there] = true.rows[place[there]] == predicted.rows[there]
        predicted, true = predicted.only(there), true.only(place[there])
    count, both = len(true.rows), int((predicted.memorized & true.memorized).sum())
    found: dict[str, Any] = {
        "sequences": count,
        "memorized": int(predicted.memorized.sum()),
        "memorized_by_target": int(true.memorized.sum()),
        "both": both,
        "base_rate": float(true.memorized.mean()) if count else None,
    }
    estimates = {
        "precision": proportion(both, found["memorized"], level),
        "recall": proportion(both, found["memorized_by_target"], level),
        "correlation": correlation(predicted.memorized, true.memorized, level),
        "score_correlation": UNTOLD
        if predicted.score is None or true.score is None
        else correlation(predicted.score, true.score, level),
    }
    for name, (value, low, high) in estimates.items():
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return found


def _check_first(of: Source, step: int, first: int) -> None:
    """ArgumentError unless the rows [0, first) are among the data, and the step has seen them."""
    if of.batch is not None and of.batch * step < first:
        raise ArgumentError(
            f"{of.model} has seen {of.batch * step:,} rows at step {step}, less than "
            f"first={first:,}"
        )
    rows = of.columns.of_step(step)["sequence"]
    spec_of = of.result.specification.get("sequences")
    stride = int(spec_of["stride"]) if isinstance(spec_of, Mapping) else 1
    stop = pc.max(rows).as_py() + stride if len(rows) else 0
    if stop < first:
        raise ArgumentError(
            f"{of.result.path} ends at row {stop:,} of the data, before first={first:,}: give a "
            "smaller first, or sweep more sequences"
        )


def _check_same(one: SweepResult, target: SweepResult) -> bool:
    """Whether two runs are about the same data; False if that is not known.

    ArgumentError if they are known to be about different data or questions.
    """
    ours, theirs = known(one), known(target)
    if ours is not None and theirs is not None and ours.corpus != theirs.corpus:
        raise ArgumentError(
            f"{one.path} is about {ours.name}, trained on {ours.corpus}, and {target.path} about "
            f"{theirs.name}, on {theirs.corpus}: their rows are other texts"
        )
    here, there = one.specification, target.specification
    if here.get("sequences") == there.get("sequences") and here.get("tokens") != there.get(
        "tokens"
    ):
        raise ArgumentError(f"{one.path} and {target.path} are about different token data")
    addresses = [run.record.get("sources", {}).get("tokens") for run in (one, target)]
    same = here.get("tokens") == there.get("tokens") or addresses[0] == addresses[1] is not None
    if not same and None not in addresses:
        raise ArgumentError(
            f"{one.path} is about rows of {addresses[0]}, and {target.path} of {addresses[1]}: if "
            "they are the same data, sweep both over the same sequences, whose tokens are compared"
        )
    for name, settings in _settings(here).items():
        if any(settings != other for other in _settings(there).values()):
            raise ArgumentError(
                f"{one.path} and {target.path} mean different things by {name}: their prompts and "
                "continuations differ in length"
            )
    return same


def _settings(specification: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the metrics that tell what is memorized, by name."""
    return {
        metric["name"]: metric.get("settings")
        for metric in specification.get("metrics", ())
        if metric.get("name") in _METRICS
    }


def _summary(
    rows: list[dict[str, Any]], skipped: int, unsure: Sequence[SweepResult], *, unknown: bool
) -> dict[str, Any]:
    said: dict[str, Any] = {"checkpoints": len(rows)}
    if unsure:
        said["data"] = (
            "taken for the target's, row by row, though the runs do not tell where the tokens are "
            f"from: {', '.join(str(run.path) for run in unsure)}"
        )
    if skipped:
        said["left out"] = f"{skipped} that had not seen all the rows"
    compared = [row for row in rows if row["sequences"]]
    if not compared:
        said["finding"] = "no two checkpoints that have sequences in common, both seen"
        return said
    last = compared[-1]
    said["target"] = f"{last['target']} at step {last['target_step']}"
    if not any(row["memorized_by_target"] for row in compared):
        said["finding"] = "the target has memorized nothing"
    own = [row for row in compared if row["model"] == last["target"]]
    others = [row for row in compared if row["model"] != last["target"]]
    for name, group in (("best model", others), ("its own earlier step", own)):
        best = max(group, key=lambda row: (row["sequences"], row["recall"] or 0), default=None)
        if best is not None:
            precision, recall = (
                "none" if best[each] is None else f"{best[each]:.3f}"
                for each in ("precision", "recall")
            )
            said[name] = (
                f"{best['model']} at step {best['step']}: precision {precision}, recall {recall} "
                f"(base rate {best['base_rate']:.2g}, {best['sequences']:,} sequences)"
            )
    if unknown:
        said["seen"] = (
            "all rows are taken as seen: give `batch` (--batch), the rows of a training step"
        )
    return said
