"""A study's table as a file that any program reads."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pythia_fast.analysis.telling import TABLE_KINDS
from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError
from pythia_fast.publish import published, require_folder, require_plain


def save_table(table: pa.Table, path: str | Path) -> Path:
    """Write `table` as .csv, .parquet or .json (a list of rows), by the ending of `path`.

    In CSV and JSON a number that is not finite is empty or null. ArgumentError for another ending,
    WriteError where the system refuses or the folder is not there; the file is there whole or not
    at all.
    """
    path = expanded(path)
    kind = path.suffix.lower()
    if kind not in TABLE_KINDS:
        raise ArgumentError(f"a table is saved as {' or '.join(TABLE_KINDS)}, not as {path.name!r}")
    require_folder(path)
    require_plain(path)
    with published(path) as file:
        if kind == ".parquet":
            pq.write_table(table, file)
        elif kind == ".csv":
            pa.csv.write_csv(_finite(table), file)
        else:
            rows = _finite(table).to_pylist()
            file.write((json.dumps(rows, indent=1, allow_nan=False) + "\n").encode())
    return path


def _finite(table: pa.Table) -> pa.Table:
    """Null for whatever is not finite, which neither CSV nor JSON can say."""
    for index, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(index)
            finite = pc.is_finite(column)
            kept = pc.if_else(finite, column, pa.scalar(None, field.type))
            table = table.set_column(index, field, kept)
    return table
