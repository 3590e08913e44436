"""The figure of the study of emergence: change by training position, effect by time since seen."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.analysis.pooling import pooled
from pythia_fast.analysis.telling import nothing_to_draw
from pythia_fast.extras import require
from pythia_fast.plots import COLOURS, DASHES, MARKERS, Line, draw, legend, new_figure
from pythia_fast.plots.style import NAMED, SHIELD, SMALL_PT, TEXT_PT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNITS = {
    "loss": "loss (nats per token)",
    "score": "memorization score",
    "memorized": "share memorized",
}
_SHOWN = (1 / 3, 2 / 3, 1)  # checkpoints on the left, as parts of the data: more hide each other


def draw_emergence(table: pa.Table, positions: pa.Table, level: float) -> "Figure":
    """A row of two panels for each measure; the left ones are of the first model.

    Bands are intervals at `level`.
    """
    told = table.filter(pc.is_valid(table["effect"]))
    moved = told.filter(pc.or_(pc.not_equal(told["after"], 0), pc.not_equal(told["before"], 0)))
    measures = [m for m in _UNITS if m in set(moved["measure"].to_pylist())]
    figure = new_figure(2 if measures else 1, max(len(measures), 1))
    if not measures:
        return nothing_to_draw(figure)
    model = table["model"][0].as_py()
    for row, measure in enumerate(measures):
        left, right = figure.axes[2 * row : 2 * row + 2]
        own = pc.and_(pc.equal(positions["model"], model), pc.equal(positions["measure"], measure))
        _by_position(left, positions.filter(own), measure)
        _by_since(right, table.filter(pc.equal(table["measure"], measure)).to_pylist(), level)
        if not row:
            _legend_above(left, f"{model}, at step")
    return figure


def _by_position(axes: "Axes", positions: pa.Table, measure: str) -> None:
    """What each part of the training data has gained over the parts not yet seen."""
    steps = sorted(set(positions["step"].to_pylist()))
    first = pc.min(positions["from_step"]).as_py()
    last = pc.max(positions["to_step"]).as_py()
    split = [step for step in steps if step < last] or steps
    wanted = [first + part * (split[-1] - first) for part in _SHOWN]
    lines = []
    for step in dict.fromkeys(min(split, key=lambda s: abs(s - each)) for each in wanted):
        own = positions.filter(pc.equal(positions["step"], step))
        change, count = own["change"].to_numpy(), own["sequences"].to_numpy()
        begin, end = own["from_step"].to_numpy(), own["to_step"].to_numpy()
        unseen = begin > step
        if unseen.any():
            change = change - np.average(change[unseen], weights=count[unseen])
        lines.append(Line(f"{step:,}", ((begin + end) // 2).tolist(), change.tolist()))
    label = f"change of {_UNITS[measure]}\nagainst the unseen"
    draw(axes, lines, label, shades=True, steps="linear")
    for line, shown in zip(lines, list(axes.lines), strict=True):
        step = int(line.label.replace(",", ""))
        axes.axvline(step, color=shown.get_color(), linewidth=0.9, linestyle=":", zorder=1)
    axes.axhline(0, color="#777777", linewidth=0.8, zorder=1)
    axes.set_xlim(first, last + 1)
    axes.set_xlabel("training step that met the sequence")


def _legend_above(axes: "Axes", title: str) -> None:
    """Where it hides nothing."""
    made = axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(_SHOWN),
        frameon=False,
        fontsize=SMALL_PT,
        title=title,
        title_fontsize=TEXT_PT,
    )
    made.get_title().set_parse_math(False)


def _by_since(axes: "Axes", rows: Sequence[Mapping[str, Any]], level: float) -> None:
    """The effect before and after, cohorts at about the same distance taken together."""
    told = [row for row in rows if row["stderr"] is not None]
    models = list(dict.fromkeys(row["model"] for row in told))
    for index, model in enumerate(models):
        own = [row for row in told if row["model"] == model]
        colour = COLOURS[index % len(COLOURS)]
        if len(models) == 1:
            axes.plot(
                [row["since"] for row in own],
                [row["effect"] for row in own],
                linestyle="none",
                marker=".",
                markersize=2.5,
                color="#999999",
                zorder=1,
            )
        for side in (False, True):
            groups = _groups([row for row in own if (row["since"] >= 0) == side])
            places = [float(np.mean([row["since"] for row in group])) for group in groups]
            means, errors = (
                np.array([pooled(group) for group in groups], dtype=float).reshape(-1, 2).T
            )
            low, high = require("scipy.stats").norm.interval(level, means, errors)
            axes.fill_between(places, low, high, color=colour, alpha=0.16, lw=0)
            (drawn,) = axes.plot(
                places,
                means,
                color=colour,
                linestyle=DASHES[index % len(DASHES)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                linewidth=1.5,
                label=SHIELD + model,
                zorder=3,
            )
            if side:
                drawn.set_gid(NAMED)
    axes.axhline(0, color="#777777", linewidth=0.8, zorder=1)
    axes.axvline(0, color="#777777", linewidth=0.8, linestyle=":", zorder=1)
    _since_axis(axes, [row["since"] for row in told])
    axes.set_ylabel(f"effect of having seen it\n(bands: {100 * level:g}% intervals)")
    if len(models) > 1:
        legend(axes)


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows by `since`, ascending, two groups for each doubling."""
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: float(row["since"])):
        place = round(2 * math.log2(1 + abs(row["since"])))
        groups.setdefault(place, []).append(row)
    return list(groups.values())


def _since_axis(axes: "Axes", since: Sequence[int]) -> None:
    """Logarithmic on both sides of zero, with round numbers."""
    near = min((abs(each) for each in since if each), default=1)
    decade = 10 ** int(math.log10(near))
    axes.set_xscale("symlog", linthresh=decade, linscale=0.5)
    ticks = [0]
    for sign in (-1, 1):
        most = max((sign * each for each in since), default=0)
        powers = range(int(math.log10(decade)), len(str(most)) if most > 0 else 0)
        ticks += [sign * 10**power for power in powers[:: 1 + len(powers) // 4]]
        if len(powers) == 1:
            ticks += [sign * digit * decade for digit in (2, 5) if digit * decade <= most]
    axes.set_xticks(ticks, [f"{tick:,}".replace("-", "\u2212") for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training steps since it was seen")
