"""Tables for notebooks: read back by the standard library's parser of HTML."""

import math
from html.parser import HTMLParser

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.markup import escaped, html_arrow, html_facts, html_table


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
    assert read.said[0] == title.translate(_PICTURES)


_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}


def test_values_are_written_for_people() -> None:
    values = (1.23456789, 2, None, True, math.nan, [1, 2])
    page = html_table([*"abcdef"], [values], title="t")
    assert _Read(page).cells[6:] == ["1.23457", "2", "", "True", "nan", "[1, 2]"]
    assert page.count("text-align:right") == 3  # two floats and an int


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
    page = html_facts({"layers": 6, "repo": None, "names": ("a", "<b>"), "of": []}, title="<t>")
    read = _Read(page)
    assert read.cells == ["layers", "6", "names", "a, <b>", "of", ""]
    assert read.said == ["<t>"]
    assert 'scope="row"' in page


def test_a_path_that_is_no_unicode_can_be_sent_to_a_browser() -> None:
    assert escaped("caf\udce9").encode() == b"caf\\udce9"
