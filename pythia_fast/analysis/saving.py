"""A study's table and figure as files."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError
from pythia_fast.publish import published, write_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_KINDS = (".pdf", ".png", ".svg")
TABLE_KINDS = (".csv", ".parquet", ".json")


def save_table(table: pa.Table, path: str | Path) -> Path:
    """Write `table` as .csv, .parquet or .json (a list of rows), by the ending of `path`.

    Folders that are missing are made. In CSV and JSON a number that is not finite is empty or null.
    ArgumentError for another ending, WriteError where the system refuses; the file is there whole
    or not at all.
    """
    path = expanded(path)
    kind = path.suffix.lower()
    if kind not in TABLE_KINDS:
        raise ArgumentError(f"a table is saved as {' or '.join(TABLE_KINDS)}, not as {path.name!r}")
    make_parent(path)
    with published(path) as file:
        if kind == ".parquet":
            pq.write_table(table, file)
        elif kind == ".csv":
            pa.csv.write_csv(_finite(table), file)
        else:
            rows = _finite(table).to_pylist()
            file.write((json.dumps(rows, indent=1, allow_nan=False) + "\n").encode())
    return path


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as .pdf, .png or .svg, by the ending; errors as those of `save_table`."""
    path = expanded(path)
    kind = path.suffix.lower()
    if kind not in FIGURE_KINDS:
        raise ArgumentError(
            f"a figure is saved as {' or '.join(FIGURE_KINDS)}, not as {path.name!r}"
        )
    make_parent(path)
    with published(path) as file:
        figure.savefig(file, format=kind[1:], dpi=300)
    return path


def make_parent(path: Path) -> None:
    """Make the folder that `path` is to lie in. WriteError where the system refuses."""
    try:
        os.makedirs(path.parent, exist_ok=True)  # noqa: PTH103 - says which part is in the way
    except OSError as error:
        raise write_error(path, error) from error


def _finite(table: pa.Table) -> pa.Table:
    """Null for whatever is not finite, which neither CSV nor JSON can say."""
    for index, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(index)
            finite = pc.is_finite(column)
            kept = pc.if_else(finite, column, pa.scalar(None, field.type))
            table = table.set_column(index, field, kept)
    return table
