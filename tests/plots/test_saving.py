"""Figures as files."""

import re

import pytest

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.plots import FORMATS, Line, curves, save_figure
from pythia_fast.plots.saving import check_figure_path


def figure():
    line = Line("70m", (0, 1, 2), (3.0, 2.0, 1.0), (2.9, 1.9, 0.9), (3.1, 2.1, 1.1), (4,))
    return curves([line, Line("160m", (0, 1), (2.0, 1.0))], "perplexity")


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_figure_gives_the_same_bytes(tmp_path, kind):
    first = save_figure(figure(), tmp_path / f"a{kind}")
    second = save_figure(figure(), tmp_path / f"b{kind.upper()}")
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) > 1000


def test_text_stays_text(tmp_path):
    svg = save_figure(figure(), tmp_path / "a.svg").read_text()
    assert re.search(r"<text[^>]*>\s*training step\s*</text>", svg)
    assert "70m" in svg
    assert not re.search(r"dc:date|\d{4}-\d\d-\d\dT", svg)
    pdf = save_figure(figure(), tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, which is type 42
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_a_png_has_as_many_dots_as_asked_for(tmp_path):
    from matplotlib.image import imread

    made = figure()
    for dpi in (50, 200):
        height, width, _ = imread(save_figure(made, tmp_path / "a.png", dpi=dpi)).shape
        assert (width, height) == pytest.approx(made.get_size_inches() * dpi, abs=1)


def test_a_missing_folder_is_refused_and_nothing_else_is_left(tmp_path):
    for check in (check_figure_path, lambda path: save_figure(figure(), path)):
        with pytest.raises(WriteError, match=r"cannot write .*a\.png: there is no folder .*deep:"):
            check(tmp_path / "new/deep/a.png")
    (tmp_path / "new/deep").mkdir(parents=True)
    path = save_figure(figure(), tmp_path / "new/deep/a.png", dpi=50)
    assert [each.name for each in path.parent.iterdir()] == ["a.png"]
    before = path.read_bytes()
    save_figure(figure(), path, dpi=60)
    assert path.read_bytes() != before


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.gz", ".png"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"\.png, \.svg, \.pdf"):
        save_figure(figure(), tmp_path / name)
    with pytest.raises(ArgumentError):
        check_figure_path(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dpi", [0, -1, 1e9, float("nan")])
def test_dots_per_inch_make_sense(tmp_path, dpi):
    with pytest.raises(ArgumentError, match="dpi"):
        save_figure(figure(), tmp_path / "a.png", dpi=dpi)


def test_what_cannot_be_written_is_a_write_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "elsewhere.png")
    for path in ("file/a.png", "folder.png", "link.png"):
        with pytest.raises(WriteError, match=re.escape(path.split("/")[0])):
            save_figure(figure(), tmp_path / path, dpi=50)
    assert not (tmp_path / "elsewhere.png").exists()
