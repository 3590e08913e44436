"""The curves: gaps, bands, axes, and runs that are hidden."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pythia_fast.report import write_report
from pythia_fast.testing.tokenizer import byte_tokenizer
from pythia_fast.tokens import TokenDataset

Open = Callable[..., Any]


def test_a_gap_is_told_drawn_open_and_marked(opened: Open, page: Path) -> None:
    browser = opened(page)
    told = " ".join(browser.texts_of("#summary td"))
    assert "not begun" in told
    assert "failed: ChecksumError" in told
    assert "odd </script>" in told
    assert browser.texts_of("#curves figcaption")[0] == "2 steps not computed (\u00d7)"
    drawn = browser.run(
        "const t = document.querySelector('#curves .plot').data"
        ".filter((e) => e.mode.includes('markers'));"
        "return t.map((e) => [e.y, e.steps, e.connectgaps ?? null, e.yaxis ?? null])",
    )
    line = drawn[1]
    assert line[1] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert [y is None for y in line[0]] == [False, False, False, True, True, False, False, False]
    assert line[2] is False
    assert drawn[2][1] == [4, 8]
    browser.open_sequence(1, 1)
    browser.slide(3)
    assert "is missing here: not begun" in browser.texts_of("#fate")[0]


def test_bands_are_drawn_between_the_gaps_only(opened: Open, page: Path, two_runs: Any) -> None:
    browser = opened(page)
    bands = browser.run(
        "return document.querySelector('#curves .plot').data"
        ".filter((e) => e.fill === 'toself').map((e) => [e.run, e.x, e.y])",
    )
    assert [(r, len(x)) for r, x, _ in bands] == [(0, 16), (1, 6), (1, 6)]
    values = [
        row["value"] for row in two_runs[0].table.to_pylist() if row["metric"] == "perplexity"
    ]
    low, high = bands[0][2][:8], bands[0][2][8:][::-1]
    assert low == pytest.approx([value * 0.95 for value in values])
    assert high == pytest.approx([value * 1.05 for value in values])
    assert {"low", "high"} <= set(browser.texts_of("#results thead th"))
    assert "Bands are 95% confidence intervals" in browser.texts_of("#curves .hint")[0]


def test_a_run_is_hidden_everywhere_at_once_and_the_axis_changes(opened: Open, page: Path) -> None:
    browser = opened(page)
    drawn = "return document.querySelector('#curves .plot').data"
    lines = drawn + ".filter((e) => e.mode.includes('markers')).map((e) => e.run)"
    assert browser.run(lines) == [0, 1, 1]
    browser.run("document.querySelector('#controls input[data-run=\"1\"]').click()")
    assert browser.run(lines) == [0]
    assert set(browser.cells("run")) == {"tiny"}
    places = drawn + ".find((e) => e.mode.includes('markers')).x"
    assert browser.run(places)[-1] == pytest.approx(1.8129, abs=1e-3)  # log10(65)
    browser.run("document.querySelector('#controls input[value=linear]').click()")
    assert browser.run(places) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert browser.errors() == []


@pytest.fixture(scope="module")
def four(
    tmp_path_factory: pytest.TempPathFactory, texts: TokenDataset, four_runs: list[Any]
) -> Path:
    folder = tmp_path_factory.mktemp("four")
    return write_report(four_runs, folder / "r.html", tokens=texts, tokenizer=byte_tokenizer())


def test_steps_of_several_runs_are_in_order(opened: Open, four: Path) -> None:
    browser = opened(four)
    axis = "return document.querySelector('#memory .plot').layout.xaxis.categoryarray"
    assert browser.run(axis) == ["0", "1", "2", "4", "8", "16", "32", "64"]
    shown = "return document.querySelector('#memory .plot')._fullLayout.xaxis._categories"
    assert browser.run(shown) == ["0", "1", "2", "4", "8", "16", "32", "64"]
    assert browser.errors() == []


def test_of_many_runs_the_controls_are_the_legend(opened: Open, four: Path) -> None:
    browser = opened(four)
    assert browser.texts_of("#curves .legendtext, #memory .legendtext") == []
    assert len(browser.texts_of("#controls label svg path")) == 4
    browser.run("document.querySelector('#controls input[data-run=\"3\"]').click()")
    assert browser.texts_of("#curves figure:first-child .legendtext") == ["a", "b", "c"]


def test_zeros_are_not_on_a_logarithmic_axis_and_it_is_said(opened: Open, four: Path) -> None:
    browser = opened(four)
    figure = "document.querySelector('[data-metric=memorization]')"
    browser.run(f"{figure}.querySelector('input[type=checkbox]').click()")
    lines = f"{figure}.querySelector('.plot').data.flatMap((e) => e.yaxis === 'y2' ? [] : e.y)"
    drawn = [y for y in browser.run(f"return {lines}") if y is not None]
    assert drawn
    assert min(drawn) == pytest.approx(1 / 12)
    told = browser.run(f"return {figure}.querySelector('figcaption').textContent")
    assert "values are 0 or less and not on this axis" in told
    assert browser.errors() == []


def test_a_chart_saved_in_the_dark_is_as_on_paper(opened: Open, four: Path) -> None:
    browser = opened(four)
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        saved = browser.driver.execute_async_script(
            """
            const done = arguments[arguments.length - 1];
            Plotly.downloadImage = (plot) => Plotly.toImage(plot, {format: 'svg'}).then(done);
            document.querySelector('#curves .modebar-btn').click();
            """
        )
        svg = unquote(saved)
        assert "rgb(255, 255, 255)" in svg  # the paper
        for dark in ("rgb(233, 232, 228)", "rgb(242, 241, 236)"):
            assert dark not in svg
        after = "return document.querySelector('#curves .plot').layout.font.color.toLowerCase()"
        assert browser.run(after) == "#e9e8e4"
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
