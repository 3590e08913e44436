"""An evaluation of ours beside the published one, task by task."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.analysis.multiple import holm
from pythia_fast.analysis.publications.table import published
from pythia_fast.analysis.study import Study
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.tidy import TIDY
from pythia_fast.extras import require
from pythia_fast.suite import models
from pythia_fast.words import listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARED = pa.schema(
    [
        *((name, TIDY.field(name).type) for name in TIDY.names[:5]),
        *((name, pa.float64()) for name in ("ours", "published", "difference")),
        *((name, pa.float64()) for name in ("ours_stderr", "published_stderr", "z", "p", "p_holm")),
        *((name, pa.string()) for name in ("status", "file")),
    ]
)
_KEY = TIDY.names[:5]
_LEVEL = 0.05
_OF_THE_SUITE = (None, "baseline", "bf16")
"""Variants that are the suite's own models: its 1b is the one that was called 1b-bf16."""
_SHOWN = 30
_LISTED = 6  # values in words
_METRICS = {
    ("lambada", "ppl"): "perplexity",
    ("crows_pairs", "likelihood_difference"): "likelihood_diff",
}
"""How the harness of today calls what it called otherwise, by the beginning of the task."""


class Tabular(Protocol):
    """Anything with a tidy table, such as an `EvaluationResult`."""

    @property
    def table(self) -> pa.Table:
        """Its table."""
        ...


def compare(ours: "pa.Table | Tabular", theirs: "pa.Table | str | Path") -> Study:
    """Our numbers beside the published ones of the same model, step, task, metric and shots.

    `ours` is an `EvaluationResult` or a table with the columns of `TIDY`; `theirs` is the folder of
    published evaluations or its table, from `published`. Old names of tasks and metrics
    ("hendrycksTest-…", "ppl") are taken for today's, and the variants "intervention" and
    "long-intervention" for the suite's models of these names. Rows of the published table that are
    "doubtful" are compared too, and say so; the summary leaves them out.

    `z` is the difference over its standard error, sqrt(ours_stderr² + published_stderr²), `p` that
    of a two-sided normal test, `p_holm` corrected for the number of tests (Holm, of the rows that
    are "ok"). They are null where no standard error is known. Both evaluations ask the same
    questions, so their errors go together: of the same weights expect |z| far below 1, and take
    even z = 1 as a hint. Of a checkpoint that was evaluated as a baseline too only the model's own
    numbers count. ArgumentError if columns are missing, or for a row that is there twice.
    """
    ours = ours if isinstance(ours, pa.Table) else ours.table
    theirs = theirs if isinstance(theirs, pa.Table) else published(theirs)
    own = _keyed("our table", _tidy(ours), unique=True)
    others = _keyed("the published table", _of_the_suite(theirs), unique=False)
    rows = [_row(key, mine, other) for key, (mine,) in own.items() for other in others.get(key, ())]
    table = _corrected(pa.Table.from_pylist(rows, schema=COMPARED))
    return Study("published evaluations", table, _summary(table, own, others), _draw)


def today(task: str, metric: str) -> tuple[str, str]:
    """What the harness of today calls a task and its metric of 2023."""
    for (beginning, old), new in _METRICS.items():
        if task.startswith(beginning) and metric == old:
            metric = new
    return re.sub(r"^hendrycksTest-", "mmlu_", task), metric


def _tidy(table: pa.Table) -> list[dict[str, Any]]:
    if missing := [name for name in TIDY.names if name not in table.column_names]:
        raise ArgumentError(f"a table to compare has the columns of TIDY; no {', '.join(missing)}")
    return [
        row | {"status": "ok", "file": None}
        for row in table.select(TIDY.names).to_pylist()
        if row["value"] is not None and math.isfinite(row["value"])
    ]


def _of_the_suite(table: pa.Table) -> list[dict[str, Any]]:
    needed = [*TIDY.names, "variant", "prompt", "status", "file"]
    if missing := [name for name in needed if name not in table.column_names]:
        raise ArgumentError(f"this is no table of `published`: it has no {', '.join(missing)}")
    kept = pc.is_in(table["status"], pa.array(["ok", "doubtful"]))
    rows = table.filter(pc.and_(kept, pc.is_valid(table["value"]))).select(needed).to_pylist()
    intervened = {(each.base, each.variant): each.name for each in models() if each.variant}
    kept_rows = []
    for row in rows:
        name = intervened.get((row["model"], row["variant"]))
        if row["prompt"] is None and (name is not None or row["variant"] in _OF_THE_SUITE):
            kept_rows.append(row | {"model": name or row["model"]})
    return _own_first(kept_rows)


def _own_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without a variant's number where the model itself has one: a checkpoint counts once."""

    def about(row: Mapping[str, Any]) -> tuple[object, ...]:
        named = today(row["task"] or "", row["metric"] or "")
        return row["model"], row["step"], *named, row["num_fewshot"]

    best: dict[tuple[object, ...], int] = {}
    for row in rows:
        rank = _rank(row)
        best[about(row)] = min(rank, best.get(about(row), rank))
    return [row for row in rows if _rank(row) == best[about(row)]]


def _rank(row: Mapping[str, Any]) -> int:
    """Trusted ones before doubtful ones, then in the order of `_OF_THE_SUITE`."""
    variant = row["variant"]
    place = _OF_THE_SUITE.index(variant) if variant in _OF_THE_SUITE else 0
    return place + len(_OF_THE_SUITE) * int(row["status"] != "ok")


