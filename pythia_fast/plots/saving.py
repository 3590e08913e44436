"""Figures as files: the same figure gives the same bytes, and text in it stays text."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError
from pythia_fast.extras import require
from pythia_fast.publish import published, require_folder, require_plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "pythia-fast", "pdf.fonttype": 42}
_UNDATED: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_MOST_DPI = 2400


def save_figure(figure: "Figure", path: str | Path, *, dpi: float = 300) -> Path:
    """Write a figure as .png, .svg or .pdf, whole or not at all.

    In SVG and PDF text stays text (PDF embeds the font as TrueType). The same figure gives the
    same bytes: no date, no random ids. `dpi` is dots per inch, of a PNG. ArgumentError for
    another ending or `dpi`; WriteError where the file cannot be written.
    """
    target = check_figure_path(path)
    if not 0 < dpi <= _MOST_DPI:
        raise ArgumentError(f"dpi is more than 0 and at most {_MOST_DPI}, not {dpi}")
    matplotlib = require("matplotlib")
    kind = target.suffix.lower()
    image = BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(image, format=kind[1:], dpi=dpi, metadata=_UNDATED[kind])
    require_plain(target)
    with published(target) as file:
        file.write(image.getvalue())
    return target


def check_figure_path(path: str | Path) -> Path:
    """The path of a figure to be written.

    ArgumentError unless it ends in one of `FORMATS`, WriteError unless its folder is there.
    """
    target = expanded(path)
    if target.suffix.lower() not in FORMATS:
        raise ArgumentError(
            f"{target} ends in none of {', '.join(FORMATS)}: give it one, which says what to write"
        )
    require_folder(target)
    return target
