"""Lines over training steps: bands, gaps, and values that cannot be drawn."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import ArgumentError
from pythia_fast.plots.style import COLOURS, DASHES, MARKERS, NAMED, SHIELD, SMALL_PT, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

StepAxis = Literal["log", "linear"]
Floats = npt.NDArray[np.float64]
Colour = str | tuple[float, float, float]
_LABEL_LETTERS = 36
_HUGE = 1e200  # what is larger cannot be drawn either: axes overflow
_MANY_DECADES = 5  # of values, between whose powers of ten there is no room for names
_RUNG, _RUNGS = 0.022, 8
"""How high above the axis a line's marks stand, so that several lines' do not hide each other."""
_MARKERS_MOST = 30  # along the axis; more of them hide the line


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a picture: a value for each step.

    ArgumentError if there are not as many values, or ends of intervals, as steps, if only one end
    of the intervals is given, or if the steps do not rise.

    Attributes:
        label: its name in the legend.
        steps: in rising order, each once.
        values: one for each step; one that is not finite, or beyond 1e200, breaks the line.
        low, high: the ends of an interval around each value; NaN or None where there is none.
        gaps: steps that belong to the line but have no value: they break it, and are marked.
    """

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    gaps: Sequence[int] = field(default=())

    def __post_init__(self) -> None:
        """Check what would be drawn wrong, or fail only when it is drawn."""
        whose, steps = f"the line {self.label!r}", list(self.steps)
        if (self.low is None) != (self.high is None):
            raise ArgumentError(f"{whose} has one end of its intervals: give both low and high")
        for name in ("values", "low", "high"):
            column = getattr(self, name)
            if column is not None and len(column) != len(steps):
                raise ArgumentError(
                    f"{whose} has {len(column)} {name} for {len(steps)} steps: give one for each"
                )
        for before, after in pairwise(steps):
            if not before < after:
                raise ArgumentError(
                    f"the steps of {whose} do not rise: {after} follows {before}; sort them, and "
                    "give each step once"
                )


def draw(
    axes: "Axes",
    lines: Sequence[Line],
    label: str,
    *,
    logarithmic: bool = False,
    shades: bool = False,
    steps: StepAxis = "log",
) -> None:
    """Draw lines over training steps, the axis logarithmic but with room for step 0, or linear.

    `shades` draws them from light to dark instead of in distinct colours, for lines that have an
    order; `logarithmic` is about the values. Steps without a value are marked on the axis, and no
    line leads across them; how many there are, and how many values are not finite, a note says.
    """
    if steps not in ("log", "linear"):
        raise ArgumentError(f"the axis of the steps is 'log' or 'linear', not {steps!r}")
    every = [step for line in lines for step in (*line.steps, *line.gaps)]
    _step_axis(axes, every, steps)
    drawn = [value for line in lines for value in line.values if abs(value) < _HUGE]
    if logarithmic and drawn and min(drawn) > 0:
        _logarithmic_values(axes, decades=math.log10(max(drawn)) - math.log10(min(drawn)))
    missing = 0
    for index, line in enumerate(lines):
        colour = _shade(index, len(lines)) if shades else COLOURS[index % len(COLOURS)]
        missing += _draw_line(axes, line, index, colour, steps)
    axes.set_xlabel("training step")
    axes.set_ylabel("\n".join(textwrap.wrap(label, _LABEL_LETTERS)), parse_math=False)
    dress(axes)
    every_value = (value for line in lines for value in line.values)
    lost = (
        "too large or not finite"
        if any(_HUGE <= abs(x) < math.inf for x in every_value)
        else "not finite"
    )
    _note(axes, missing, lost, len({step for line in lines for step in line.gaps}))


def _draw_line(axes: "Axes", line: Line, index: int, colour: Colour, scale: StepAxis) -> int:
    """Draw one line; returns how many of its values are not finite."""
    own = dict(zip(line.steps, line.values, strict=True))
    gaps = sorted(set(line.gaps) - own.keys())
    places = np.array(sorted([*own, *gaps]), dtype=float)
    values = np.array([own.get(int(place), math.nan) for place in places], dtype=float)
    finite = np.abs(values) < _HUGE
    values = np.where(finite, values, np.nan)
    (drawn,) = axes.plot(
        places,
        values,
        label=SHIELD + line.label,
        linestyle=DASHES[index % len(DASHES)],
        marker=MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
        markevery=_marked(places, finite, scale),
        color=colour,
        markersize=4.5,
        linewidth=1.6,
        clip_on=False,
        zorder=3,
    )
    drawn.set_gid(NAMED)
    if line.low is not None and line.high is not None:
        _band(axes, line, places, colour)
    lost = [place for place in own if not abs(own[place]) < _HUGE]
    for marker, steps in (("x", gaps), ("+", lost)):
        if not steps:
            continue
        axes.plot(
            steps,
            [_RUNG * (index % _RUNGS)] * len(steps),
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            marker=marker,
            markersize=5 if marker == "x" else 7,
            markeredgewidth=1.4,
            color=colour,
            clip_on=False,
            zorder=4,
        )
    return len(lost)


