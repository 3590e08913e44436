"""The figure of the study of training order: Q-Q plots, and the dispersion over the steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.analysis.telling import nothing_to_draw
from pythia_fast.plots import COLOURS, MARKERS, Line, draw, legend, new_figure
from pythia_fast.plots.style import NAMED, SHIELD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_order(
    table: pa.Table,
    quantiles: pa.Table,
    block: int,
    gaps: Mapping[str, Sequence[int]],
    level: float,
) -> "Figure":
    """On the left each model's last step against a Poisson distribution; on the right all steps.

    `gaps` are each model's steps that are incomplete; bands hold what is expected at `level`.
    """
    tested = table.filter(pc.is_valid(table["dispersion"]))
    over_steps = len(pc.unique(tested["step"])) > 1
    figure = new_figure(2 if over_steps else 1, width_in=7.0 if over_steps else 4.5)
    left = figure.axes[0]
    if not len(tested):
        return nothing_to_draw(figure)
    bands = f"(bands: {100 * level:g}% of chance)"
    _quantile_plot(left, tested, quantiles, f"memorized of {block:,} sequences\n{bands}")
    if over_steps:
        _dispersion(figure.axes[1], tested, gaps, f"variance / mean of the blocks\n{bands}")
    return figure


def _quantile_plot(axes: "Axes", tested: pa.Table, quantiles: pa.Table, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    last: dict[str, int] = {}
    for model, step in zip(tested["model"].to_pylist(), tested["step"].to_pylist(), strict=True):
        last[model] = max(step, last.get(model, -1))
    most = 0.0
    for index, (model, step) in enumerate(last.items()):
        own = quantiles.filter(
            pc.and_(pc.equal(quantiles["model"], model), pc.equal(quantiles["step"], step))
        )
        poisson, memorized = own["poisson"].to_numpy(), own["memorized"].to_numpy()
        colour = COLOURS[index % len(COLOURS)]
        axes.fill_between(
            poisson, own["low"].to_numpy(), own["high"].to_numpy(), color=colour, alpha=0.1, lw=0
        )
        blocks = own["blocks"].to_numpy()
        drawn = axes.scatter(
            poisson,
            memorized,
            s=4 + 40 * np.sqrt(blocks / blocks.max()),  # where most blocks are
            marker=MARKERS[index % len(MARKERS)],
            color=colour,
            alpha=0.8,
            linewidth=0,
            label=f"{SHIELD}{model}, step {step:,}",
        )
        drawn.set_gid(NAMED)
        most = max(most, float(np.max(poisson)), float(np.max(memorized)))
    axes.axline((0, 0), slope=1, color="#777777", linewidth=0.8, zorder=1)
    axes.set_xlim(-0.03 * most, 1.05 * most)
    axes.set_ylim(-0.03 * most, 1.05 * most)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_xlabel("quantile of a Poisson distribution")
    axes.set_ylabel(label)
    legend(axes)


def _dispersion(
    axes: "Axes", tested: pa.Table, gaps: Mapping[str, Sequence[int]], label: str
) -> None:
    lines = []
    for model in pc.unique(tested["model"]).to_pylist():
        own = tested.filter(pc.equal(tested["model"], model)).sort_by("step")
        steps, values = own["step"].to_pylist(), own["dispersion"].to_pylist()
        lines.append(Line(model, steps, values, gaps=gaps.get(model, ())))
    draw(axes, lines, label)
    drawn = tested["dispersion"].to_numpy()
    room = 0.08 * max(float(np.ptp(drawn)), 0.5)
    axes.set_ylim(min(drawn.min(), 0.9) - room, max(drawn.max(), 1.1) + room)
    expected = tested.group_by("step").aggregate([("poisson_low", "min"), ("poisson_high", "max")])
    expected = expected.sort_by("step")
    axes.fill_between(
        expected["step"].to_numpy(),
        expected["poisson_low_min"].to_numpy(),
        expected["poisson_high_max"].to_numpy(),
        color="#777777",
        alpha=0.18,
        linewidth=0,
        zorder=0,
    )
    axes.axhline(1, color="#777777", linewidth=0.8, zorder=1)
    if len(lines) > 1:
        legend(axes)
