"""A few columns of what a run says of each sequence, a step or a shard at a time.

For runs with so many sequences that not all numbers of all steps go into memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.folder.parts import Complete, columns_of, read_part
from pythia_fast.runs.results.tables import stacked
from pythia_fast.words import listed

_NAMED = 8  # steps in an error


class Columns:
    """The columns `names` of the sequences of the run in `path`.

    Where two metrics have a column of the same name, the first one's is taken. A metric may give
    other columns at another step, as may one that is complete at some steps only: a step that
    lacks any of `names` is none of `steps`. Who can use the ones without the others asks for them
    apart. At a step, what the first shard has counts; where a later one lacks it, there are nulls.

    Attributes:
        names: those of the wanted columns that the run has at any step, in the order of asking.
        steps: the steps that have all of `names`, ascending.
        origins: where the numbers of each of them are from.
    """

    def __init__(self, path: Path, complete: Sequence[Complete], names: Sequence[str]) -> None:
        self._path = path
        sources: dict[int, dict[str, list[Path]]] = {}
        origins: dict[int, dict[str, Any]] = {}
        for step, _, origin, parts in complete:
            here = columns_of(parts[0])
            for name in names:
                if name in here:
                    sources.setdefault(step, {}).setdefault(name, parts)
                    origins.setdefault(step, origin)
        there = {name for of_step in sources.values() for name in of_step}
        self.names = tuple(name for name in names if name in there)
        self._sources = {s: of_step for s, of_step in sources.items() if of_step.keys() == there}
        self.steps = tuple(self._sources)
        self.origins = {step: origins[step] for step in self.steps}

    def of_step(self, step: int) -> pa.Table:
        """`sequence` (the dataset's row) and the columns, a row for each sequence of the run.

        ArgumentError for a step that is none of `steps`, and where two metrics looked at different
        sequences.
        """
        (files,) = self._of((step,))
        return stacked(
            [self._read(step, k) for k in range(len(files))], f"a metric in {self._path}"
        )

    def sequences(self) -> Iterator[pa.Table]:
        """Shard after shard of the first step: its `sequence` only."""
        for files in self._files(self.steps[:1]):
            yield read_part(files[0], ["sequence"])

    def shards(self, steps: Sequence[int] | None = None) -> Iterator[dict[int, pa.Table]]:
        """Shard after shard, which are the same sequences at every step: the steps' tables.

        ArgumentError if they are not, as in a run over "seen" or "unseen", and for a step that is
        none of `steps`.
        """
        chosen = self.steps if steps is None else tuple(steps)
        for shard, _ in enumerate(self._files(chosen)):
            tables = {step: self._read(step, shard) for step in chosen}
            first = tables[chosen[0]]["sequence"]
            if not all(table["sequence"].equals(first) for table in tables.values()):
                raise ArgumentError(f"the steps of {self._path} look at different sequences")
            yield tables

    def _files(self, steps: Sequence[int]) -> list[tuple[Path, ...]]:
        """For each shard a file of each step."""
        files = self._of(steps)
        if len({len(of_step) for of_step in files}) > 1:
            raise ArgumentError(f"the steps of {self._path} look at different sequences")
        return list(zip(*files, strict=True))

    def _of(self, steps: Sequence[int]) -> list[list[Path]]:
        """The files of a column of each step. ArgumentError for a step that is not there."""
        for step in steps:
            if step not in self._sources:
                what = f" with {', '.join(self.names)}" if self.names else ""
                there = listed(self.steps, _NAMED) or "none"
                raise ArgumentError(
                    f"step {step} of {self._path} is not complete{what}; there are {there}"
                )
        return [next(iter(self._sources[step].values())) for step in steps]

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
            found |= {n: pa.nulls(len(part)) for n in names if n not in part.column_names}
        return pa.table({name: found[name] for name in ("sequence", *self.names)})
