"""How all studies tell what they found: files, numbers, rows with a key, a figure of nothing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

TABLE_KINDS = (".csv", ".parquet", ".json")
"""What a table is saved as."""
FIGURE_KINDS = (".png", ".svg", ".pdf")
"""What a figure is saved as: `plots.FORMATS`, without importing it."""


def shown(value: object) -> str:
    """A number of a table or summary as people read it; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    counted = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if counted else str(value)


def keyed(schema: "pa.Schema", key: Mapping[str, Any], columns: Mapping[str, Any]) -> "pa.Table":
    """Columns of the same length as a table, each row of which has the values of `key` as well."""
    import pyarrow as pa

    count = len(next(iter(columns.values())))
    repeated = {
        name: pa.repeat(pa.scalar(value), count).cast(schema.field(name).type)
        for name, value in key.items()
    }
    return pa.table(repeated | dict(columns), schema=schema)


def nothing_to_draw(figure: "Figure") -> "Figure":
    """The figure with words in the place of its panels."""
    for axes in figure.axes:
        axes.set_axis_off()
    words = "nothing to draw: see the summary"
    figure.axes[0].text(0.5, 0.5, words, ha="center", va="center")
    return figure
