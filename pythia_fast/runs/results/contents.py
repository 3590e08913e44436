"""The parts of a run folder: which are complete, and which cannot be read."""

import errno
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pythia_fast.errors import FormatError, MissingCheckpointError, ReadError
from pythia_fast.metrics import Metric
from pythia_fast.runs.folder.checked import Part, checked_part
from pythia_fast.runs.folder.parts import Complete, no_run_words, numbered, read_origin
from pythia_fast.runs.results.tables import metric_words, stacked

Result = tuple[int, str]
"""A step and a metric."""

_log = logging.getLogger("pythia_fast")


class Contents:
    """What lies in a run folder of these `metrics`, at the steps that are `asked` for.

    The bytes of each part are checked when it is first looked at. One that is damaged is told in a
    warning, once, and counts as if it were not there. MissingCheckpointError if the whole folder is
    no longer there, or lies on another machine: no results are not all results.
    """

    def __init__(
        self,
        path: Path,
        run_hash: str,
        metrics: Mapping[str, Metric | None],
        asked: Callable[[int], bool],
    ) -> None:
        self._path, self._hash, self._metrics, self._asked = path, run_hash, metrics, asked
        self._good: set[Path] = set()
        self._damaged: dict[Path, FormatError | ReadError] = {}

    def each(self, names: Collection[str]) -> Iterator[tuple[int, str, dict[str, Any], pa.Table]]:
        """What is complete of these metrics: step, metric, origin and all of its sequences."""
        for step, name, files in self._files():
            if name in names:
                parts = [part for file in files if (part := self._look(file, step, name))]
                if parts and len(parts) == parts[0][0]["shards"]:
                    whose = metric_words(name, self._path)
                    table = stacked([table for _, table in parts], whose)
                    yield step, name, parts[0][0], table

    def complete(self, only: int | None = None) -> list[Complete]:
        """Steps × metrics all of whose shards are there: their origin and their files."""
        return [each for each in self._begun(only) if len(each[3]) == each[2]["shards"]]

    def shards(self) -> dict[Result, tuple[int, int]]:
        """How many shards of how many there are of all that is begun."""
        return {
            (step, name): (len(parts), origin["shards"])
            for step, name, origin, parts in self._begun()
        }

    def damaged(self) -> dict[Result, list[FormatError | ReadError]]:
        """Of which results parts cannot be read, and why."""
        found: dict[Result, list[FormatError | ReadError]] = {}
        for step, name, files in self._files():
            self._readable(files, step, name)
            errors = [self._damaged[file] for file in files if file in self._damaged]
            if errors:
                found[step, name] = errors
        return found

    def _begun(self, only: int | None = None) -> list[Complete]:
        """The same as `complete` of which any shard is there."""
        found = []
        for step, name, files in self._files(only):
            parts = self._readable(files, step, name)
            if parts:
                found.append((step, name, read_origin(parts[0], self._hash, step, name), parts))
        return found

    def _files(self, only: int | None = None) -> Iterator[tuple[int, str, list[Path]]]:
        if not os.path.exists(self._path / "run.json"):  # noqa: PTH110 - never raises
            raise MissingCheckpointError(no_run_words(self._path))
        for step, folder in numbered(self._path / "parts"):
            if not self._asked(step) or only not in (None, step):
                continue
            for name in self._metrics:
                files = folder.glob(f"{name}-?????.parquet")
                yield step, name, sorted(file for file in files if not file.is_symlink())

    def _readable(self, files: Sequence[Path], step: int, name: str) -> list[Path]:
        return [file for file in files if file in self._good or self._look(file, step, name)]

    def _look(self, file: Path, step: int, name: str) -> Part | None:
        """A part, None if it cannot be read."""
        if file in self._damaged:
            return None
        try:
            part = checked_part(file, self._hash, step, name, self._metrics[name])
        except (FormatError, ReadError) as error:
            if not isinstance(error, ReadError) or error.errno != errno.ENOENT:
                self._damaged[file] = error
                _log.warning("%s", error)
            return None  # gone: whoever computes it again has put it aside
        self._good.add(file)
        return part
