import sys
from itertools import pairwise

import pytest

from pythia_fast.plots import COLOURS, Line, curves, draw

NAN, INFINITY = float("nan"), float("inf")


def line(label="tiny", values=(300.0, 90.0, 7.0), steps=(0, 1, 1000)):
    return Line(label, steps, values)


def test_step_zero_is_on_the_logarithmic_axis():
    (axes,) = curves([line()], "perplexity").axes
    (drawn,) = axes.lines
    assert drawn.get_xdata().tolist() == [0, 1, 1000]
    assert drawn.get_ydata().tolist() == [300, 90, 7]
    assert axes.get_xscale() == "symlog"
    places = [axes.transData.transform((step, 10))[0] for step in (0, 1, 10, 100, 1000)]
    gaps = [right - left for left, right in pairwise(places)]
    assert min(gaps) > 20
    assert [label.get_text() for label in axes.get_xticklabels()][:5] == [
        "0",
        "1",
        "10",
        "100",
        "1,000",
    ]
    assert axes.get_title() == "tiny"


def test_several_models_are_several_lines_that_differ_in_more_than_colour():
    both = [line("a"), line("b", (200.0, 80.0, 6.0))]
    (axes,) = curves(both, "perplexity").axes
    first, second = axes.lines
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_marker() != second.get_marker()
    assert first.get_color() != second.get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_the_axis_says_what_the_metric_is():
    (axes,) = curves([line()], "memorization").axes
    assert axes.get_ylabel() == "share of sequences memorized"
    assert curves([line()], "charm").axes[0].get_ylabel() == "charm"


@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
def test_values_that_are_not_finite_leave_a_gap_and_a_note(bad, tmp_path):
    figure = curves([line(values=(300.0, bad, 7.0))], "perplexity")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["+ 1 value is not finite"]
    figure.savefig(tmp_path / "picture.png")
    figure.savefig(tmp_path / "picture.svg")


def test_all_values_may_be_missing(tmp_path):
    figure = curves([line(values=(NAN, NAN, NAN))], "perplexity")
    assert [text.get_text() for text in figure.axes[0].texts] == ["+ 3 values are not finite"]
    figure.savefig(tmp_path / "picture.png")


def lightness(colour):
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_shades_fall_steadily_in_grey():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw(axes, [Line(str(i), [0, 1], [i, i]) for i in range(5)], "y", shades=True)
    greys = [lightness(line.get_color()) for line in axes.lines]
    assert all(dark < light - 0.1 for light, dark in pairwise(greys))


def test_every_colour_is_seen_on_white():
    assert all(lightness(colour) < 0.72 for colour in COLOURS)


def test_pyplot_is_left_alone():
    loaded = "matplotlib.pyplot" in sys.modules
    curves([line()], "perplexity")
    assert ("matplotlib.pyplot" in sys.modules) == loaded
