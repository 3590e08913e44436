"""The run folder: the one module that writes results.

    run.json                                  specification, hash, sources, versions, machine
    asked/<hash>.json                         the steps that a sweep was asked for
    commits/step=N.json                       which commit a step is from, see `pins`
    parts/step=N/<metric>-<shard>.parquet     one file a unit, never changed
    damaged/step=N/<metric>-<shard>.<hex>.parquet   parts that could not be read, put aside
    failures/step=N.json                      why a step failed, until it succeeds
    shares/<hash>.json                        which steps are whose, where several share the work
    unchanged/step=N.json                     files that were hashed again, see `unchanged`
    working/<host>-<pid>-<hex>.json           who works here, while it does, see `presence`
    results/, samples/                        of an evaluation, instead of parts/

A file is written under a name of its own, flushed to the disk and then linked to its final name.
`link` fails if the name exists: of two writers the later discards its copy, and no reader ever sees
half a file. Nothing relies on locks or clocks, so this holds on network file systems too. What a
killed process has left is removed by the next one that works in the folder.
"""

import errno
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pythia_fast.errors import FormatError, RunMismatchError, WriteError
from pythia_fast.publish import (
    link,
    make_folder,
    partial_of,
    remove_partials_in,
    require_space,
    require_writable,
    sync_folder,
    writing,
)
from pythia_fast.runs.folder.checked import read_or_put_aside
from pythia_fast.runs.folder.differing import differences
from pythia_fast.runs.folder.parts import (
    FORMAT,
    METADATA,
    Failure,
    numbered,
    read_origin,
    read_part,
    read_provenance,
    read_run,
)
from pythia_fast.runs.plan import Unit, fingerprint

OTHER_OUT = "give another `out` (--out)"
"""The way on where a run folder cannot be the one."""
_ATTEMPTS = 3
_PARTIAL = ".partial"


class Parts(Protocol):
    """Where finished units go, as whoever computes them sees it: a run folder, or the way there."""

    path: Path
    hash: str

    def done(self, unit: Unit) -> bool:
        """Whether the unit's result is there."""

    def origin(self, unit: Unit) -> Mapping[str, Any]:
        """What a finished unit says of where it came from. FormatError."""

    def intact(self, unit: Unit) -> Mapping[str, Any] | None:
        """Where a unit's result is from if it is there, and all of it can be read."""

    def first_origin(self) -> dict[str, Any] | None:
        """The provenance of the first finished unit that can be read; None if there is none."""

    def table(self, unit: Unit) -> pa.Table:
        """A finished unit's rows."""

    def publish(self, unit: Unit, table: pa.Table, provenance: Mapping[str, Any]) -> None:
        """Keep a unit's rows with their provenance, unless another was first."""

    def forget_failure(self, step: int) -> None:
        """The step has succeeded after all."""


