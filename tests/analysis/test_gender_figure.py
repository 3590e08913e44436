"""The figure of gender bias: what its panels show, and that they keep their size."""

import pytest

from pythia_fast.analysis.gender import gender_bias

INTERVENED = "410m-deduped"


def panels(figure):
    """Of each panel its lines with values, by the label in the legend; after the layout is made."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_gid() == "named" and len(line.get_xdata())]
        found.append([line.get_label().lstrip("\u200b") for line in lines])
    return found


def legend(figure):
    return [text.get_text() for made in figure.legends for text in made.get_texts()]


def sizes_in(figure):
    """The width and the height of the smallest panel."""
    boxes = [axes.get_position() for axes in figure.axes]
    width, height = figure.get_size_inches()
    return min(box.width for box in boxes) * width, min(box.height for box in boxes) * height


@pytest.mark.parametrize("axis", ["linear", "log"])
def test_a_column_a_model_and_a_line_a_variant(axis, table, rows, wino):
    late = [rows(step=step, crows=(0.6, 0.1), wino=wino()) for step in (0, 141_000, 143_000)]
    swapped = [
        rows(variant="intervention", step=step, crows=(0.5, 0.1), wino=wino())
        for step in (141_000, 143_000)
    ]
    other = rows("1b", "bf16", step=143_000, crows=(0.6, 0.1))
    figure = gender_bias(table(*late, *swapped, other), steps_axis=axis).figure()
    both, alone = ["base", "swapped"], ["bf16"]
    assert panels(figure) == [both, alone, both, [], both, []]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["410m-deduped", "1b"]
    assert legend(figure) == ["base", "bf16", "swapped"]
    # Only of interventions the axis leaves out what was before.
    starts = [axes.get_xlim()[0] for axes in figure.axes[:2]]
    assert starts[0] == pytest.approx(0 if axis == "log" else 141_000 - 600 - 1)
    assert starts[1] < 143_000
    assert [text.get_text() for text in figure.axes[3].texts] == ["not evaluated"]
    assert figure.get_suptitle() == ""


def test_other_batch_sizes_start_where_they_start(table, rows):
    several = [
        rows(variant=variant, step=step, crows=(0.6, 0.1))
        for step in (1000, 143_000)
        for variant in (None, "0.5MtokBS")
    ]
    figure = gender_bias(table(*several)).figure()
    assert figure.axes[0].get_xlim()[0] == 0
    assert panels(figure) == [["base", "0.5MtokBS"]]


def test_of_many_models_four_are_shown_and_the_others_named(table, rows, wino):
    own = [rows(f"m{n:02}", crows=(0.6, 0.1), wino=wino()) for n in range(20)]
    swapped = rows("m07", "intervention", crows=(0.6, 0.1), wino=wino())
    figure = gender_bias(table(*own, swapped)).figure()
    assert len(panels(figure)) == 12
    assert [axes.get_title() for axes in figure.axes[:4]] == ["m07", "m00", "m01", "m02"]
    assert figure.get_suptitle() == (
        "16 more models, not shown: m03, m04, m05, m06, m08, m09 and 10 more"
    )
    assert min(sizes_in(figure)) >= 1.5


@pytest.mark.parametrize("name", ["m", "a/long/folder/of/a/model " * 9, "$x_" * 40])
def test_panels_keep_their_size_whatever_there_is(name, table, rows, wino):
    several = [
        rows(name, None if n == 0 else f"{name}{n}", step=step, crows=(0.6, 0.1), wino=wino())
        for n in range(20)
        for step in (0, 1000)
    ]
    figure = gender_bias(table(*several)).figure()
    assert [len(each) for each in panels(figure)] == [20] * 3
    assert min(sizes_in(figure)) >= 1.5
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert figure.legends[0].get_window_extent().y1 <= lowest + 1
    assert len(legend(figure)) == 20


def test_a_baseline_fills_the_gaps_of_the_model_itself(table, rows):
    study = gender_bias(
        table(
            rows(step=1, crows=(0.6, 0.1)),
            rows(variant="baseline", step=1, crows=(0.1, 0.1)),
            rows(variant="baseline", step=2, crows=(0.7, 0.1)),
        )
    )
    figure = study.figure()
    assert panels(figure) == [["base"]]
    assert not figure.legends
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.6, 0.7]
