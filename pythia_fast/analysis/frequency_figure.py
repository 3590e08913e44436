"""The figure of the study of term frequency: accuracy against counts, a line for each step."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.errors import UnknownModelError
from pythia_fast.plots import COLOURS, DASHES, MARKERS, legend, new_figure
from pythia_fast.plots.style import NAMED, SHIELD, TEXT_PT, title
from pythia_fast.suite import spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MODELS = 4  # of more some that are spread over them, with the first and the last
_STEPS = 6


def draw_frequency(table: pa.Table, bins: pa.Table) -> "Figure":
    """A row of panels for each operation, a column for each model: the most shots that there are.

    Bars are one standard error over the terms of a bin.
    """
    names = sorted(pc.unique(table["model"]).to_pylist(), key=_parameters)
    models = _some(names, _MODELS)
    operations = pc.unique(table["operation"]).to_pylist()
    figure = new_figure(max(1, len(models)), max(1, len(operations)), share_values=True)
    if not len(bins):
        for axes in figure.axes:
            axes.set_axis_off()
        figure.axes[0].text(0.5, 0.5, "nothing to draw: see the summary", ha="center", va="center")
        return figure
    panels = iter(figure.axes)
    for operation in operations:
        for model in models:
            axes = next(panels)
            own = _only(bins, model=model, operation=operation)
            _panel(axes, _only(own, shots=pc.max(own["shots"]).as_py()) if len(own) else own)
            if operation == operations[0]:
                title(axes, model, letters=72 // len(models))
            if model == models[0]:
                axes.set_ylabel(f"accuracy, x {operation} y")
    below = "times that the number x was seen (bars: one standard error)"
    if left_out := [name for name in names if name not in models]:
        below += f"\nnot drawn: {', '.join(left_out)}"
    figure.supxlabel(below, fontsize=TEXT_PT, parse_math=False)
    legend(figure.axes[len(models) - 1], title="training step")
    return figure


def _parameters(model: str) -> tuple[int, str]:
    """What sorts models by size; those that are not the suite's come last."""
    try:
        return spec(model).parameters, model
    except UnknownModelError:
        return sys.maxsize, model


def _panel(axes: "Axes", bins: pa.Table) -> None:
    steps = _some(sorted(pc.unique(bins["step"]).to_pylist()), _STEPS)
    for index, step in enumerate(steps):
        own = _only(bins, step=step).sort_by("count")
        error = np.nan_to_num(own["stderr"].to_numpy().astype(float))
        drawn = axes.errorbar(
            own["count"].to_numpy(),
            own["accuracy"].to_numpy(),
            yerr=error,
            color=COLOURS[index % len(COLOURS)],
            linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=3.5,
            linewidth=1.3,
            elinewidth=0.7,
        )
        line = drawn.lines[0]
        line.set_label(f"{SHIELD}{step:,}")
        line.set_gid(NAMED)
    axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.03)


def _some(values: list[Any], most: int) -> list[Any]:
    """All of them, or so many that are spread over them, with the first and the last."""
    if len(values) <= most:
        return values
    return [values[i] for i in np.linspace(0, len(values) - 1, most).round().astype(int)]


def _only(table: pa.Table, **wanted: Any) -> pa.Table:
    for name, value in wanted.items():
        table = table.filter(pc.equal(table[name], value))
    return table
