"""The figure of the study of predictability: other models first, then steps of one model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.analysis.telling import nothing_to_draw
from pythia_fast.errors import UnknownModelError
from pythia_fast.plots import COLOURS, MARKERS, Line, draw, legend, new_figure
from pythia_fast.plots.style import NAMED, SHIELD, TEXT_PT
from pythia_fast.suite import spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = ("precision", "recall", "correlation")


def draw_prediction(table: pa.Table, gaps: Mapping[str, Sequence[int]]) -> "Figure":
    """Precision, recall and correlation with their intervals, by model and by training step.

    `gaps` are each model's steps that are incomplete.
    """
    table = table.filter(pc.greater(table["sequences"], 0))
    steps_of: dict[str, set[int]] = {}
    for model, step in zip(table["model"].to_pylist(), table["step"].to_pylist(), strict=True):
        steps_of.setdefault(model, set()).add(step)
    lone = [model for model, steps in steps_of.items() if len(steps) == 1]
    many = [model for model in steps_of if model not in lone]
    panels = (1 if lone else 0) + len(many)
    figure = new_figure(max(panels, 1), width_in=4.5 if panels < 2 else 7.0, share_values=True)
    panel = iter(figure.axes)
    if not panels:
        return nothing_to_draw(figure)
    if lone:
        _by_model(next(panel), table.filter(pc.is_in(table["model"], pa.array(lone))))
    for model in many:
        axes = next(panel)
        own = table.filter(pc.equal(table["model"], model)).sort_by("step")
        lines = [
            Line(
                name,
                own["step"].to_pylist(),
                own[name].to_numpy(zero_copy_only=False).tolist(),
                own[f"{name}_low"].to_pylist(),
                own[f"{name}_high"].to_pylist(),
                [gap for gap in gaps.get(model, ()) if gap < own["target_step"][0].as_py()],
            )
            for name in _NAMES
        ]
        draw(axes, lines, "")
        itself = model == own["target"][0].as_py()
        axes.set_title(
            f"{model} itself, earlier" if itself else model, fontsize=TEXT_PT, parse_math=False
        )
    for axes in figure.axes:
        axes.set_ylim(-0.02, 1.02)
    target, step = table["target"][0].as_py(), table["target_step"][0].as_py()
    words = f"of what {target} has memorized\nat step {step:,}"
    figure.axes[0].set_ylabel(words, parse_math=False)
    legend(figure.axes[-1])
    return figure


def _by_model(axes: "Axes", table: pa.Table) -> None:
    """A place on the axis for each model, small ones first."""
    order = sorted(table.to_pylist(), key=lambda row: _parameters(row["model"]))
    places = np.arange(len(order), dtype=float)
    for index, name in enumerate(_NAMES):
        values = np.array([_number(row[name]) for row in order])
        low = np.array([_number(row[f"{name}_low"]) for row in order])
        high = np.array([_number(row[f"{name}_high"]) for row in order])
        colour = COLOURS[index]
        (drawn,) = axes.plot(
            places + 0.12 * (index - 1),
            values,
            linestyle="none",
            marker=MARKERS[index],
            markersize=5,
            color=colour,
            label=SHIELD + name,
        )
        drawn.set_gid(NAMED)
        axes.vlines(places + 0.12 * (index - 1), low, high, color=colour, linewidth=1.2)
    axes.set_xticks(places, [row["model"] for row in order], parse_math=False)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.tick_params(axis="x", labelrotation=30 if len(order) > 4 else 0)
    axes.set_title(
        "other models" if len(order) > 1 else order[0]["model"], fontsize=TEXT_PT, parse_math=False
    )
    axes.set_xlabel("predicted by")


def _parameters(model: str) -> int:
    try:
        return spec(model).parameters
    except UnknownModelError:
        return 0


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