def _band(axes: "Axes", line: Line, places: Floats, colour: Colour) -> None:
    """Fill between the ends of the intervals, where both are finite."""
    ends = []
    for side in (line.low, line.high):
        own = dict(zip(line.steps, side or (), strict=True))
        each = (own.get(int(place)) for place in places)
        ends.append(np.array([math.nan if end is None else end for end in each], dtype=float))
    low, high = ends
    known = (np.abs(low) < _HUGE) & (np.abs(high) < _HUGE)
    axes.fill_between(
        places, low, high, where=known, color=colour, alpha=0.16, linewidth=0, zorder=2
    )
    edge = [False]
    lone = known & ~np.r_[edge, known[:-1]] & ~np.r_[known[1:], edge] if len(known) else known
    axes.vlines(places[lone], low[lone], high[lone], color=colour, alpha=0.45, linewidth=1.2)


def _marked(places: Floats, finite: npt.NDArray[np.bool_], scale: StepAxis) -> list[int]:
    """Which points get a marker: all, or where they lie close those that stand apart.

    A point with no neighbour always has one, since no line shows it. So has the last one, where
    training ended; that just before it gives way.
    """
    along = np.log1p(places) if scale == "log" else places
    apart = float(np.ptp(along)) / _MARKERS_MOST if len(along) else 0.0
    edge = [False]
    alone = finite & ~np.r_[edge, finite[:-1]] & ~np.r_[finite[1:], edge]
    chosen: list[int] = []
    last = -math.inf
    every = np.flatnonzero(finite).tolist()
    for index in every:
        if along[index] - last >= apart * 0.999 or alone[index]:
            chosen.append(index)
            last = float(along[index])
    if every and every[-1] != chosen[-1]:
        if not alone[chosen[-1]]:
            chosen.pop()
        chosen.append(every[-1])
    return chosen


def _step_axis(axes: "Axes", every: Sequence[int], scale: StepAxis) -> None:
    """Scale, limits and ticks. Zero has its place on a logarithmic axis too."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    last, first = max(every, default=1), min(every, default=0)
    if first == last > 0:
        axes.set_xticks([first], [f"{first:,}"])
        axes.set_xlim(first * 0.9, first * 1.1)
        return
    if scale == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.set_xlim(min(0, first), max(last, 1) * 1.03)
        return
    after_zero = min((step for step in every if step > 0), default=1)
    decade = 10 ** int(math.log10(after_zero))
    axes.set_xscale("symlog", linthresh=decade, linscale=0.4)
    powers = range(len(str(decade)) - 1, max(len(str(last)), len(str(decade))))
    zero = [0] if first <= 0 else []
    ticks = [*zero, *(10**power for power in powers)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    minor = [digit * tick for tick in ticks if tick for digit in range(2, 10)]
    axes.set_xticks([tick for tick in minor if tick <= last], minor=True)
    axes.set_xlim(0 if zero else min(decade, first * 0.9), max(last, decade) * 1.1)


def _note(axes: "Axes", missing: int, lost: str, gaps: int) -> None:
    """Below the axis, where no line runs, what the lines do not show."""
    words = []
    if gaps:
        words.append(f"\u00d7 {gaps} {'step is' if gaps == 1 else 'steps are'} incomplete")
    if missing:
        words.append(f"+ {missing} {'value is' if missing == 1 else 'values are'} {lost}")
    if words:
        axes.annotate(
            "; ".join(words),
            (1.0, 0.0),
            xytext=(0, -34),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=SMALL_PT,
            annotation_clip=False,
        )


def _shade(index: int, count: int) -> tuple[float, float, float]:
    """From light blue to black: lightness falls steadily, so that it survives a copier."""
    part = index / max(count - 1, 1)
    light, dark = np.array([0.48, 0.70, 0.88]), np.array([0.02, 0.05, 0.15])
    red, green, blue = (light + (dark - light) * part).tolist()
    return red, green, blue


def _logarithmic_values(axes: "Axes", decades: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    def plain(value: Any, _: object) -> str:
        return f"{value:,g}" if value < 1e6 else f"{value:g}"

    axes.set_yscale("log")
    subs = (1, 2, 5) if decades < _MANY_DECADES else (1,)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