class RunFolder:
    """A folder of results that belong to one specification.

    RunMismatchError if `path` holds results of another specification, or something else than a run;
    FormatError for a `run.json` that is none; WriteError if the folder cannot be written.
    `sources` say where model and tokens were, for those who want to read them again; that is no
    part of the specification, and the first writer's are kept.
    """

    def __init__(
        self,
        path: Path,
        specification: Mapping[str, Any],
        sources: Mapping[str, str | None] | None = None,
    ) -> None:
        self.path = path
        self.hash = fingerprint(specification)
        self._intact: set[str] = set()
        make_folder(path)
        found = read_run(path)
        if found is None:
            strangers = [p.name for p in path.iterdir() if p.suffix != _PARTIAL]
            found = read_run(path)  # again: another writer may just have begun here
            if strangers and found is None:
                raise RunMismatchError(
                    f"{path} holds {strangers[0]!r} but no run.json: it is not a run folder. "
                    "Give an empty or a new one as `out` (--out)"
                )
        if found is None:
            text = json.dumps(_run_record(specification, self.hash, sources or {}), indent=2) + "\n"
            self._publish(path / "run.json", text.encode())
            found = read_run(path)
        if found is None or found["hash"] != self.hash:
            _refuse(path, found, specification)
        self._remove_partials()

    @classmethod
    def joined(cls, path: Path, run_hash: str) -> "RunFolder":
        """A run folder that another process has opened, for its helpers: nothing is tidied up.

        RunMismatchError if it is of another specification.
        """
        found = read_run(path)
        if found is None or found["hash"] != run_hash:
            raise RunMismatchError(f"{path} is not the folder of this run any more")
        folder = cls.__new__(cls)
        folder.path, folder.hash, folder._intact = path, run_hash, set()
        return folder

    def done(self, unit: Unit) -> bool:
        """Whether the unit's result is there."""
        return self._inside(unit.path).is_file()

    def provenance(self, unit: Unit) -> dict[str, Any]:
        """What a finished unit says of where it came from."""
        return read_provenance(self._inside(unit.path))

    def origin(self, unit: Unit) -> dict[str, Any]:
        """`provenance`, but FormatError if the part is not this unit's."""
        return read_origin(self._inside(unit.path), self.hash, unit.step, unit.metric.name)

    def intact(self, unit: Unit) -> dict[str, Any] | None:
        """Where a unit's result is from; None if it is not there, and is to be computed.

        All of it is read once by each process. One that is damaged, or another's, is put aside
        first, into `damaged/`, with a warning. ReadError, WriteError.
        """
        if not self.done(unit):
            return None
        if unit.path in self._intact:
            with suppress(FormatError):
                return self.origin(unit)
        path, folder = self._inside(unit.path), self._inside(f"damaged/step={unit.step}")
        origin = read_or_put_aside(path, folder, self.hash, unit)
        if origin is not None:
            self._intact.add(unit.path)
        return origin

    def first_origin(self) -> dict[str, Any] | None:
        """The provenance of the first finished unit that can be read; None if there is none."""
        for _, folder in numbered(self.path / "parts"):
            for part in sorted(folder.glob("*.parquet")):
                with suppress(FormatError):  # whoever needs this unit is told
                    origin = read_provenance(part)
                    if origin.get("run") == self.hash:
                        return origin
        return None

    def table(self, unit: Unit) -> pa.Table:
        """A finished unit's rows."""
        return read_part(self._inside(unit.path))

    def publish(self, unit: Unit, table: pa.Table, provenance: Mapping[str, Any]) -> None:
        """Write a unit's rows with their provenance, unless another writer was first."""
        self._publish(self._inside(unit.path), part_bytes(table, provenance))

    def keep(self, name: str, data: bytes) -> Path:
        """The path of a file that nobody changes: with `data`, unless another writer was first."""
        path = self._inside(name)
        if not path.is_file():
            self._publish(path, data)
        return path

    def ask(self, steps: Sequence[int]) -> None:
        """Keep which steps a sweep was asked for, so that whoever reads it knows what it lacks."""
        digest = fingerprint({"steps": list(steps)})[:16]
        text = json.dumps({"steps": list(steps)}) + "\n"
        self.keep(f"asked/{digest}.json", text.encode())

    def record_failure(self, failure: Failure) -> None:
        """Keep the reason why a step failed; the last one counts."""
        path = self._inside(f"failures/step={failure.step}.json")
        text = json.dumps({"error": failure.error, "message": failure.message}, indent=2) + "\n"
        self._publish(path, text.encode(), replace=True)

    def forget_failure(self, step: int) -> None:
        """The step has succeeded after all."""
        path = self._inside(f"failures/step={step}.json")
        if path.exists():  # else a file system that is read-only would refuse
            path.unlink(missing_ok=True)

    def post(self, name: str, data: bytes) -> None:
        """Give a file that is for display these bytes, whatever it held. WriteError."""
        self._publish(self._inside(name), data, replace=True)

    def take_down(self, name: str) -> None:
        """Remove a file that was posted."""
        self._inside(name).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """WriteError if results could not be written into the run folder."""
        inside = [self._inside(name) for name in ("parts", "results", "failures")]
        steps = [folder for _, folder in numbered(self.path / "parts")]
        for folder in (self.path, *inside, *steps):
            if folder.is_dir():
                require_writable(folder, OTHER_OUT)

    def check_space(self, needed_bytes: int) -> None:
        """WriteError if the file system has less room than the results will take."""
        require_space(self.path, needed_bytes, OTHER_OUT)

    def _inside(self, name: str) -> Path:
        """A path inside the folder, on which no symbolic link may stand."""
        path = self.path
        for part in Path(name).parts:
            path = path / part
            if path.is_symlink():
                raise WriteError(errno.ELOOP, f"{path} is a symbolic link; it is not followed")
        return path

    def _remove_partials(self) -> None:
        """Remove what killed processes have left half written."""
        steps = [
            folder for name in ("parts", "samples") for _, folder in numbered(self.path / name)
        ]
        names = ("asked", "commits", "failures", "results", "shares", "unchanged", "working")
        for folder in (self.path, *(self.path / name for name in names), *steps):
            if folder.is_dir() and not folder.is_symlink():
                remove_partials_in(folder)

    def _publish(self, path: Path, data: bytes | pa.Buffer, *, replace: bool = False) -> None:
        """Write a file again if its half goes away: another machine may take us for killed."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for attempt in range(_ATTEMPTS):
                try:
                    _write(path, data, replace=replace)
                    break
                except FileNotFoundError:
                    if attempt + 1 == _ATTEMPTS:
                        raise
            sync_folder(path.parent)


def part_bytes(table: pa.Table, provenance: Mapping[str, Any]) -> pa.Buffer:
    """A part's file: a unit's rows, with their provenance."""
    metadata = {METADATA: json.dumps(provenance, sort_keys=True).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    return sink.getvalue()


@cache
def versions() -> Mapping[str, str]:
    """What the results are computed with; looked up once, since each look reads several files."""
    packages = ("pythia-fast", "torch", "numpy", "pyarrow")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _run_record(
    specification: Mapping[str, Any], run_hash: str, sources: Mapping[str, str | None]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "hash": run_hash,
        "specification": dict(specification),
        "sources": dict(sources),
        "versions": versions(),
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
        "command": sys.argv,
    }


def _refuse(path: Path, found: Mapping[str, Any] | None, specification: Mapping[str, Any]) -> None:
    theirs = (found or {}).get("specification", {})
    if theirs == specification:
        raise RunMismatchError(
            f"{path / 'run.json'} was changed: its hash is not that of its specification. "
            "Give another `out` (--out)"
        )
    raise RunMismatchError(
        f"{path} holds results of another specification ({differences(theirs, specification)}). "
        "Give another `out` (--out)"
    )


def _write(path: Path, data: bytes | pa.Buffer, *, replace: bool) -> None:
    """Give `path` these bytes at once; without `replace`, whoever was first stays."""
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            partial.replace(path)
        else:
            with suppress(FileExistsError):
                link(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
