"""A few columns of what a run says of each sequence, a step or a shard at a time.

For runs with so many sequences that not all numbers of all steps go into memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.parts import Complete, columns_of, read_part


class Columns:
    """The columns `names` of a run's sequences.

    Where two metrics have a column of the same name, the first one's is taken.

    Attributes:
        names: those of the wanted columns that the run has at all, in the order of asking.
        steps: the steps that have all of `names`, ascending.
        origins: where the numbers of each of them are from.
    """

    def __init__(self, complete: Sequence[Complete], names: Sequence[str]) -> None:
        sources: dict[int, dict[str, list[Path]]] = {}
        origins: dict[int, dict[str, Any]] = {}
        known: dict[str, tuple[str, ...]] = {}  # what a metric's parts hold
        for step, metric, origin, parts in complete:
            if metric not in known:
                known[metric] = columns_of(parts[0])
            for name in names:
                if name in known[metric]:
                    sources.setdefault(step, {}).setdefault(name, parts)
                    origins.setdefault(step, origin)
        there = {name for of_step in sources.values() for name in of_step}
        self.names = tuple(name for name in names if name in there)
        self._sources = {s: of_step for s, of_step in sources.items() if of_step.keys() == there}
        self.steps = tuple(self._sources)
        self.origins = {step: origins[step] for step in self.steps}

    def of_step(self, step: int) -> pa.Table:
        """`sequence` (the dataset's row) and the columns, a row for each sequence of the run."""
        shards = len(next(iter(self._sources[step].values())))
        parts = [self._read(step, k) for k in range(shards)]
        return pa.concat_tables(parts, promote_options="permissive")

    def sequences(self) -> Iterator[pa.Table]:
        """Shard after shard of the first step: its `sequence` only."""
        for files in self._files(self.steps[:1]):
            yield read_part(files[0], ["sequence"])

    def shards(self, steps: Sequence[int] | None = None) -> Iterator[dict[int, pa.Table]]:
        """Shard after shard, which are the same sequences at every step: the steps' tables.

        ArgumentError if they are not, as in a run over "seen" or "unseen".
        """
        chosen = self.steps if steps is None else tuple(steps)
        for shard, _ in enumerate(self._files(chosen)):
            tables = {step: self._read(step, shard) for step in chosen}
            first = tables[chosen[0]]["sequence"]
            if not all(table["sequence"].equals(first) for table in tables.values()):
                raise ArgumentError("its steps look at different sequences")
            yield tables

    def _files(self, steps: Sequence[int]) -> list[tuple[Path, ...]]:
        """For each shard a file of each step."""
        files = [next(iter(self._sources[step].values())) for step in steps]
        if len({len(of_step) for of_step in files}) > 1:
            raise ArgumentError("its steps look at different sequences")
        return list(zip(*files, strict=True))

    def _read(self, step: int, shard: int) -> pa.Table:
        sources = self._sources[step]
        found: dict[str, Any] = {}
        for files in {id(files): files for files in sources.values()}.values():
            names = [name for name in self.names if sources[name] is files]
            part = read_part(files[shard], ["sequence", *names])
            if "sequence" in found and not found["sequence"].equals(part["sequence"]):
                raise ArgumentError(
                    f"{files[shard]} is about other sequences than the metrics beside it"
                )
            found |= {name: part[name] for name in part.column_names}
        return pa.table({name: found[name] for name in ("sequence", *self.names)})