def _keyed(
    what: str, rows: list[dict[str, Any]], *, unique: bool
) -> dict[tuple[object, ...], list[Mapping[str, Any]]]:
    found: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        task, metric = today(row["task"] or "", row["metric"] or "")
        key = (row["model"], row["step"], task, metric, row["num_fewshot"])
        same = found.setdefault(key, [])
        same.append(row)
        if unique and len(same) > 1:
            raise ArgumentError(f"{what} has {dict(zip(_KEY, key, strict=True))} twice")
    return found


def _row(
    key: tuple[object, ...], mine: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, Any]:
    difference = mine["value"] - other["value"]
    errors = (mine["stderr"], other["stderr"])
    together = math.nan if None in errors else math.hypot(*errors)
    z = difference / together if together > 0 else None
    p = None if z is None else float(2 * require("scipy.stats").norm.sf(abs(z)))
    return dict(zip(_KEY, key, strict=True)) | {
        "ours": mine["value"],
        "published": other["value"],
        "difference": difference,
        "ours_stderr": errors[0],
        "published_stderr": errors[1],
        "z": z,
        "p": p,
        "status": other["status"],
        "file": other["file"],
    }


def _corrected(table: pa.Table) -> pa.Table:
    """With `p_holm` of the rows that are "ok" and have a `p`."""
    tested = pc.if_else(pc.equal(table["status"], "ok"), table["p"], pa.scalar(None, pa.float64()))
    column = pa.array(holm(tested.to_pylist()), pa.float64())
    return table.set_column(table.schema.get_field_index("p_holm"), "p_holm", column)


def _summary(
    table: pa.Table,
    own: Mapping[tuple[object, ...], object],
    others: Mapping[tuple[object, ...], object],
) -> dict[str, float | int | str]:
    ok = table.filter(pc.equal(table["status"], "ok"))
    summary: dict[str, float | int | str] = {
        "compared": len(ok),
        "doubtful": len(table) - len(ok),
        "only ours": len(own.keys() - others.keys()),
    }
    if not len(table):
        summary["nothing to compare"] = _nothing(own, others)
    sizes = np.abs(ok["z"].drop_null().to_numpy())
    if len(sizes):
        row = ok.filter(pc.is_valid(ok["z"])).slice(int(sizes.argmax()), 1).to_pylist()[0]
        summary["largest |z|"] = float(sizes.max())
        summary["of"] = f"{row['model']} step {row['step']} {row['task']} {row['metric']}"
        summary["median |z|"] = float(np.median(sizes))
        summary["differ (Holm, 5%)"] = int((ok["p_holm"].drop_null().to_numpy() < _LEVEL).sum())
    return summary


def _nothing(
    own: Mapping[tuple[object, ...], object], others: Mapping[tuple[object, ...], object]
) -> str:
    """Up to which part of their keys ours and the published ones have something in common."""
    if not own:
        return "our table has no numbers"
    if not others:
        return "there are no published numbers of the suite's own models"
    names = ("model", "step", "task", "metric", "shots")
    for place, name in enumerate(names):
        shared = {key[:place] for key in own} & {key[:place] for key in others}
        ours, published_ones = (
            _listed({key[place] for key in some if key[:place] in shared}) for some in (own, others)
        )
        if not {key[: place + 1] for key in own} & {key[: place + 1] for key in others}:
            before = f" of the same {' and '.join(names[:place])}" if place else ""
            return f"no {name}{before} is in both: ours {ours}; published {published_ones}"
    return "the numbers that match are not finite"


def _listed(values: set[object]) -> str:
    """The first few, in order, and how many more there are."""

    def order(value: object) -> tuple[bool, int, str]:
        return value is None, value if isinstance(value, int) else 0, str(value)

    return listed(sorted(values, key=order), _LISTED)


def _draw(table: pa.Table) -> "Figure":
    """Differences in standard errors, a line of points for each task; the largest ones above."""
    from pythia_fast.plots import COLOURS, MARKERS, legend, new_figure, title
    from pythia_fast.plots.style import NAMED, SHIELD, SMALL_PT

    rows = [row for row in table.to_pylist() if row["z"] is not None]
    largest: dict[str, float] = {}
    for row in rows:
        name = f"{row['task']} {row['metric']}"
        largest[name] = max(largest.get(name, 0.0), abs(row["z"]))
    names = sorted(largest, key=lambda name: -largest[name])[:_SHOWN]
    figure = new_figure(height_in=max(2.4, 1.2 + 0.2 * len(names)))
    (axes,) = figure.axes
    axes.set_xlabel("ours minus published, in standard errors of the difference")
    if not rows:
        axes.text(0.5, 0.5, "nothing to compare", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        return figure
    axes.axvspan(-1.96, 1.96, color="#000000", alpha=0.08, linewidth=0)
    axes.axvline(0, color="#000000", linewidth=0.8)
    for index, model in enumerate(dict.fromkeys(row["model"] for row in rows)):
        own = [row for row in rows if row["model"] == model]
        places = [(row["z"], f"{row['task']} {row['metric']}") for row in own]
        shown = [(z, names.index(name)) for z, name in places if name in names]
        (points,) = axes.plot(
            [z for z, _ in shown],
            [place for _, place in shown],
            linestyle="none",
            marker=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            markersize=4.5,
            alpha=0.8,
            label=SHIELD + model,
        )
        points.set_gid(NAMED)
    axes.set_yticks(range(len(names)), names, fontsize=SMALL_PT)
    axes.set_ylim(len(names) - 0.4, -0.6)
    reach = max(2.5, 1.1 * max(abs(row["z"]) for row in rows))
    axes.set_xlim(-reach, reach)
    left_out = len(largest) - len(names)
    if left_out:
        words = f"the {len(names)} that differ most; {left_out} more are closer"
        title(axes, words, letters=44)
    if len({row["model"] for row in rows}) > 1:
        legend(axes)
    return figure
