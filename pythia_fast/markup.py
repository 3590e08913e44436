"""Tables for notebooks, as HTML: whatever stands in them is shown as text, never as markup."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 20
"""Rows that a notebook shows of a table."""

_SHOWN = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
"""Control characters to their pictures: a browser would drop them or stop at them."""


def html_table(
    names: Sequence[str], rows: Sequence[Sequence[object]], *, title: str, most: int = MOST_ROWS
) -> str:
    """A title and under it a table of `rows`, each with a cell for each of `names`.

    Of more than `most` rows the first and the last are shown, and between them how many are not.
    Floats are written with six digits, None is an empty cell, numbers stand to the right.
    """
    last = most // 2 if len(rows) > most else 0
    first = rows[: most - last]
    left_out = len(rows) - len(first) - last
    body = [_row(row) for row in first]
    if left_out:
        what = f"… {left_out:,} more row{'s' * (left_out > 1)}"
        body.append(f'<tr><td colspan="{len(names)}" style="text-align:left">{what}</td></tr>')
    body += [_row(row) for row in rows[len(rows) - last :]]
    head = "".join(_header(name, "col") for name in names)
    return (
        f"<p>{escaped(title)}</p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>{'' if rows else '<p>no rows</p>'}"
    )


def html_arrow(
    table: "pa.Table",
    *,
    title: str,
    names: Iterable[str] | None = None,
    most: int = MOST_ROWS,
) -> str:
    """`html_table` of the columns `names` of an Arrow table, of all by default."""
    shown = table.select(list(table.column_names if names is None else names))
    return html_table(shown.column_names, _ArrowRows(shown), title=title, most=most)


def html_facts(facts: Mapping[str, object], *, title: str) -> str:
    """A title and under it one line for each fact, its name before it; None is left out."""
    lines = "".join(
        f"<tr>{_header(name, 'row')}{_cell(_listed(value), left=True)}</tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<p>{escaped(title)}</p><table><tbody>{lines}</tbody></table>"


def escaped(text: str) -> str:
    """Text as HTML that shows it: markup, quotes, control characters and broken Unicode too."""
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
            return self[index : index + 1][0]
        first, last, _ = index.indices(len(self))
        columns = self._table.slice(first, max(0, last - first)).columns
        return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _header(name: str, scope: str) -> str:
    return f'<th scope="{scope}" dir="auto" style="text-align:left">{escaped(name)}</th>'


def _row(values: Iterable[object]) -> str:
    return f"<tr>{''.join(map(_cell, values))}</tr>"


def _cell(value: object, *, left: bool = False) -> str:
    # dir: text that runs from right to left does not turn its neighbours around.
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and not left
    side = "right" if number else "left"
    return f'<td dir="auto" style="text-align:{side}">{escaped(_text(value))}</td>'


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _listed(value: object) -> object:
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else value
