"""The figure of the study of gender bias: a column for each model, a panel for each measure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pythia_fast.plots import Line, StepAxis, draw, new_figure, title
from pythia_fast.plots.style import NAMED, SMALL_PT
from pythia_fast.quantities import counted
from pythia_fast.suite import models
from pythia_fast.words import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = (
    ("crows-pairs", "value", "CrowS-Pairs: stereotyped likelier", 0.5),
    ("winobias", "value", "WinoBias: pro minus anti", 0.0),
    ("winobias", "accuracy", "WinoBias: mean accuracy", None),
)

_COLUMNS = 4  # of models; more are too narrow
_BANDED = 4  # lines, of which the bands can be told apart
_SHORT = {None: "base", "intervention": "swapped", "long-intervention": "swapped longer"}
_COLUMN_IN, _PANEL_IN = 2.5, 2.3
_TITLE_LETTERS, _LEGEND_LETTERS, _NOTE_LETTERS = 28, 20, 110
_LEGEND_COLUMNS, _LEGEND_LINE_IN = 4, 0.2
_NAMED_MODELS = 6  # of those that are left out


def draw_bias(table: pa.Table, steps: StepAxis) -> "Figure":
    """What there is of the three: bias by both, with intervals, and WinoBias' accuracy.

    A column for each model with a line for each variant: of up to four models, intervened ones
    first; a note names the others. Evaluations as a baseline fill the model's own line where it has
    no others. A linear axis of an intervened model starts a little before its intervention.
    """
    rows = _one_base(table.to_pylist())
    panels = [panel for panel in _PANELS if any(row["measure"] == panel[0] for row in rows)]
    every = sorted(dict.fromkeys(row["model"] for row in rows), key=lambda name: _rank(name, rows))
    shown = every[:_COLUMNS]
    rows = [row for row in rows if row["model"] in shown]
    variants = sorted(
        dict.fromkeys(row["variant"] for row in rows), key=lambda each: (each is not None, each)
    )
    legend_lines = -(-len(variants) // _LEGEND_COLUMNS) if len(variants) > 1 else 0
    figure = new_figure(
        len(shown),
        len(panels),
        width_in=max(7.0, 0.6 + _COLUMN_IN * len(shown)),
        height_in=0.8 + _PANEL_IN * len(panels) + _LEGEND_LINE_IN * legend_lines,
        share_values=True,
    )
    for index, axes in enumerate(figure.axes):
        row, column = divmod(index, len(shown))
        own = [each for each in rows if each["model"] == shown[column]]
        _panel(axes, own, variants, panels[row], steps, narrow=len(shown) > 2)
        if row == 0:
            title(axes, _cut(shown[column], 2 * _TITLE_LETTERS), letters=_TITLE_LETTERS)
        if row + 1 < len(panels):
            axes.set_xlabel("")
        if column > 0:
            axes.set_ylabel("")
    if legend_lines:
        _legend(figure, variants)
    if len(every) > len(shown):
        _note(figure, every[len(shown) :])
    return figure


def _one_base(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, of which those of a baseline are the model's own where it has none."""
    own = {_place(row) for row in rows if row["variant"] is None}
    kept = [row for row in rows if row["variant"] != "baseline" or _place(row) not in own]
    return [row | {"variant": None} if row["variant"] == "baseline" else row for row in kept]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["step"], row["measure"]


def _rank(name: str, rows: Sequence[dict[str, Any]]) -> tuple[bool, bool, int, str]:
    """Intervened ones first, then the second release, then by size."""
    mine = any(_is_intervened(row) for row in rows if row["model"] == name)
    suite = [model.name for model in models()]
    return not mine, name.endswith("-v0"), suite.index(name) if name in suite else -1, name


def _is_intervened(row: dict[str, Any]) -> bool:
    """Other variants, such as other batch sizes, are trained otherwise from the start."""
    return "intervention" in (row["variant"] or "")


def _panel(
    axes: "Axes",
    rows: Sequence[dict[str, Any]],
    variants: Sequence[str | None],
    panel: tuple[str, str, str, float | None],
    steps: StepAxis,
    *,
    narrow: bool,
) -> None:
    """One measure of one model."""
    measure, column, label, nothing = panel
    first = 0.0
    late = [row["step"] for row in rows if _is_intervened(row)]
    if late and steps == "linear":
        first = max(0.0, min(late) - 0.3 * (max(late) - min(late)) - 1)
        rows = [row for row in rows if row["step"] >= first]
    lines = _lines(rows, variants, measure, column)
    draw(axes, lines, label, steps=steps)
    for line in axes.lines:
        line.set_in_layout(False)  # one without values counts as a point at the figure's corner
    if not any(line.steps for line in lines):
        axes.set_xticks([])
        axes.text(0.5, 0.5, "not evaluated", ha="center", transform=axes.transAxes)
        return
    if nothing is not None:
        axes.axhline(nothing, color="#777777", linewidth=0.8, zorder=1)
    if steps == "log":
        if narrow:
            ticks = axes.get_xticks().tolist()
            axes.set_xticks(ticks, [f"{t:,.0f}" if i % 2 == 0 else "" for i, t in enumerate(ticks)])
    elif len({row["step"] for row in rows}) > 1:
        axes.locator_params(axis="x", nbins=3 if narrow else 5)
        if first > 0:
            last = max(row["step"] for row in rows)
            axes.set_xlim(first, last + 0.03 * (last - first))


def _lines(
    rows: Sequence[dict[str, Any]], variants: Sequence[str | None], measure: str, column: str
) -> list[Line]:
    """A line for each variant, the same in all panels, with bands where they are few."""
    lines = []
    banded = column == "value" and len(variants) <= _BANDED
    for variant in variants:
        own = [row for row in rows if (row["variant"], row["measure"]) == (variant, measure)]
        own.sort(key=lambda row: row["step"])
        low, high = ([row[end] for row in own] if banded else None for end in ("low", "high"))
        label = _SHORT.get(variant, variant or "")
        lines.append(
            Line(label, [row["step"] for row in own], [row[column] for row in own], low, high)
        )
    return lines


def _legend(figure: "Figure", variants: Sequence[str | None]) -> None:
    """Below all panels, in room of its own."""
    handles = [line for line in figure.axes[0].lines if line.get_gid() == NAMED]
    made = figure.legend(
        handles,
        [str(number) for number in range(len(handles))],
        loc="outside lower center",
        ncols=min(_LEGEND_COLUMNS, len(handles)),
        frameon=False,
        fontsize=SMALL_PT,
        handlelength=3.2,
    )
    for text, variant in zip(made.get_texts(), variants, strict=True):
        text.set_parse_math(False)
        text.set_text(_cut(_SHORT.get(variant, variant or ""), _LEGEND_LETTERS))


def _note(figure: "Figure", left_out: Sequence[str]) -> None:
    """Which models are not shown."""
    names = listed(left_out, _NAMED_MODELS)
    words = f"{counted(len(left_out), 'more model')}, not shown: {names}"
    made = figure.suptitle(_cut(words, _NOTE_LETTERS))
    made.set_fontsize(SMALL_PT)
    made.set_parse_math(False)


def _cut(text: str, most: int) -> str:
    """At most so many letters of it."""
    return text if len(text) <= most else text[: most - 1] + "…"
