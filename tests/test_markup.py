"""Tables for notebooks: read back by the standard library's parser of HTML."""

import math
import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.markup import escaped, html_arrow, html_facts, html_sparkline, html_table


class _Read(HTMLParser):
    """The texts of the cells and paragraphs, and every tag that there is."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.said: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "p":
            self.said.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        into = self.said if self.open[-1] == "p" else self.cells
        into[-1] += data


OURS = {"p", "table", "thead", "tbody", "tr", "td", "th"}


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4), st.text())
def test_any_text_stays_text(rows: list[tuple[str, str]], title: str) -> None:
    read = _Read(html_table(["a", "<b>"], rows, title=title))
    assert read.tags <= OURS
    assert not read.open
    shown = [cell.translate(_PICTURES) for row in rows for cell in row]
    assert read.cells == ["a", "<b>", *shown]
    assert read.said[:1] == ([title.translate(_PICTURES)] if title else [*read.said[:1]])


_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
_UNSEEN = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_PICTURES |= {ord(c): f"[U+{ord(c):04X}]" for c in (*map(chr, range(0x80, 0xA0)), *_UNSEEN)}


def test_marks_of_direction_are_seen() -> None:
    assert escaped("a\u202eb\u2066<") == "a[U+202E]b[U+2066]&lt;"


def test_values_are_written_for_people() -> None:
    values = (1.23456789, 2, None, True, math.nan, [1, 2])
    page = html_table([*"abcdef"], [values], title="t")
    assert _Read(page).cells[6:] == ["1.23457", "2", "", "True", "nan", "[1, 2]"]
    assert page.count("text-align:right") == 6  # two floats and an int, and their headers
    mixed = html_table(["n", "m"], [(1, 1), (None, "x")], title="t")
    assert mixed.count("text-align:right") == 3  # n and its 1, and the 1 of m


def test_of_many_rows_the_first_and_the_last_are_shown() -> None:
    rows = [(number,) for number in range(25)]
    read = _Read(html_table(["n"], rows, title="t"))
    shown = [*map(str, range(10)), "… 5 more rows", *map(str, range(15, 25))]
    assert read.cells == ["n", *shown]
    assert read.said == ["t"]
    assert _Read(html_table(["n"], rows, title="t", most=24)).cells[13] == "… 1 more row"
    assert _Read(html_table(["n"], rows, title="t", most=3)).cells[1:] == (
        ["0", "1", "… 22 more rows", "24"]
    )
    assert len(_Read(html_table(["n"], rows[:20], title="t")).cells) == 21
    assert _Read(html_table(["n"], [], title="t")).said == ["t", "no rows"]


def test_an_arrow_table() -> None:
    table = pa.table({"a": list(range(30)), "b": ["<i>"] * 30, "c": [None] * 30})
    read = _Read(html_arrow(table, title="t", names=("b", "a"), most=2))
    assert read.cells == ["b", "a", "<i>", "0", "… 28 more rows", "<i>", "29"]
    whole = html_arrow(table, title="t", most=30)
    listed = [tuple(row.values()) for row in table.to_pylist()]
    assert whole == html_table(["a", "b", "c"], listed, title="t", most=30)
    assert _Read(html_arrow(pa.table({}), title="t")).said == ["t", "no rows"]
    assert _Read(html_arrow(table.slice(0, 0), title="t")).cells == ["a", "b", "c"]


def test_facts() -> None:
    facts = [("layers", 6), ("repo", None), ("names", ("a", "<b>")), ("of", [])]
    page = html_facts(facts, title="<t>")
    read = _Read(page)
    assert read.cells == ["layers", "6", "names", "a, <b>", "of", ""]
    assert read.said == ["<t>"]
    assert 'scope="row"' in page


def test_a_path_that_is_no_unicode_can_be_sent_to_a_browser() -> None:
    assert escaped("caf\udce9").encode() == b"caf\\udce9"


def strokes(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each unbroken line of a sparkline."""
    (path,) = re.findall(r' d="([^"]*)"', svg)
    number = r"(-?[\d.]+)"
    return [
        [(float(x), float(y)) for x, y in re.findall(rf"{number} {number}", stroke)]
        for stroke in path.split("M")
        if stroke
    ]


def test_a_sparkline_goes_where_the_values_go() -> None:
    svg = html_sparkline([0, 1, 3], [5.0, 7.0, 6.0], label='<"up">')
    assert strokes(svg) == [[(2, 22), (pytest.approx(40.7), 2), (118, 12)]]
    assert "<title>&lt;&quot;up&quot;&gt;</title>" in svg


def test_a_sparkline_breaks_where_nothing_is_known() -> None:
    values = [1.0, None, 2.0, math.nan, math.inf, 3.0, 4.0]
    lines = strokes(html_sparkline(range(7), values, label="x"))
    assert [len(line) for line in lines] == [1, 1, 2]
    for nothing in ([], [None], [math.nan, None]):
        assert strokes(html_sparkline(range(len(nothing)), nothing, label="x")) == []
    assert strokes(html_sparkline([3], [2.0], label="x")) == [[(60, 12)]]
    assert strokes(html_sparkline([0, 1], [2.0, 2.0], label="x")) == [[(2, 12), (118, 12)]]


@given(st.lists(st.floats() | st.none(), max_size=9))
def test_a_sparkline_stays_in_its_box(values: list[float | None]) -> None:
    for line in strokes(html_sparkline(range(len(values)), values, label="x")):
        for x, y in line:
            assert 0 <= x <= 120
            assert 0 <= y <= 24
