"""What holds an Arrow table, as whatever reads tables wants it."""

from typing import TYPE_CHECKING, Protocol

from pythia_fast.extras import require

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow as pa


class _HasTable(Protocol):
    @property
    def table(self) -> "pa.Table": ...


class Tabular:
    """A base for what has a `table`: also DuckDB and others read it as a stream of Arrow's."""

    def to_pandas(self: _HasTable) -> "pandas.DataFrame":
        """`table` as a pandas DataFrame (extra: `pandas`)."""
        require("pandas")
        frame: pandas.DataFrame = self.table.to_pandas()
        return frame

    def to_polars(self: _HasTable) -> "polars.DataFrame":
        """`table` as a polars DataFrame (extra: `polars`)."""
        frame: polars.DataFrame = require("polars").from_arrow(self.table)
        return frame

    def __arrow_c_stream__(self: _HasTable, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)
