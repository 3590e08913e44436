"""The figure of the study of gender bias: a panel for each measure, a line for each model."""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pythia_fast.plots import Line, StepAxis, draw, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (
    ("crows-pairs", "value", "CrowS-Pairs: stereotyped likelier", 0.5),
    ("winobias", "value", "WinoBias: pro minus anti", 0.0),
    ("winobias", "accuracy", "WinoBias: mean accuracy", None),
)

_BANDED = 4  # lines, of which the bands can be told apart
_SHORT = {"intervention": "swapped", "long-intervention": "swapped longer"}


def draw_bias(table: pa.Table, steps: StepAxis) -> "Figure":
    """What there is of the three: bias by both, with intervals, and WinoBias' accuracy.

    Evaluations as a baseline fill the model's own line where it has no others. Beside intervened
    models only their bases are shown, on a linear axis from a little before the intervention on.
    """
    rows = _one_base(table.to_pylist())
    intervened = [row for row in rows if row["variant"] is not None]
    first = 0.0
    if intervened:
        models = {row["model"] for row in intervened}
        rows = [row for row in rows if row["model"] in models]
        if steps == "linear":
            late = [row["step"] for row in intervened]
            first = min(late) - 0.3 * (max(late) - min(late)) - 1
            rows = [row for row in rows if row["step"] >= first]
    panels = [panel for panel in _PANELS if any(row["measure"] == panel[0] for row in rows)]
    figure = new_figure(rows=max(1, len(panels)), height_in=0.6 + 2.6 * max(1, len(panels)))
    if not panels:
        figure.axes[0].set_axis_off()
        figure.axes[0].text(0.5, 0.5, "nothing to draw: see the summary", ha="center", va="center")
        return figure
    for axes, (measure, column, label, nothing) in zip(figure.axes, panels, strict=True):
        draw(axes, _lines(rows, measure, column), label, steps=steps)
        if nothing is not None:
            axes.axhline(nothing, color="#777777", linewidth=0.8, zorder=1)
        if first > 0:
            axes.set_xlim(left=first)
    legend(figure.axes[0])
    return figure


def _one_base(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, of which those of a baseline are the model's own where it has none."""
    own = {_place(row) for row in rows if row["variant"] is None}
    kept = [row for row in rows if row["variant"] != "baseline" or _place(row) not in own]
    return [row | {"variant": None} if row["variant"] == "baseline" else row for row in kept]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["step"], row["measure"]


def _lines(rows: list[dict[str, Any]], measure: str, column: str) -> list[Line]:
    """A line for each model and variant, the same in all panels, with bands where they are few."""
    lines = []
    names = dict.fromkeys((row["model"], row["variant"]) for row in rows)
    banded = column == "value" and len(names) <= _BANDED
    for model, variant in names:
        own = [row for row in rows if (row["model"], row["variant"]) == (model, variant)]
        own = sorted((row for row in own if row["measure"] == measure), key=lambda r: r["step"])
        low, high = ([row[end] for row in own] if banded else None for end in ("low", "high"))
        label = model if variant is None else f"{model}, {_SHORT.get(variant, variant)}"
        lines.append(
            Line(label, [row["step"] for row in own], [row[column] for row in own], low, high)
        )
    return lines
