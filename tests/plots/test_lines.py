"""Bands, gaps, axes and names of the house's figures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.plots import COLOURS, Line, curves, draw, legend, new_figure, save_figure

NAN = float("nan")
STEPS = (0, 1, 2, 4, 8, 16)


def values_of(axes, marker):
    """Where marks of that kind stand on the axis."""
    return [list(map(int, line.get_xdata())) for line in axes.lines if line.get_marker() == marker]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_no_line_leads_across_a_gap_and_gaps_are_marked():
    line = Line("a", (0, 1, 4, 16), (4.0, 3.0, 2.0, 1.0), gaps=(2, 8))
    (axes,) = curves([line], "x").axes
    drawn = axes.lines[0]
    assert drawn.get_xdata().tolist() == list(STEPS)
    assert np.isnan(drawn.get_ydata()).tolist() == [False, False, True, False, True, False]
    assert values_of(axes, "x") == [[2, 8]]
    assert texts(axes) == ["\u00d7 2 steps are incomplete"]


def test_gaps_of_two_lines_are_counted_once_and_stand_apart():
    lines = [Line(name, (0, 1), (1.0, 2.0), gaps=(2, 4)) for name in "ab"]
    (axes,) = curves(lines, "x").axes
    assert texts(axes) == ["\u00d7 2 steps are incomplete"]
    heights = {tuple(line.get_ydata()) for line in axes.lines if line.get_marker() == "x"}
    assert len(heights) == 2


def test_a_gap_at_the_end_is_within_the_axis():
    (axes,) = curves([Line("a", (0, 1), (1.0, 2.0), gaps=(143_000,))], "x").axes
    assert axes.get_xlim()[1] > 143_000


def test_values_that_are_not_finite_are_marked_apart_from_gaps():
    (axes,) = curves([Line("a", STEPS, (1.0, NAN, 2.0, 3.0, math.inf, 4.0), gaps=(32,))], "x").axes
    assert values_of(axes, "+") == [[1, 8]]
    assert texts(axes) == ["\u00d7 1 step is incomplete; + 2 values are not finite"]


def test_a_value_between_two_gaps_has_a_marker_whatever_is_close():
    steps = [*range(1000, 143_001, 1000)]
    line = Line("a", [50_000, *steps[60:]], [1.0] * (1 + len(steps[60:])), gaps=(49_000, 51_000))
    (axes,) = curves([line], "x", steps="linear").axes
    drawn = axes.lines[0]
    marked = {int(drawn.get_xdata()[index]) for index in drawn.get_markevery()}
    assert {50_000, 143_000} <= marked
    assert len(marked) < 40


def test_the_last_value_takes_no_marker_from_one_that_stands_alone():
    gaps = (139_000, 141_000)
    steps = [step for step in range(1000, 143_001, 1000) if step not in gaps]
    (axes,) = curves([Line("a", steps, [1.0] * len(steps), gaps=gaps)], "x", steps="linear").axes
    drawn = axes.lines[0]
    marked = [int(drawn.get_xdata()[index]) for index in drawn.get_markevery()]
    assert marked[-2:] == [140_000, 143_000]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"values": (1.0,)}, "the line 'mine' has 1 values for 3 steps"),
        ({"low": (1.0, 2.0), "high": (3.0, 4.0, 5.0)}, "2 low for 3 steps"),
        ({"low": (1.0, 2.0, 3.0), "high": (4.0,)}, "1 high for 3 steps"),
        ({"low": (1.0, 2.0, 3.0)}, "one end of its intervals: give both"),
        ({"steps": (0, 4, 2)}, "2 follows 4; sort them"),
        ({"steps": (0, 4, 4)}, "4 follows 4"),
    ],
)
def test_a_line_that_does_not_add_up_is_told(wrong, said):
    fields = {"steps": (0, 1, 2), "values": (1.0, 2.0, 3.0)}
    with pytest.raises(ArgumentError, match=said):
        Line("mine", **(fields | wrong))


def test_a_band_is_drawn_where_both_ends_are_known():
    line = Line("a", STEPS, (3.0,) * 6, low=(2.0, 2.0, None, 2.0, NAN, 2.0), high=(4.0,) * 6)
    (axes,) = curves([line], "x").axes
    band, lone = axes.collections
    covered = {float(x) for path in band.get_paths() for x in path.vertices[:, 0]}
    assert covered >= {0.0, 1.0}
    assert not covered & {2.0, 8.0}
    # A single known interval has no width to be filled: it is a bar.
    assert sorted({float(part[0][0]) for part in lone.get_segments()}) == [4.0, 16.0]


@pytest.mark.parametrize(
    ("steps", "ticks", "limits"),
    [
        ((0, 1, 1000), [0, 1, 10, 100, 1000], (0, 1100)),
        ((0, 1000, 143_000), [0, 1000, 10_000, 100_000], (0, 157_300)),
        ((3000, 143_000), [1000, 10_000, 100_000], (1000, 157_300)),
        ((143_000,), [143_000], (128_700, 157_300)),
        ((0,), [0, 1], (0, 1.1)),
        ((), [0, 1], (0, 1.1)),
    ],
)
def test_the_logarithmic_axis_has_room_for_zero_if_it_is_there(steps, ticks, limits):
    (axes,) = new_figure().axes
    draw(axes, [Line("a", steps, [1.0] * len(steps))], "y")
    assert axes.get_xticks().tolist() == ticks
    assert axes.get_xlim() == pytest.approx(limits)


def test_the_linear_axis_is_linear_and_readable():
    (axes,) = curves([Line("a", (0, 143_000), (1.0, 2.0))], "x", steps="linear").axes
    assert axes.get_xscale() == "linear"
    axes.figure.draw_without_rendering()
    assert "100,000" in [label.get_text() for label in axes.get_xticklabels()]
    with pytest.raises(ArgumentError, match="'log' or 'linear', not 'sqrt'"):
        curves([Line("a", (0,), (1.0,))], "x", steps="sqrt")


@pytest.mark.parametrize("metric", ["perplexity", "wikitext: word_perplexity", "lambada: ppl"])
def test_perplexities_are_on_a_logarithmic_axis(metric):
    assert curves([Line("a", STEPS, (9.0,) * 6)], metric).axes[0].get_yscale() == "log"
    assert curves([Line("a", STEPS, (9.0,) * 6)], "acc").axes[0].get_yscale() == "linear"


def test_a_model_that_has_diverged_is_drawn_too(tmp_path):
    line = Line("a", STEPS, (5e4, 1e3, 1e304, 3e5, math.inf, 9.0), (9.0,) * 6, (1e199,) * 6)
    figure = curves([line], "perplexity")
    save_figure(figure, tmp_path / "a.png", dpi=50)
    assert texts(figure.axes[0]) == ["+ 2 values are too large or not finite"]


def test_nothing_to_draw_says_so():
    with pytest.raises(ArgumentError, match="no step has a value of acc, so there is nothing"):
        curves([], "acc")
    with pytest.raises(ArgumentError, match=r"no step of a, b has .*; incomplete: 2 steps of b"):
        curves([Line("a", (), ()), Line("b", (), (), gaps=(1, 2))], "acc")


ODD = ("_hidden", "$x$", "a_$b", "^{", "\\frac", "a" * 120)


def test_names_are_shown_as_they_are(tmp_path):
    lines = [Line(name, (0, 1), (1.0, 2.0)) for name in ODD]
    figure = curves(lines, "metric_$with$_{odd")
    shown = [text.get_text().replace("\n", "") for text in figure.axes[0].get_legend().get_texts()]
    assert shown == list(ODD)
    for name in ODD:
        save_figure(curves([Line(name, (0, 1), (1.0, 2.0))], name), tmp_path / "one.png", dpi=50)
    save_figure(figure, tmp_path / "all.svg")
    assert "$x$" in (tmp_path / "all.svg").read_text()


@pytest.mark.parametrize("count", [2, 7, 8, 21, 40])
def test_no_legend_or_label_is_cut_off(count):
    figure = curves([Line(f"{n}m-deduped", STEPS, (n,) * 6, gaps=(32,)) for n in range(count)], "x")
    figure.draw_without_rendering()
    assert_inside(figure)


@pytest.mark.parametrize("letters", [30, 60, 200])
def test_long_names_are_not_cut_off(letters):
    names = [f"{n}{'-long' * (letters // 5)}" for n in range(3)]
    for some in (names, names[:1]):
        figure = curves([Line(name, STEPS, (1.0,) * 6) for name in some], "y" * 80)
        assert_inside(figure)


def assert_inside(figure):
    """All text lies within the page, after the layout has settled."""
    figure.draw_without_rendering()
    figure.draw_without_rendering()
    page = figure.bbox
    (axes,) = figure.axes
    made = axes.get_legend()
    artists = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    artists += made.get_texts() if made else []
    for artist in artists:
        if artist.get_text():
            box = artist.get_window_extent()
            assert box.x0 >= page.x0 - 1, artist.get_text()
            assert box.y0 >= page.y0 - 1, artist.get_text()
            assert box.x1 <= page.x1 + 1, artist.get_text()
            assert box.y1 <= page.y1 + 1, artist.get_text()


def test_lines_beyond_the_colours_still_differ():
    (axes,) = curves([Line(str(n), STEPS, (n,) * 6) for n in range(28)], "x").axes
    looks = {(each.get_color(), each.get_linestyle(), each.get_marker()) for each in axes.lines}
    assert len(looks) == 28
    assert axes.lines[0].get_color() == axes.lines[len(COLOURS)].get_color()


def test_new_figure_has_panels_row_by_row():
    figure = new_figure(3, 2, share_steps=True, share_values=True)
    assert len(figure.axes) == 6
    places = [axes.get_subplotspec().get_geometry()[2] for axes in figure.axes]
    assert places == list(range(6))
    figure.axes[0].set_xlim(0, 5)
    assert figure.axes[3].get_xlim() == (0, 5)
    for wrong in ({"columns": 0}, {"rows": -1}, {"width_in": 0}, {"height_in": NAN}):
        with pytest.raises(ArgumentError, match="at least one column"):
            new_figure(**wrong)


def test_a_legend_of_others_artists_is_matplotlibs():
    (axes,) = new_figure().axes
    legend(axes)
    assert axes.get_legend() is None
    axes.plot([1, 2], [3, 4], label="mine")
    legend(axes, title="runs")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mine"]
    assert axes.get_legend().get_title().get_text() == "runs"


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.integers(0, 200_000) | st.integers(199_900, 200_000),
        st.tuples(
            st.floats(-1e150, 1e150) | st.sampled_from([NAN, math.inf]),
            st.floats(0, 1) | st.none() | st.just(NAN),
        ),
        max_size=40,
    ),
    st.sets(st.integers(0, 200_000) | st.integers(199_900, 200_000), max_size=20),
    st.sampled_from(["log", "linear"]),
    st.booleans(),
)
def test_any_line_can_be_drawn(points, gaps, scale, logarithmic):
    order = sorted(points)
    line = Line(
        "any",
        order,
        [points[step][0] for step in order],
        [points[step][1] for step in order],
        [points[step][1] for step in order],
        tuple(gaps),
    )
    figure = new_figure(width_in=3, height_in=2)
    (axes,) = figure.axes
    draw(axes, [line], "y", logarithmic=logarithmic, steps=scale)
    finite = [step for step in order if math.isfinite(points[step][0])]
    drawn = axes.lines[0]
    shown = drawn.get_xdata()[np.isfinite(drawn.get_ydata())]
    assert shown.tolist() == finite
    marked = {int(drawn.get_xdata()[index]) for index in drawn.get_markevery()}
    assert marked <= set(finite)
    every = sorted({*points, *gaps})
    broken = {-1, len(every), *(i for i, step in enumerate(every) if step not in finite)}
    alone = {every[i] for i in range(len(every)) if i not in broken and {i - 1, i + 1} <= broken}
    assert alone | set(finite[-1:]) <= marked
