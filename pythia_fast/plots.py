"""Pictures of what a sweep found (extra: `analysis`).

Figures are made without pyplot: no global state, no window, nothing to close. Lines differ in
shade, dash and marker, so that they can be told apart in grey and by the colour-blind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pythia_fast.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette without its yellow, which is too faint on white; dark ones first."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LABELS = {
    "perplexity": "perplexity",
    "memorization": "share of sequences memorized",
    "memorization-score": "memorization score",
    "loss": "loss (nats per token)",
}
"""What stands on the axis for a metric's name; another metric's name stands for itself."""
_LOGARITHMIC = frozenset({"perplexity"})


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a picture: a value for each step."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]


def plot(table: pa.Table, metric: str | None = None) -> "Figure":
    """A metric's value over the steps, one line for each model in `table`.

    `table` is that of one `SweepResult`, or of several, concatenated. `metric` None is the first
    in it. Steps are on a logarithmic axis that begins with 0. ArgumentError if the table has no
    such metric. Values that are not finite cannot be drawn; a note says at how many steps.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(table["metric"].to_pylist()))
    if not names:
        raise ArgumentError("the table has no rows, so there is nothing to plot")
    chosen = names[0] if metric is None else metric
    if chosen not in names:
        raise ArgumentError(f"the table has no metric {chosen!r}; it has {', '.join(names)}")
    points: dict[str, dict[int, float]] = {}
    for row in table.select(["model", "step", "metric", "value"]).to_pylist():
        if row["metric"] == chosen:
            value = float("nan") if row["value"] is None else row["value"]
            points.setdefault(row["model"], {})[row["step"]] = value
    lines = [_line(model, values) for model, values in points.items()]
    figure = Figure(figsize=(7, 4.3), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, lines, LABELS.get(chosen, chosen), logarithmic=chosen in _LOGARITHMIC)
    if len(lines) == 1:
        axes.set_title(lines[0].label)
    else:
        axes.legend(frameon=False)
    return figure


def draw(
    axes: "Axes",
    lines: Sequence[Line],
    label: str,
    *,
    logarithmic: bool = False,
    shades: bool = False,
) -> None:
    """Draw lines over training steps, the axis logarithmic but with room for step 0.

    `shades` draws them from light to dark instead of in distinct colours, for lines that have an
    order; `logarithmic` is about the values.
    """
    last = max((step for line in lines for step in line.steps), default=1)
    missing = 0
    for index, line in enumerate(lines):
        values = np.asarray(line.values, dtype=float)
        missing += int((~np.isfinite(values)).sum())
        axes.plot(
            np.asarray(line.steps),
            np.where(np.isfinite(values), values, np.nan),
            label=line.label,
            linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
            color=_shade(index, len(lines)) if shades else COLOURS[index % len(COLOURS)],
            markersize=4.5,
            linewidth=1.6,
            clip_on=False,
        )
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [0, *(10**power for power in range(len(str(last))))]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xlim(0, max(last, 1) * 1.1)
    axes.set_xlabel("training step")
    axes.set_ylabel(label)
    drawn = [value for line in lines for value in line.values if np.isfinite(value)]
    if logarithmic and drawn and min(drawn) > 0:
        _logarithmic_values(axes)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if missing:
        note = f"{missing} {'value is' if missing == 1 else 'values are'} not finite"
        axes.annotate(note, (0.99, 0.98), xycoords="axes fraction", ha="right", va="top")


def _line(model: str, values: Mapping[int, float]) -> Line:
    steps = sorted(values)
    return Line(model, steps, [values[step] for step in steps])


def _shade(index: int, count: int) -> tuple[float, float, float]:
    """From light blue to black: lightness falls steadily, so that it survives a copier."""
    part = index / max(count - 1, 1)
    light, dark = np.array([0.48, 0.70, 0.88]), np.array([0.02, 0.05, 0.15])
    red, green, blue = (light + (dark - light) * part).tolist()
    return red, green, blue


def _logarithmic_values(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    def plain(value: Any, _: object) -> str:
        return f"{value:g}"

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
