"""Pictures of what a sweep found (extra: `analysis`).

Figures are made without pyplot: no global state, no window, nothing to close. Lines differ in
shade, dash and marker, so that they can be told apart in grey and by the colour-blind.
"""

from pythia_fast.plots.curves import LABELS, curves
from pythia_fast.plots.lines import Line, StepAxis, draw
from pythia_fast.plots.saving import FORMATS, save_figure
from pythia_fast.plots.style import COLOURS, DASHES, MARKERS, legend, new_figure, title

__all__ = [
    "COLOURS",
    "DASHES",
    "FORMATS",
    "LABELS",
    "MARKERS",
    "Line",
    "StepAxis",
    "curves",
    "draw",
    "legend",
    "new_figure",
    "save_figure",
    "title",
]
