"""Learning curves: one metric over the steps, a line for each model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pythia_fast.errors import ArgumentError
from pythia_fast.plots.lines import Line, StepAxis, draw
from pythia_fast.plots.style import legend, new_figure, title
from pythia_fast.quantities import counted
from pythia_fast.words import listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "perplexity": "perplexity",
    "memorization": "share of sequences memorized",
    "memorization-score": "memorization score",
    "loss": "loss (nats per token)",
}
"""What stands on the axis for a metric's name; another metric's name stands for itself."""
_LOGARITHMIC = ("perplexity", "ppl")  # also as the last word of a task's metric


def curves(lines: Sequence[Line], metric: str, *, steps: StepAxis = "log") -> "Figure":
    """A figure with one panel for these lines; `metric` names the axis of the values.

    ArgumentError if no line has any value, which also says how many steps of which are incomplete.
    """
    if not any(line.steps for line in lines):
        gaps = [
            f"{counted(len(set(each.gaps)), 'step')} of {each.label}" for each in lines if each.gaps
        ]
        whose = f" of {listed(line.label for line in lines)}" if lines else ""
        raise ArgumentError(
            f"no step{whose} has a value of {metric}, so there is nothing to plot"
            f"{f'; incomplete: {listed(gaps)}' if gaps else ''}"
        )
    figure = new_figure()
    (axes,) = figure.axes
    logarithmic = metric.rpartition(":")[2].strip().rpartition("_")[2] in _LOGARITHMIC
    draw(axes, lines, LABELS.get(metric, metric), logarithmic=logarithmic, steps=steps)
    if len(lines) == 1:
        title(axes, lines[0].label)
    else:
        legend(axes)
    return figure
