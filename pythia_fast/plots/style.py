"""How all figures look: sizes for print, colours that survive a copier, no line without a use."""

import io
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any

from pythia_fast.errors import ArgumentError
from pythia_fast.extras import require

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette without its yellow, which is too faint on white; dark ones first."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
NAMED = "named"
"""The gid of what belongs into a legend."""
SHIELD = "\u200b"
"""Before a label: matplotlib hides what begins with an underscore."""
TEXT_PT = 9.0
SMALL_PT = 8.0
_WIDTH_IN = 7.0  # of two columns of a page
_PANEL_IN = 3.6  # high
_SCREEN_DPI = 110
_LEGEND_LINES = 7  # more lines have their legend beside the panel
_BELOW_LETTERS = 88
_LINE_IN = 0.17
_BELOW_IN = 0.62  # of the axis: under its ticks, its name and a note
_LEGEND_LETTERS = 28  # and longer names have it below


def new_figure(
    columns: int = 1,
    rows: int = 1,
    *,
    width_in: float = _WIDTH_IN,
    height_in: float | None = None,
    share_steps: bool = False,
    share_values: bool = False,
) -> "Figure":
    """A figure with `rows` × `columns` empty panels, `figure.axes` row by row.

    `height_in` None gives each row 3.6 inches, or less where the panels are narrow. Panels may
    share the axis of the steps down a column, and that of the values along a row. ArgumentError
    for no panels or no size.
    """
    if columns < 1 or rows < 1 or not width_in > 0 or not (height_in is None or height_in > 0):
        raise ArgumentError(
            "a figure has at least one column and row and a size in inches, not "
            f"columns={columns}, rows={rows}, width_in={width_in}, height_in={height_in}"
        )
    require("matplotlib")
    from matplotlib.figure import Figure

    if height_in is None:
        panel_in = min(_PANEL_IN, max(2.2, 0.8 * width_in / columns))
        height_in = rows * panel_in + 0.4
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    panels = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharex="col" if share_steps else False,
        sharey="row" if share_values else False,
    )
    for axes in panels.flat:
        dress(axes)
    vars(figure)["_repr_png_"] = partial(_png, figure)  # pyplot would teach notebooks all figures
    return figure


def _png(figure: "Figure") -> bytes:
    """What a notebook shows of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(picture, format="png", dpi=_SCREEN_DPI)
    return picture.getvalue()


def dress(axes: "Axes") -> None:
    """Give a panel the house's sizes, a faint grid and no frame on the right and above."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL_PT)
    axes.xaxis.label.set_fontsize(TEXT_PT)
    axes.yaxis.label.set_fontsize(TEXT_PT)


def title(axes: "Axes", text: str, *, letters: int = 72) -> None:
    """Name a panel, in lines of at most so many letters; a dollar in it begins no formula."""
    lines = "\n".join(textwrap.wrap(text, letters))
    axes.set_title(lines, fontsize=TEXT_PT + 1, parse_math=False)


def legend(axes: "Axes", *, title: str | None = None) -> None:
    """The names of a panel's lines, inside it or, where they are many or long, beside or below.

    Names are shown as they are: a dollar begins no formula, and an underscore hides nothing.
    Without lines of `draw`, those are named that have a label of matplotlib's.
    """
    from matplotlib.transforms import ScaledTranslation

    drawn: list[Artist] = [*axes.lines, *axes.collections, *axes.patches]
    named = [handle for handle in drawn if handle.get_gid() == NAMED]
    named = named or [each for each in drawn if not str(each.get_label()).startswith("_")]
    if not named:
        return
    names = [str(handle.get_label()).removeprefix(SHIELD) for handle in named]
    longest = max(map(len, names))
    place: dict[str, Any] = {"loc": "best"}
    if longest > _LEGEND_LETTERS:
        names = ["\n".join(textwrap.wrap(name, _BELOW_LETTERS)) or name for name in names]
        below = ScaledTranslation(0, -_BELOW_IN, axes.figure.dpi_scale_trans)
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
        place["bbox_transform"] = axes.transAxes + below
        whole = axes.get_figure(root=True)
        assert whole is not None  # the panel is of a figure
        whole.set_figheight(
            whole.get_figheight() + _LINE_IN * sum(n.count("\n") + 1 for n in names)
        )
        place["ncols"] = 2 if longest <= 40 and len(names) > 2 else 1
    elif len(names) > _LEGEND_LINES:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
        place["ncols"] = 1 + (len(names) - 1) // 20
    made = axes.legend(
        named,
        [str(number) for number in range(len(names))],
        frameon="bbox_to_anchor" not in place,
        framealpha=0.8,
        edgecolor="none",
        fontsize=SMALL_PT,
        title=title,
        title_fontsize=SMALL_PT,
        handlelength=3.2,  # long enough for the dashes to be told apart
        **place,
    )
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
