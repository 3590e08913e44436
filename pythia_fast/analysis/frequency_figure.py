"""The figure of the study of term frequency: accuracy against counts, a line for each step."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.plots import COLOURS, DASHES, MARKERS, legend, new_figure
from pythia_fast.plots.style import NAMED, SHIELD, TEXT_PT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MODELS = 4  # of more the first and the last ones
_STEPS = 6


def draw_frequency(table: pa.Table, bins: pa.Table) -> "Figure":
    """A row of panels for each operation, a panel for each model: the most shots that there are."""
    models = _some(pc.unique(table["model"]).to_pylist(), _MODELS)
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
            shots = pc.max(own["shots"]).as_py()
            own = _only(own, shots=shots) if shots is not None else own
            _panel(axes, own)
            title = f"{model}: {operation}" + ("" if shots is None else f", {shots} shots")
            axes.set_title(title, fontsize=TEXT_PT)
            axes.title.set_parse_math(False)
    for axes in figure.axes[:: len(models)]:
        axes.set_ylabel("accuracy")
    for axes in figure.axes[-len(models) :]:
        axes.set_xlabel("times that the number was seen")
    legend(figure.axes[len(models) - 1], title="training step")
    return figure


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
