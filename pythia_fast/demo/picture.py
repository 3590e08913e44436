"""The demo's picture: the loss, and what is memorized of what was planted how often."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pythia_fast.plots import Line, draw


class Point(Protocol):
    """What is drawn of a checkpoint."""

    @property
    def step(self) -> int:
        """The training step."""
        ...

    @property
    def loss(self) -> float:
        """Nats per byte."""
        ...

    @property
    def memorized(self) -> Mapping[int, float]:
        """The share of canaries memorized, by times planted."""
        ...


def draw_picture(path: Path, points: Sequence[Point]) -> Path | None:
    """Write the picture to `path`; None if matplotlib is not installed (extra: `plot`)."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError:
        return None
    steps = [point.step for point in points]
    figure = Figure(figsize=(7, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    draw(upper, [Line("loss", steps, [point.loss for point in points])], "loss (nats per byte)")
    upper.set_xlabel("")
    upper.set_ylim(bottom=0)
    lines = [
        Line(str(times), steps, [point.memorized[times] for point in points])
        for times in sorted(points[0].memorized)
    ]
    draw(lower, lines, "share memorized", shades=True)
    lower.set_ylim(0, 1)
    lower.yaxis.set_major_formatter(PercentFormatter(1))
    lower.legend(title="times planted", frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)
    return path
