"""A run's numbers by sequence as the page takes them: shard by shard, and only what it knows."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.report.run import Run

_KINDS = {
    "nll": pa.types.is_floating,
    "tokens": pa.types.is_integer,
    "memorized": pa.types.is_boolean,
    "score": pa.types.is_floating,
    "first_mismatch": pa.types.is_integer,
    "token_nll": pa.types.is_list,
}
"""What the columns hold that the page knows; others of the same name are a user's own."""


class Reading:
    """Columns of one metric. Of the steps in `without`, which lack that metric, there are none."""

    def __init__(self, run: Run, names: Sequence[str], without: Collection[int] = ()) -> None:
        self._columns = run.columns(names)
        self._steps = frozenset(self._columns.steps) - frozenset(without)

    def tables(self, step: int) -> Iterator[pa.Table]:
        """Shard after shard of a step: `sequence` and the columns that it has; maybe none."""
        if step not in self._steps:
            return
        for tables in self._columns.shards([step]):
            table = tables[step]
            own = [f.name for f in table.schema if f.name in _KINDS and not _KINDS[f.name](f.type)]
            yield table.drop_columns(own)

    def some(self, step: int, rows_n: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
        """The same, of these sequences only."""
        wanted = pa.array(rows_n)
        for table in self.tables(step):
            kept = table.filter(pc.is_in(table["sequence"], wanted))
            if len(kept):
                yield kept
