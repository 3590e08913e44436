"""Tables for notebooks, as HTML: whatever stands in them is shown as text, never as markup."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 20
"""Rows that a notebook shows of a table."""

_WIDTH, _HEIGHT = 120, 24  # of a sparkline, in pixels
_DIRECTION = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN: dict[int, int | str] = (
    {code: 0x2400 + code for code in range(0x20)}
    | {0x7F: 0x2421}
    | {code: f"[U+{code:04X}]" for code in (*range(0x80, 0xA0), 0x2028, 0x2029, *_DIRECTION)}
)
"""Control characters to their pictures: a browser would drop them or stop at them.

Others, and marks of direction, which would turn around what is beside them, to their numbers.
"""


def html_table(
    names: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    most: int = MOST_ROWS,
) -> str:
    """A title, if there is one, and a table of `rows`, each with a cell for each of `names`.

    Of more than `most` rows the first and the last are shown, and between them how many are not.
    Floats are written with six digits, None is an empty cell, numbers stand to the right.
    """
    last = most // 2 if len(rows) > most else 0
    first = rows[: most - last]
    left_out = len(rows) - len(first) - last
    ends = rows[len(rows) - last :]
    body = [_row(row) for row in first]
    if left_out:
        what = f"… {left_out:,} more row{'s' * (left_out > 1)}"
        body.append(f'<tr><td colspan="{len(names)}" style="text-align:left">{what}</td></tr>')
    body += [_row(row) for row in ends]
    shown = zip(*first, *ends, strict=True) if rows else ((),) * len(names)
    head = "".join(
        _header(name, "col", _side(*column)) for name, column in zip(names, shown, strict=True)
    )
    return (
        f"{f'<p>{escaped(title)}</p>' if title else ''}<table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>{'' if rows else '<p>no rows</p>'}"
    )


def html_arrow(
    table: "pa.Table",
    *,
    title: str = "",
    names: Iterable[str] | None = None,
    most: int = MOST_ROWS,
) -> str:
    """`html_table` of the columns `names` of an Arrow table, of all by default."""
    shown = table.select(list(table.column_names if names is None else names))
    return html_table(shown.column_names, _ArrowRows(shown), title=title, most=most)


def html_facts(facts: Iterable[tuple[str, object]], *, title: str) -> str:
    """A title and under it one line for each fact, its name before it; None is left out."""
    lines = "".join(
        f"<tr>{_header(name, 'row')}{_cell(_listed(value), left=True)}</tr>"
        for name, value in facts
        if value is not None
    )
    return f"<p>{escaped(title)}</p><table><tbody>{lines}</tbody></table>"


def html_sparkline(places: Sequence[float], values: Sequence[float | None], *, label: str) -> str:
    """A small line of `values` over rising `places`, as SVG in the text's colour.

    It breaks at a value that is None or not finite; `label` is for those who do not see it.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min(finite, default=0.0) / 2, max(finite, default=0.0) / 2  # no span overflows
    wide = max(places, default=0.0) - min(places, default=0.0)
    path, pen_down = [], False
    for place, value in zip(places, values, strict=True):
        if value is None or not math.isfinite(value):
            pen_down = False
            continue
        x = 2 + (_WIDTH - 4) * ((place - places[0]) / wide if wide else 0.5)
        y = 2 + (_HEIGHT - 4) * ((high - value / 2) / (high - low) if high > low else 0.5)
        path.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}" + ("" if pen_down else "h0"))
        pen_down = True
    return (
        f'<svg role="img" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'style="vertical-align:middle"><title>{escaped(label)}</title>'
        f'<path d="{"".join(path)}" fill="none" stroke="currentColor" stroke-width="1.5" '
        'stroke-linecap="round" stroke-linejoin="round"/></svg>'
    )


def escaped(text: str) -> str:
    """Text as HTML that shows it: markup, quotes, and what nobody sees or no browser takes.

    That is control characters, marks of direction and broken Unicode.
    """
    sound = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return html.escape(sound.translate(_SHOWN))


class _ArrowRows(Sequence[Sequence[object]]):
    """The rows of an Arrow table, of which only those that are taken become Python's values."""

    def __init__(self, table: "pa.Table") -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            row = range(len(self))[index]
            return self[row : row + 1][0]
        first, last, _ = index.indices(len(self))
        columns = self._table.slice(first, max(0, last - first)).columns
        return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _header(name: str, scope: str, side: str = "left") -> str:
    return f'<th scope="{scope}" dir="auto" style="text-align:{side}">{escaped(name)}</th>'


def _row(values: Iterable[object]) -> str:
    return f"<tr>{''.join(map(_cell, values))}</tr>"


def _cell(value: object, *, left: bool = False) -> str:
    # dir: text that runs from right to left does not turn its neighbours around.
    side = "left" if left else _side(value)
    return f'<td dir="auto" style="text-align:{side}">{escaped(_text(value))}</td>'


def _side(*values: object) -> str:
    """Where they stand: to the right if they are numbers, or not there."""
    known = [value for value in values if value is not None]
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in known]
    return "right" if numbers and all(numbers) else "left"


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _listed(value: object) -> object:
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else value
